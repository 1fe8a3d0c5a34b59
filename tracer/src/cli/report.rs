//! `heaptap report`: a capture file as a table, or in one of the forms other tools read.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};

use regex::Regex;

use super::args::{Colors, Format, Report as Args};
use super::watched_read;
use crate::base::{Error, Result};
use crate::capture::Reader;
use crate::export::flame::{Colours, FlameOptions};
use crate::export::{csv, flame, folded, gc, html, json, perfetto, pprof, text};
use crate::model::State;
use crate::report::timeline::Timeline;
use crate::report::{Grouping, Measure, Report};
use crate::source::{self, Replay};

pub(super) fn run(args: &Args) -> Result<u8> {
    let format = if args.json { Format::Json } else { args.format };
    let is_binary = matches!(format, Format::Pprof | Format::Perfetto);
    if is_binary && args.output.is_none() && io::stdout().is_terminal() {
        return Err(Error::usage("this format is binary").hint("add -o FILE, or pipe it on"));
    }
    let mut state = State::default();
    let mut timeline = Timeline::default();
    let input = File::open(&args.file)
        .map_err(|e| Error::usage(format!("cannot open capture {}", args.file.display())).because(e))?;
    let reader = Reader::new(watched_read(input, &args.file), args.file.display().to_string())?;
    source::for_each(Replay::new(reader), |event| {
        state.apply(event);
        timeline.apply(event);
    })?;
    let mut report = Report::build(&state);
    if let Some(pattern) = &args.filter {
        let regex =
            Regex::new(pattern).map_err(|e| Error::usage("--filter is no regular expression").because(e))?;
        report.retain(&regex);
    }
    let measure = args.sort.measure();
    report.sort_by(measure);
    let captured = Captured { report, timeline };
    match &args.output {
        None => write(&captured, format, args, measure, &mut BufWriter::new(io::stdout().lock()))?,
        Some(path) => {
            let cannot = |e| Error::failed(format!("cannot write {}", path.display())).because(e);
            let mut out = BufWriter::new(File::create(path).map_err(cannot)?);
            write(&captured, format, args, measure, &mut out)?;
            out.flush().map_err(cannot)?;
        }
    }
    Ok(0)
}

/// What the file holds.
struct Captured {
    report: Report,
    timeline: Timeline,
}

fn write(
    captured: &Captured,
    format: Format,
    args: &Args,
    measure: Measure,
    out: &mut impl Write,
) -> Result<()> {
    let Captured { report, timeline } = captured;
    match format {
        Format::Table if args.gc => gc::write(report, (args.limit > 0).then_some(args.limit), out),
        Format::Table => text::write(report, &table_options(args, measure), out),
        Format::Json => json::write(report, out),
        Format::Pprof => pprof::write(report, out),
        Format::Csv => csv::write(report, out),
        Format::Folded => folded::write(report, measure, out),
        Format::Flame => flame::write(report, flame_options(args, measure), out),
        Format::Html => html::write(report, flame_options(args, measure), out),
        Format::Perfetto => perfetto::write(report, timeline, out),
    }
}

fn flame_options(args: &Args, measure: Measure) -> FlameOptions {
    let colours = match args.colors {
        Colors::Package => Colours::Package,
        Colors::Survival => Colours::Survival,
    };
    FlameOptions { measure, colours, inverted: args.inverted }
}

fn table_options(args: &Args, sort: Measure) -> text::TableOptions {
    text::TableOptions {
        sort,
        grouping: if args.lines { Grouping::Line } else { Grouping::Function },
        limit: (args.limit > 0).then_some(args.limit),
    }
}
