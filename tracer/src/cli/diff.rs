//! `heaptap diff`: what changed between two captures, snapshots or heap profiles.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::args::{Diff as Args, DiffFormat as Format, Normaliser, Sort};
use super::{check_terminal, deliver, filter, watched_read};
use crate::base::{Error, Result};
use crate::capture::{self, Reader};
use crate::export::{diff as table, flame, json, pprof};
use crate::model::State;
use crate::pprof::HeapProfile;
use crate::report::diff::{Diff, DiffOptions, Per, Side};
use crate::report::{Measure, Report};
use crate::source::{self, Replay};

pub(super) fn run(args: &Args) -> Result<u8> {
    let format = if args.json { Format::Json } else { args.format };
    if format == Format::Pprof {
        check_terminal(args.output.as_deref(), "a pprof profile")?;
    }
    let options = DiffOptions { measure: args.measure.map(Sort::measure), per: args.per.map(per) };
    let filter = filter(args.filter.as_deref())?;
    let mut diff = Diff::build(side(&args.before)?, side(&args.after)?, options)?;
    if let Some(regex) = &filter {
        diff.retain(regex);
    }
    deliver(args.output.as_deref(), |mut out| write(&diff, format, args, &mut out))?;
    Ok(0)
}

fn write(diff: &Diff, format: Format, args: &Args, out: &mut impl Write) -> Result<()> {
    match format {
        Format::Table => table::write(diff, (args.limit > 0).then_some(args.limit), out),
        Format::Json => json::write(diff, out),
        Format::Pprof => pprof::write_diff(diff, out),
        Format::Flame => flame::write_diff(diff, out),
    }
}

fn per(by: Normaliser) -> Per {
    match by {
        Normaliser::Duration => Per::Duration,
        Normaliser::Cycles => Per::Cycles,
        Normaliser::AllocBytes => Per::Measure(Measure::AllocBytes),
        Normaliser::AllocObjects => Per::Measure(Measure::AllocObjects),
        Normaliser::InuseBytes => Per::Measure(Measure::LiveBytes),
        Normaliser::InuseObjects => Per::Measure(Measure::LiveObjects),
    }
}

/// Enough of a file to tell what it is.
const HEAD: u64 = 64;

/// No snapshot is as large: its profile has a few thousand stacks.
const MAX_SNAPSHOT: u64 = 256 << 20;

/// Reads what is to be compared; also from a pipe, which cannot be read twice.
fn side(path: &Path) -> Result<Side> {
    let name = path.display().to_string();
    let cannot = |e: io::Error| Error::usage(format!("cannot read {name}")).because(e);
    let mut file = File::open(path).map_err(cannot)?;
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(HEAD).read_to_end(&mut head).map_err(cannot)?;
    let whole = watched_read(head.as_slice().chain(file), path);
    if capture::begins(&head) {
        let mut state = State::default();
        source::for_each(Replay::new(Reader::new(whole, &name)?), |event| state.apply(event))?;
        return Ok(Side::of_report(name, &Report::build(&state)));
    }
    let side = if head.trim_ascii_start().starts_with(b"{") {
        let mut json = Vec::new();
        whole.take(MAX_SNAPSHOT).read_to_end(&mut json).map_err(cannot)?;
        Side::of_snapshot(&name, &json)
    } else {
        HeapProfile::read(whole).map(|profile| Side::of_profile(&name, profile))
    };
    side.map_err(|e| e.context(format!("cannot compare {name}")))
}
