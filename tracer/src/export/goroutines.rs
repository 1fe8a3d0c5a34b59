//! Goroutines as text for people: their states, then each group with its stack.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use unicode_width::UnicodeWidthStr;

use super::{printable, put};
use crate::base::Result;
use crate::base::units::format_count;
use crate::report::goroutines::{Goroutines, Group, StackState};

/// Frames of a stack that are shown at each of its ends, as in a dump of Go.
const SHOWN_FRAMES: usize = 50;

/// Function names longer than this do not move the column of files.
const MAX_NAME_WIDTH: usize = 60;

const NANOS_PER_MINUTE: u64 = 60_000_000_000;

/// Writes up to `limit` groups, or all.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(goroutines: &Goroutines, limit: Option<usize>, out: &mut impl Write) -> Result<()> {
    let mut text = String::new();
    header(goroutines, &mut text);
    let shown = limit.unwrap_or(goroutines.groups.len()).min(goroutines.groups.len());
    for group in goroutines.groups.iter().take(shown) {
        text.push('\n');
        write_group(group, &mut text);
    }
    let rest = goroutines.groups.get(shown..).unwrap_or(&[]);
    if !rest.is_empty() {
        let left = rest.iter().map(|group| group.count).sum();
        let groups = format_count(rest.len() as u64);
        line(&mut text, &format!("\n({groups} more groups with {} goroutines)", format_count(left)));
    }
    if !goroutines.notes.is_empty() {
        text.push_str("\nnotes:\n");
        for note in &goroutines.notes {
            line(&mut text, &format!("- {}", printable(note)));
        }
    }
    put(out, text.as_bytes())
}

fn line(text: &mut String, content: &str) {
    text.push_str(content.trim_end());
    text.push('\n');
}

fn header(goroutines: &Goroutines, text: &mut String) {
    let target = &goroutines.target;
    let of_target = format!("{} (pid {}), {}, {}", target.exe, target.pid, target.go_version, target.arch);
    line(text, &format!("target     {}", printable(&of_target)));
    let hidden = match goroutines.system {
        0 => String::new(),
        n => format!(", and {} of the runtime (--all shows them)", format_count(n)),
    };
    line(text, &format!("goroutines {}{hidden}", format_count(goroutines.count)));
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for group in &goroutines.groups {
        *states.entry(group.state()).or_default() += group.count;
    }
    let mut states: Vec<(&str, u64)> = states.into_iter().collect();
    states.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (state, count) in states {
        line(text, &format!("{:>10} {}", format_count(count), printable(state)));
    }
}

fn write_group(group: &Group, text: &mut String) {
    let locked = if group.locked_to_thread { ", locked to thread" } else { "" };
    let (count, state) = (format_count(group.count), group.state());
    line(text, &printable(&format!("{count} [{state}{}{locked}]", waited(group))));
    if group.stack == StackState::Unavailable {
        let why = if group.status == "running" { "running on a thread" } else { "moving" };
        line(text, &format!("    ({why}: stack not known)"));
    }
    let frames = group.frames.iter().map(|f| (f.function.clone(), place(&f.file, f.line)));
    let mut rows: Vec<(String, String)> = frames.collect();
    elide(&mut rows);
    if group.stack == StackState::Partial {
        rows.push(("(the rest is not known)".to_owned(), String::new()));
    }
    if let Some(creation) = &group.created_by {
        rows.push((format!("created by {}", creation.function), place(&creation.file, creation.line)));
    }
    let width = rows.iter().map(|(name, _)| name.width()).filter(|w| *w <= MAX_NAME_WIDTH).max().unwrap_or(0);
    for (name, place) in rows {
        let padding = " ".repeat(width.saturating_sub(name.width()));
        line(text, &printable(&format!("    {name}{padding}  {place}")));
    }
}

fn place(file: &str, number: u32) -> String {
    if file.is_empty() { String::new() } else { format!("{file}:{number}") }
}

/// Puts one row in place of the middle of a long stack.
fn elide(rows: &mut Vec<(String, String)>) {
    if rows.len() > 2 * SHOWN_FRAMES {
        let elided = rows.len() - 2 * SHOWN_FRAMES;
        let row = (format!("...{} frames elided...", format_count(elided as u64)), String::new());
        rows.splice(SHOWN_FRAMES..SHOWN_FRAMES + elided, [row]);
    }
}

/// How long the goroutines have been blocked at least, in minutes as in a dump.
fn waited(group: &Group) -> String {
    let minutes = group.goroutines.iter().map(|g| g.wait_ns.unwrap_or(0) / NANOS_PER_MINUTE);
    let (least, most) = minutes.fold((u64::MAX, 0), |(least, most), m| (least.min(m), most.max(m)));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match most {
        0 => Ok(()),
        _ if least == most => write!(text, ", {most} minutes"),
        _ => write!(text, ", {least} to {most} minutes"),
    };
    text
}
