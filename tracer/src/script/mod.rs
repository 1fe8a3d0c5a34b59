//! Scripted sessions: a file says what to record of which process, in which phases, what to
//! do when, and what has to hold (tier 8).

mod command;
mod expr;
mod file;
mod gauges;
mod lock;
mod machine;
mod output;
mod results;
mod run;
mod seek;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;

pub use results::{Results, RunState};
pub use run::run;

use crate::base::{Error, Result};
use expr::Expr;
use source::Source;

/// What `heaptap session new` prints.
pub const TEMPLATE: &str = include_str!("template.toml");

/// What a session needs of the command line.
pub trait Host {
    /// Says something to the user.
    fn note(&mut self, text: &str);

    /// Shows how far the session is, if someone watches.
    fn progress(&mut self, text: &str);

    /// Whether there are reports of this format, and the ending of their files.
    fn report_ending(&self, format: &str) -> Option<&'static str>;

    /// Whether there are comparisons in this format, and the ending of their files.
    fn diff_ending(&self, format: &str) -> Option<&'static str>;

    /// Writes a report of a capture file, as `heaptap report` does.
    ///
    /// # Errors
    /// As that has them.
    fn write_report(&self, capture: &Path, format: &str, output: &Path) -> Result<()>;

    /// Writes what changed from one capture file to another, as `heaptap diff` does.
    ///
    /// # Errors
    /// As that has them.
    fn write_diff(&self, captures: [&Path; 2], format: &str, output: &Path) -> Result<()>;
}

/// A session file that was read and checked.
#[derive(Debug)]
pub struct Session {
    pub name: String,
    target: seek::Wanted,
    capture: file::Capture,
    phases: Vec<Phase>,
    triggers: Vec<Trigger>,
    assertions: Vec<Assertion>,
    output: file::Output,
    /// The regular expressions of all `site("…")`.
    sites: BTreeSet<String>,
}

#[derive(Debug)]
struct Phase {
    table: file::Phase,
    until: Option<Expr>,
}

#[derive(Debug)]
struct Trigger {
    name: String,
    table: file::Trigger,
    when: Expr,
}

#[derive(Debug)]
struct Assertion {
    name: String,
    that: Expr,
    phase: Option<String>,
}

impl Session {
    /// Reads the text of a session file called `name`, with some of its settings changed.
    ///
    /// # Errors
    /// Usage, with line and column, for whatever is wrong with it.
    pub fn parse(text: &str, name: &str, set: &[(String, String)], host: &dyn Host) -> Result<Session> {
        let source = Source { name, text };
        let file: file::File = source.parse(set)?;
        let target = seek::Wanted::of(&source, &file.target, file.capture.mode)?;
        let names = phase_names(&source, &file)?;
        let phases: Result<Vec<Phase>> = file
            .phases
            .iter()
            .enumerate()
            .map(|(at, phase)| check_phase(&source, phase, &names[..at]))
            .collect();
        let triggers: Result<Vec<Trigger>> = (1..)
            .zip(&file.triggers)
            .map(|(number, trigger)| check_trigger(&source, number, trigger, &names))
            .collect();
        let assertions: Result<Vec<Assertion>> =
            file.assertions.iter().map(|assertion| check_assertion(&source, assertion, &names)).collect();
        check_formats(&source, &file.output.reports, "report", |format| host.report_ending(format))?;
        check_formats(&source, &file.output.diff, "diff", |format| host.diff_ending(format))?;
        let mut session = Session {
            name: file.name.unwrap_or_else(|| stem(name)),
            target,
            capture: file.capture,
            phases: phases?,
            triggers: triggers?,
            assertions: assertions?,
            output: file.output,
            sites: BTreeSet::new(),
        };
        session.sites = session.expressions().flat_map(|expr| expr.sites.iter().cloned()).collect();
        Ok(session)
    }

    fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let until = self.phases.iter().filter_map(|phase| phase.until.as_ref());
        let when = self.triggers.iter().map(|trigger| &trigger.when);
        until.chain(when).chain(self.assertions.iter().map(|assertion| &assertion.that))
    }

    /// What the session is to do, in one line.
    pub fn summary(&self) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let known: Duration = self.phases.iter().filter_map(|phase| phase.table.duration).sum();
        format!(
            "{}: {} ({} and what is waited for), {}, {}",
            self.name,
            count(self.phases.len(), "phase"),
            humantime::format_duration(known),
            count(self.triggers.len(), "trigger"),
            count(self.assertions.len(), "assertion"),
        )
    }
}

fn check_formats(
    source: &Source<'_>,
    formats: &[Spanned<String>],
    command: &str,
    ending: impl Fn(&str) -> Option<&'static str>,
) -> Result<()> {
    let Some(wrong) = formats.iter().find(|format| ending(format.get_ref()).is_none()) else { return Ok(()) };
    let error = source.error(wrong.span(), &format!("there is no {command} format {:?}", wrong.get_ref()));
    Err(error.hint(format!("see heaptap {command} --help")))
}

fn stem(path: &str) -> String {
    Path::new(path).file_stem().map_or_else(|| path.into(), |stem| stem.to_string_lossy().into())
}

fn phase_names<'a>(source: &Source<'_>, file: &'a file::File) -> Result<Vec<&'a str>> {
    let mut names = Vec::new();
    for phase in &file.phases {
        let name = phase.get_ref().name.as_str();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
            return Err(source
                .error(phase.span(), &format!("{name:?} cannot name a phase"))
                .hint("letters, digits, `-`, `_` and `.` can: a file is named after it"));
        }
        if names.contains(&name) {
            return Err(source.error(phase.span(), &format!("there is a phase {name:?} already")));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(source.error(0..0, "a session has at least one phase").hint("see heaptap session new"));
    }
    Ok(names)
}

fn check_phase(source: &Source<'_>, phase: &Spanned<file::Phase>, earlier: &[&str]) -> Result<Phase> {
    let table = phase.get_ref().clone();
    let wrong = |message: &str| Err(source.error(phase.span(), message));
    if table.duration.is_some() && table.until.is_some() {
        return wrong("a phase has a `duration` or an `until`, not both: `timeout` limits an `until`");
    }
    if table.duration.is_none() && table.until.is_none() && table.run.is_none() {
        return wrong("a phase has a `duration`, an `until` or a command to `run`");
    }
    if table.timeout.is_some() && table.duration.is_some() {
        return wrong("a phase with a `duration` needs no `timeout`");
    }
    if table.run.is_none() && !table.env.is_empty() {
        return wrong("a phase without `run` has no environment");
    }
    let until = table.until.as_ref().map(|until| Expr::compile(source, until, earlier)).transpose()?;
    Ok(Phase { table, until })
}

fn check_trigger(
    source: &Source<'_>,
    number: usize,
    trigger: &Spanned<file::Trigger>,
    phases: &[&str],
) -> Result<Trigger> {
    let table = trigger.get_ref().clone();
    if (table.action == file::Action::Switch) != table.mode.is_some() {
        return Err(source.error(trigger.span(), "a `mode` goes with do = \"switch\", and only with that"));
    }
    let when = Expr::compile(source, &table.when, phases)?;
    let name = table.name.clone().unwrap_or_else(|| format!("trigger {number}"));
    Ok(Trigger { name, table, when })
}

fn check_assertion(
    source: &Source<'_>,
    assertion: &Spanned<file::Assertion>,
    phases: &[&str],
) -> Result<Assertion> {
    let table = assertion.get_ref();
    let ended = match &table.phase {
        None => phases,
        Some(phase) => {
            let unknown = || -> Error {
                let hint = source::suggestion(phase.get_ref(), phases.iter().copied());
                source.error(phase.span(), &format!("there is no phase {:?}", phase.get_ref())).hint(hint)
            };
            let at = phases.iter().position(|name| name == phase.get_ref()).ok_or_else(unknown)?;
            &phases[..=at]
        }
    };
    let that = Expr::compile(source, &table.that, ended)?;
    let name = table.name.clone().unwrap_or_else(|| that.text.clone());
    Ok(Assertion { name, that, phase: table.phase.as_ref().map(|phase| phase.get_ref().clone()) })
}
