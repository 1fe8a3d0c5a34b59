//! `heaptap snapshot`: what the runtime of a process itself knows of its heap.

use std::io::Write;

use super::args::{Snapshot as Args, SnapshotFormat as Format, Sort};
use super::{check_terminal, deliver, find_process};
use crate::base::Result;
use crate::export::{json, pprof, snapshot as text};
use crate::report::Grouping;
use crate::report::snapshot::{ProfileMeasure, Snapshot};
use crate::{session, target};

pub(super) fn run(args: &Args) -> Result<u8> {
    let format = if args.json { Format::Json } else { args.format };
    if format == Format::Pprof {
        check_terminal(args.output.as_deref(), "a pprof profile")?;
    }
    let pid = find_process(args.process.pid, args.process.name.as_deref())?;
    let target = target::identify(pid, args.assume_go.as_deref())?;
    let snapshot = session::snapshot(&target, format == Format::Pprof)?;
    deliver(args.output.as_deref(), |mut out| write(&snapshot, format, args, &mut out))?;
    Ok(0)
}

fn write(snapshot: &Snapshot, format: Format, args: &Args, out: &mut impl Write) -> Result<()> {
    match format {
        Format::Table => text::write(snapshot, &table_options(args), out),
        Format::Json => json::write(snapshot, out),
        Format::Pprof => pprof::write_heap(snapshot, out),
    }
}

fn table_options(args: &Args) -> text::TableOptions {
    text::TableOptions {
        sort: match args.sort {
            Sort::InuseBytes => ProfileMeasure::InuseBytes,
            Sort::InuseObjects => ProfileMeasure::InuseObjects,
            Sort::AllocBytes => ProfileMeasure::AllocBytes,
            Sort::AllocObjects => ProfileMeasure::AllocObjects,
        },
        grouping: if args.lines { Grouping::Line } else { Grouping::Function },
        limit: (args.limit > 0).then_some(args.limit),
    }
}
