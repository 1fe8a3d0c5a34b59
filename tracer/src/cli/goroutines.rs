//! `heaptap goroutines`: what the goroutines of a process do, read without stopping it.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::args::{GoroutineFormat as Format, Goroutines as Args};
use super::{check_terminal, deliver, filter, find_process};
use crate::base::Result;
use crate::export::{goroutines as text, json, pprof};
use crate::memory::LiveMemory;
use crate::report::goroutines::{Goroutines, Shown};
use crate::runtime::{GoroutineReader, Layout};
use crate::target;

pub(super) fn run(args: &Args) -> Result<u8> {
    let format = if args.json { Format::Json } else { args.format };
    if format == Format::Pprof {
        check_terminal(args.output.as_deref(), "a pprof profile")?;
    }
    let filter = filter(args.filter.as_deref())?;
    let mut goroutines = read(args, format)?;
    if let Some(regex) = &filter {
        goroutines.retain(regex);
    }
    deliver(args.output.as_deref(), |mut out| write(&goroutines, format, args, &mut out))?;
    Ok(0)
}

fn read(args: &Args, format: Format) -> Result<Goroutines> {
    let pid = find_process(args.process.pid, args.process.name.as_deref())?;
    let it = target::identify(pid, args.assume_go.as_deref())?;
    let layout = Layout::for_binary(&it.binary, &it.target.go_version)?;
    let mut reader = GoroutineReader::new(&it.binary, &layout, it.target.load_bias)?;
    let read = reader.read(&LiveMemory::new(pid))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The runtime's own profile has the functions goroutines wait in as well.
    let shown = Shown { system: args.all, runtime_frames: args.all || format == Format::Pprof };
    Ok(Goroutines::build(it.target, &it.binary, read, now.as_nanos() as u64, shown))
}

fn write(goroutines: &Goroutines, format: Format, args: &Args, out: &mut impl Write) -> Result<()> {
    match format {
        Format::Table => text::write(goroutines, (args.limit > 0).then_some(args.limit), out),
        Format::Json => json::write(goroutines, out),
        Format::Pprof => pprof::write_goroutines(goroutines, out),
    }
}
