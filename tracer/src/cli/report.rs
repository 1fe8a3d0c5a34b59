//! `heaptap report`: a capture file as a table, or in one of the forms other tools read.

use std::io::Write;

use super::args::{Colors, Format, Report as Args};
use super::{check_terminal, deliver, filter, read_capture};
use crate::base::Result;
use crate::detect;
use crate::export::flame::{Colours, FlameOptions};
use crate::export::{csv, flame, folded, gc, html, json, markdown, perfetto, pprof, text};
use crate::model::State;
use crate::report::timeline::Timeline;
use crate::report::{Grouping, Measure, Report};

pub(super) fn run(args: &Args) -> Result<u8> {
    let format = if args.json { Format::Json } else { args.format };
    if matches!(format, Format::Pprof | Format::Perfetto) {
        check_terminal(args.output.as_deref(), "this format")?;
    }
    let filter = filter(args.filter.as_deref())?;
    let mut state = State::default();
    let mut timeline = Timeline::default();
    read_capture(&args.file, |event| {
        state.apply(event);
        timeline.apply(event);
    })?;
    let mut report = detect::report(&state);
    if let Some(regex) = &filter {
        report.retain(regex);
    }
    let measure = args.sort.measure();
    report.sort_by(measure);
    let captured = Captured { report, timeline };
    deliver(args.output.as_deref(), |mut out| write(&captured, format, args, measure, &mut out))?;
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
        Format::Markdown => markdown::write(report, out),
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
