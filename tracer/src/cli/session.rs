//! `heaptap session`: scripted sessions from a file.

use std::ffi::OsStr;
use std::path::Path;

use clap::{Parser, ValueEnum};
use indicatif::ProgressBar;

use super::args::{
    Cli, Command, DiffFormat, Format, Session as Args, SessionCommand, SessionFile, SessionRun,
};
use super::{is_watched, note, runtime, to_stdout, write_json};
use crate::base::{Error, Result};
use crate::script::{self, Host, RunState, Session, TEMPLATE};

pub(super) fn run(args: &Args) -> Result<u8> {
    match &args.command {
        SessionCommand::Run(args) => run_session(args),
        SessionCommand::Check(file) => {
            note(&format!("{}: {}", file.file.display(), load(file)?.summary()));
            Ok(0)
        }
        SessionCommand::New => to_stdout(|out| out.write_all(TEMPLATE.as_bytes())).map(|()| 0),
    }
}

fn load(file: &SessionFile) -> Result<Session> {
    let name = file.file.display().to_string();
    let text = std::fs::read_to_string(&file.file)
        .map_err(|e| Error::usage(format!("cannot read {name}")).because(e))?;
    Session::parse(&text, &name, &file.set, &Terminal::new())
}

fn run_session(args: &SessionRun) -> Result<u8> {
    let session = load(&args.session)?;
    note(&session.summary());
    let mut terminal = Terminal::new();
    let ran = runtime()?.block_on(script::run(&session, &mut terminal));
    terminal.bar.finish_and_clear();
    let (results, failure) = ran?;
    if args.json {
        write_json(&results)?;
    } else {
        to_stdout(|out| results.write_table(out))?;
    }
    match failure {
        Some(e) => Err(e),
        None if results.has_failed_assertions() => Ok(ASSERTION_FAILED),
        None => Ok(u8::from(results.state == RunState::Interrupted)),
    }
}

const ASSERTION_FAILED: u8 = 3;

/// What sessions ask of the command line.
struct Terminal {
    bar: ProgressBar,
}

impl Terminal {
    fn new() -> Terminal {
        let bar = if is_watched() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Terminal { bar }
    }
}

impl Host for Terminal {
    fn note(&mut self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    fn progress(&mut self, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.tick();
    }

    fn report_ending(&self, format: &str) -> Option<&'static str> {
        Format::from_str(format, false).ok().map(Format::ending)
    }

    fn diff_ending(&self, format: &str) -> Option<&'static str> {
        DiffFormat::from_str(format, false).ok().map(DiffFormat::ending)
    }

    fn write_report(&self, capture: &Path, format: &str, output: &Path) -> Result<()> {
        match parse(&["report".as_ref(), capture.as_os_str()], format, output)? {
            Command::Report(args) => super::report::run(&args).map(drop),
            _ => Ok(()),
        }
    }

    fn write_diff(&self, captures: [&Path; 2], format: &str, output: &Path) -> Result<()> {
        let [before, after] = captures.map(Path::as_os_str);
        // They may be of any lengths.
        let per = ["--per".as_ref(), "duration".as_ref()];
        match parse(&["diff".as_ref(), before, after, per[0], per[1]], format, output)? {
            Command::Diff(args) => super::diff::run(&args).map(drop),
            _ => Ok(()),
        }
    }
}

/// What the user would type to have this in a file.
fn parse(command: &[&OsStr], format: &str, output: &Path) -> Result<Command> {
    let how = ["--format".as_ref(), OsStr::new(format), "-o".as_ref(), output.as_os_str()];
    let line = [OsStr::new("heaptap")].into_iter().chain(command.iter().copied()).chain(how);
    let wrong = |e| Error::usage(format!("there is no format {format:?}")).because(e);
    Ok(Cli::try_parse_from(line).map_err(wrong)?.command)
}
