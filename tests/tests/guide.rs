//! The guide to the hunt: its commands do what it says, on a service that leaks and then on the
//! same one cured.

use regex::Regex;

/// A command of the guide, and what it is said to print.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// The line of the guide behind which the service is the cured one.
const CURED: &str = "<!-- from here on the service is the cured one -->";

/// The commands of all ```` ```console ```` blocks, which begin with `$ `, and the lines behind each.
fn steps(markdown: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in markdown.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            steps.push(Step { command: command.to_owned(), output: Vec::new() });
        } else if let Some(step) = steps.last_mut().filter(|_| inside) {
            step.output.push(line.to_owned());
        }
    }
    steps
}

/// Whether a line is as the guide shows it: numbers differ from run to run, and `…` is anything.
fn fits(shown: &str, line: &str) -> bool {
    let shape = regex::escape(shown.trim());
    let number = Regex::new(r"[0-9]+(\\\.[0-9]+)?( [KMG]?i?B)?").expect("a regex");
    let shape = number.replace_all(&shape, r"[0-9]+([.][0-9]+)?( [KMG]?i?B)?").replace('…', ".*");
    let shape = Regex::new(" +").expect("a regex").replace_all(&shape, " +");
    Regex::new(&format!("^ *{shape} *$")).is_ok_and(|shape| shape.is_match(line))
}

/// The first line that is shown but not printed, each behind the one before.
fn missing<'a>(shown: &'a [String], printed: &str) -> Option<&'a String> {
    let mut printed = printed.lines();
    shown.iter().find(|shown| !printed.any(|line| fits(shown, line)))
}

#[test]
fn commands_are_told_from_what_they_print() {
    let text = "Do:\n```console\n$ one\nout\nput\n$ two\n```\n$ no\n```sh\n$ no\n```\n";
    let step = |command: &str, output: &[&str]| Step {
        command: command.to_owned(),
        output: output.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(steps(text), [step("one", &["out", "put"]), step("two", &[])]);
}

#[test]
fn numbers_may_differ_and_words_may_not() {
    assert!(fits("12 cycles, 1.5 MiB…", "7 cycles, 900 KiB and more"));
    assert!(fits("a  b", "  a      b"));
    assert!(!fits("12 cycles", "12 rounds"));
    let shown = ["a 1".to_owned(), "b".to_owned()];
    assert_eq!(missing(&shown, "x\na 2\ny\nb\n"), None);
    assert_eq!(missing(&shown, "b\na 2\n"), Some(&shown[1]));
}

mod privileged {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::process::Command;

    use anyhow::{Context, Result, ensure};
    use tests::{NEWEST, Process, Variant, copy_program, heaptap, start_target};
    use xtask::zoo::{self, Program};

    use super::*;

    /// Longer than any command of the guide takes.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(240);

    #[test]
    fn the_guide_is_true() -> Result<()> {
        let guide = fs::read_to_string(xtask::shell::root().join("docs/hunting.md"))?;
        let (leaking, cured) = guide.split_once(CURED).context("the guide's cure")?;
        let scratch = tempfile::tempdir()?;
        prepare(scratch.path())?;
        for (text, program) in [(leaking, Program::Leak), (cured, Program::Twin)] {
            let _service = start(scratch.path(), program)?;
            for step in steps(text) {
                run(scratch.path(), &step).with_context(|| format!("$ {}", step.command))?;
            }
        }
        Ok(())
    }

    /// Has `heaptap` and `sudo` on the path, the latter for nothing: it is root that tests run as.
    fn prepare(scratch: &Path) -> Result<()> {
        fs::create_dir(scratch.join("bin"))?;
        symlink(heaptap().get_program(), scratch.join("bin/heaptap"))?;
        let sudo = scratch.join("bin/sudo");
        fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n")?;
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// The guide's service is the zoo's that never forgets a login, under the name `shop`.
    fn start(scratch: &Path, program: Program) -> Result<Process> {
        let animals = zoo::animals()?;
        let animal = animals.iter().find(|animal| animal.kind == "map-growth").context("in the zoo")?;
        let dir = scratch.join(program.name());
        fs::create_dir(&dir)?;
        copy_program(animal.build(program, NEWEST, Variant::Stripped)?, &dir.join("shop"))?;
        start_target(&dir.join("shop"), &[])
    }

    fn run(scratch: &Path, step: &Step) -> Result<()> {
        let path = format!("{}:{}", scratch.join("bin").display(), std::env::var("PATH")?);
        let mut shell = Command::new("sh");
        shell.args(["-c", &step.command]).current_dir(scratch).env("PATH", path);
        let ended = Process::spawn(&mut shell)?.wait(PATIENCE)?;
        let printed = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(ended.status.success(), "{}\n{printed}", ended.status);
        if let Some(line) = missing(&step.output, &printed) {
            anyhow::bail!("does not print {line:?}, but:\n{printed}");
        }
        Ok(())
    }
}
