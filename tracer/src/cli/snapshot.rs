//! `heaptap snapshot`: what the runtime of a process itself knows of its heap.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};

use super::args::{Snapshot as Args, SnapshotFormat as Format, Sort};
use super::find_process;
use crate::base::{Error, Result};
use crate::export::{json, pprof, snapshot as text};
use crate::report::Grouping;
use crate::report::snapshot::{ProfileMeasure, Snapshot};
use crate::{session, target};

pub(super) fn run(args: &Args) -> Result<u8> {
    let format = if args.json { Format::Json } else { args.format };
    if format == Format::Pprof && args.output.is_none() && io::stdout().is_terminal() {
        return Err(Error::usage("a pprof profile is binary").hint("add -o FILE, or pipe it on"));
    }
    let pid = find_process(args.process.pid, args.process.name.as_deref())?;
    let target = target::identify(pid, args.assume_go.as_deref())?;
    let snapshot = session::snapshot(&target, format == Format::Pprof)?;
    match &args.output {
        None => write(&snapshot, format, args, &mut BufWriter::new(io::stdout().lock()))?,
        Some(path) => {
            let cannot = |e| Error::failed(format!("cannot write {}", path.display())).because(e);
            let mut out = BufWriter::new(File::create(path).map_err(cannot)?);
            write(&snapshot, format, args, &mut out)?;
            out.flush().map_err(cannot)?;
        }
    }
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
