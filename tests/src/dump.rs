//! A goroutine dump of Go, as `/debug/pprof/goroutine?debug=2` and a crash print it.

use anyhow::{Context, Result, bail};

/// One goroutine of a dump.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Goroutine {
    pub id: u64,
    /// What stands in brackets: `chan receive, 3 minutes, locked to thread`.
    pub state: String,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Frames left out of the middle of a long stack, behind as many as `frames` begins
    /// with before the last 50 (Go 1.21 on).
    pub elided: Option<usize>,
    pub created_by: Option<Creation>,
}

/// A function, `file:line`, and whether it was inlined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    pub function: String,
    pub place: String,
    pub inlined: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Creation {
    pub function: String,
    pub place: String,
    /// From Go 1.21 on.
    pub parent: Option<u64>,
}

/// Reads a whole dump.
///
/// # Errors
/// When it is not one.
pub fn parse(dump: &str) -> Result<Vec<Goroutine>> {
    dump.trim_end().split("\n\n").map(|block| goroutine(block).with_context(|| block.to_owned())).collect()
}

fn goroutine(block: &str) -> Result<Goroutine> {
    let mut lines = block.lines();
    let head = lines.next().and_then(|head| head.strip_prefix("goroutine ")?.strip_suffix("]:"));
    let (id, state) = head.and_then(|head| head.split_once(" [")).context("no header")?;
    let mut found = Goroutine {
        id: id.parse()?,
        state: state.to_owned(),
        frames: Vec::new(),
        elided: None,
        created_by: None,
    };
    while let Some(line) = lines.next() {
        if line == "...additional frames elided..." {
            // Go before 1.21 does not know how many.
            continue;
        }
        if let Some(elided) = line.strip_prefix("...") {
            found.elided = Some(elided.split(' ').next().context("how many")?.parse()?);
        } else if line.trim() != "goroutine running on other thread; stack unavailable" {
            let place = lines.next().and_then(|l| l.strip_prefix('\t')).context("no place")?;
            // Behind it stands the offset in the function.
            let place = place.rsplit_once(" +0x").map_or(place, |(place, _)| place).to_owned();
            match line.strip_prefix("created by ") {
                Some(creator) => found.created_by = Some(creation(creator, place)?),
                None => found.frames.push(frame(line, place)?),
            }
        }
    }
    Ok(found)
}

fn frame(line: &str, place: String) -> Result<Frame> {
    // Arguments in brackets, of which there are none inside.
    let Some((function, arguments)) = line.rsplit_once('(') else { bail!("no arguments: {line}") };
    // A function that panics goes by another name.
    let function = if function == "panic" { "runtime.gopanic" } else { function };
    Ok(Frame { function: function.to_owned(), place, inlined: arguments == "...)" })
}

fn creation(creator: &str, place: String) -> Result<Creation> {
    let (function, parent) = match creator.split_once(" in goroutine ") {
        Some((function, parent)) => (function, Some(parent.parse()?)),
        None => (creator, None),
    };
    Ok(Creation { function: function.to_owned(), place, parent })
}
