//! GC cycles for people: as the lines of `GODEBUG=gctrace=1`, and as a table.

use std::collections::BTreeMap;
use std::io::Write;

use super::text::{align, header, line, notes};
use super::{printable, put};
use crate::base::Result;
use crate::base::units::{format_bytes, format_count};
use crate::event::{GcCycle, GcTrigger};
use crate::model::Durations;
use crate::report::gc::{Assists, GcCycle as Row, GcRecord, Stops};
use crate::report::gc_advice::{GcAdvice, Scenario};
use crate::report::{Grouping, Report, place};

/// What the runtime prints of a cycle, byte for byte (runtime/mgc.go `gcMarkTermination`).
pub fn trace_line(cycle: &GcCycle) -> String {
    let since_start = cycle.sweep_term_ns.wrapping_sub(cycle.init_ns) / 1_000_000;
    let phases = [cycle.sweep_term_ns, cycle.mark_ns, cycle.mark_term_ns, cycle.end_ns];
    let [sweep_term, mark, mark_term] = [0, 1, 2].map(|i: usize| phases[i + 1].wrapping_sub(phases[i]));
    let stopped = |ns: u64| ns.wrapping_mul(u64::from(cycle.stw_procs));
    let background = cycle.dedicated_ns.wrapping_add(cycle.fractional_ns);
    format!(
        "gc {} @{}s {}%{}: {}+{}+{} ms clock, {}+{}/{}/{}+{} ms cpu, {}->{}->{} MB, {} MB goal, \
         {} MB stacks, {} MB globals, {} P{}",
        cycle.cycle,
        decimal(since_start, 3),
        cycle.cpu_percent,
        if cycle.leak_check { " (checking for goroutine leaks)" } else { "" },
        millis(sweep_term),
        millis(mark),
        millis(mark_term),
        millis(stopped(sweep_term)),
        millis(cycle.assist_ns),
        millis(background),
        millis(cycle.idle_ns),
        millis(stopped(mark_term)),
        cycle.heap_before >> 20,
        cycle.heap_after >> 20,
        cycle.heap_marked >> 20,
        cycle.heap_goal >> 20,
        cycle.stack_scan >> 20,
        cycle.globals_scan >> 20,
        cycle.max_procs,
        if cycle.forced { " (forced)" } else { "" },
    )
}

/// `value` / 10^`places`, as the runtime's `itoaDiv` writes it.
fn decimal(value: u64, places: u32) -> String {
    let unit = 10_u64.pow(places);
    match places {
        0 => value.to_string(),
        _ => format!("{}.{:0width$}", value / unit, value % unit, width = places as usize),
    }
}

/// Nanoseconds as milliseconds with two digits, as the runtime's `fmtNSAsMS` writes them.
fn millis(ns: u64) -> String {
    if ns >= 10_000_000 {
        return (ns / 1_000_000).to_string();
    }
    let (mut value, mut places) = (ns / 1000, 3);
    if value == 0 {
        return "0".into();
    }
    while value >= 100 {
        value /= 10;
        places -= 1;
    }
    decimal(value, places)
}

/// Writes the latest `limit` cycles of a capture, or all, the stops of the world, the sites
/// that had to assist, and what other settings would have changed.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(report: &Report, limit: Option<usize>, out: &mut impl Write) -> Result<()> {
    let mut text = String::new();
    header(report, &mut text);
    if let Some(settings) = settings(report) {
        line(&mut text, &format!("{:<10} {settings}", "settings"));
    }
    text.push('\n');
    let limit = limit.unwrap_or(usize::MAX);
    let (earlier, shown) = report.gc.split_at(report.gc.len().saturating_sub(limit));
    let mut lines = vec![HEADING.map(str::to_uppercase)];
    lines.extend(shown.iter().map(cells));
    align(&lines, NUMBERS, &mut text);
    if !earlier.is_empty() {
        line(&mut text, &format!("after {} earlier ones", format_count(earlier.len() as u64)));
    }
    table("stops of the world", "REASON", stop_lines(report), &mut text);
    let assists = assist_lines(report).into_iter().take(limit).collect();
    table("assists, by the line that had to wait", "LINE", assists, &mut text);
    advice(report, &mut text);
    notes(report, &mut text);
    put(out, text.as_bytes())
}

/// What was in force as of the latest cycle whose record was read.
pub(super) fn settings(report: &Report) -> Option<String> {
    let record = report.gc.iter().rev().find_map(|row| row.record.as_ref())?;
    let gogc = gogc(record.gogc);
    let limit = record.memory_limit.map_or("off".into(), |limit| format_bytes(limit.max(0).unsigned_abs()));
    Some(format!("GOGC {gogc}, GOMEMLIMIT {limit}, GOMAXPROCS {}", record.procs))
}

/// What other settings would have changed.
pub(super) fn advice(report: &Report, text: &mut String) {
    let Some(advice) = &report.gc_advice else { return };
    text.push_str(&format!("\n{}:\n", advice_title(advice)));
    let mut lines = vec![SCENARIOS.map(str::to_uppercase)];
    lines.extend(scenario_lines(advice));
    align(&lines, SCENARIOS.len() - 1, text);
    for sentence in &advice.advice {
        line(text, &format!("- {sentence}"));
    }
}

pub(super) fn advice_title(advice: &GcAdvice) -> String {
    let (allocated, seconds) = (format_bytes(advice.allocated_bytes), advice.seconds);
    format!("GC with other settings, over {allocated} allocated in {seconds:.1} s")
}

/// What stands above each column of [`scenario_lines`].
pub(super) const SCENARIOS: [&str; 6] = ["GOGC", "GOMEMLIMIT", "Cycles", "Peak heap", "GC CPU", ""];

/// What was seen, then what is expected of other settings.
pub(super) fn scenario_lines(advice: &GcAdvice) -> Vec<[String; 6]> {
    let others = advice.scenarios.iter().map(|scenario| (scenario, "expected"));
    let cells = |(scenario, how): (&Scenario, &str)| {
        let limited = if scenario.cpu_limited { ", more than the runtime allows" } else { "" };
        [
            gogc(scenario.gogc),
            scenario.memory_limit.map_or("off".into(), format_bytes),
            format!("{:.1}", scenario.cycles),
            format_bytes(scenario.peak_heap_bytes),
            format!("{:.1}%", scenario.gc_cpu_percent),
            format!("{how}{limited}"),
        ]
    };
    std::iter::once((&advice.seen, "seen")).chain(others).map(cells).collect()
}

fn gogc(percent: Option<i32>) -> String {
    percent.map_or("off".into(), |percent| percent.to_string())
}

const COLUMNS: usize = 11;
/// Leading columns are numbers, set to the right.
pub(super) const NUMBERS: usize = 10;
pub(super) const HEADING: [&str; COLUMNS] =
    ["GC", "Start", "Pauses", "Mark", "Assist", "Before", "After", "Live", "Goal", "CPU", "Trigger"];

pub(super) fn cells(row: &Row) -> [String; COLUMNS] {
    let number = row.cycle.map_or("?".into(), |n| n.to_string());
    let Some(record) = &row.record else {
        return std::array::from_fn(|column| if column == 0 { number.clone() } else { "?".into() });
    };
    let [begin, end] = record.stw_ns;
    [
        number,
        format!("{:.3} s", record.start_ns as f64 / 1e9),
        ms(begin.saturating_add(end)),
        ms(u64::try_from(row.mark_end_ns.saturating_sub(record.mark_start_ns)).unwrap_or(0)),
        ms(record.assist_ns),
        format_bytes(record.heap_before),
        format_bytes(record.heap_after),
        format_bytes(record.heap_live),
        format_bytes(record.heap_goal),
        format!("{}%", record.cpu_percent),
        trigger(record).into(),
    ]
}

fn trigger(record: &GcRecord) -> &'static str {
    match record.trigger {
        _ if record.leak_check => "forced, to find leaked goroutines",
        Some(GcTrigger::Heap) => "heap",
        Some(GcTrigger::Time) => "time",
        Some(GcTrigger::Cycle) => "forced",
        None if record.forced => "forced",
        None => "?",
    }
}

/// Stops of the world by their reason, most time first.
pub(super) fn stop_lines(report: &Report) -> Vec<[String; 4]> {
    let cells = |stops: &Stops| {
        let reason = stops.reason.as_deref().unwrap_or("any (Go before 1.21 names none)");
        durations(stops.count, stops.total_ns, stops.longest_ns, printable(reason).into())
    };
    report.stw.iter().map(cells).collect()
}

/// Assists by the line that allocates, most time first.
pub(super) fn assist_lines(report: &Report) -> Vec<[String; 4]> {
    let mut lines = BTreeMap::<String, Durations>::new();
    for assists in &report.assists {
        let Assists { count, total_ns, longest_ns, ref frames } = *assists;
        let line = lines.entry(place(frames, Grouping::Line)).or_default();
        line.merge(&Durations { count, total_ns, longest_ns });
    }
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_by_key(|(_, durations)| std::cmp::Reverse(durations.total_ns));
    let cells = |(line, d): (String, Durations)| {
        durations(d.count, d.total_ns, d.longest_ns, printable(&line).into())
    };
    lines.into_iter().map(cells).collect()
}

fn durations(count: u64, total_ns: u64, longest_ns: u64, what: String) -> [String; 4] {
    [format_count(count), ms(total_ns), ms(longest_ns), what]
}

fn table(title: &str, what: &str, rows: Vec<[String; 4]>, text: &mut String) {
    if rows.is_empty() {
        return;
    }
    text.push_str(&format!("\n{title}:\n"));
    let heading = ["COUNT", "TOTAL", "LONGEST", what].map(String::from);
    align(&[vec![heading], rows].concat(), 3, text);
}

fn ms(ns: u64) -> String {
    format!("{:.3} ms", ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;
    use crate::model::State;
    use crate::runtime::GcRecord as Copied;

    proptest! {
        /// Whatever stood in the target's memory is a line and a row.
        #[test]
        fn any_record_is_printed(words in prop::collection::vec(any::<u64>(), 23..40), epoch in any::<u32>()) {
            let copied = Copied { epoch, time_ns: 1, trigger: words.last().copied(), leak_check: true, words: &words };
            let cycle = copied.cycle().expect("enough words");
            let number = words[0] as u32;
            let begins = trace_line(&cycle).starts_with(&format!("gc {number} @"));
            prop_assert!(begins);
            let mut state = State::default();
            state.apply(&Event::GcCycle(cycle));
            let mut out = Vec::new();
            write(&Report::build(&state), None, &mut out).expect("written");
            let has_row = String::from_utf8_lossy(&out).lines().any(|row| row.trim_start().starts_with(&format!("{number} ")));
            prop_assert!(has_row);
            let few = Copied { words: &words[..22], ..copied };
            prop_assert_eq!(few.cycle(), None);
        }
    }

    #[test]
    fn other_settings_are_a_row_each() {
        let mut state = State::default();
        for cycle in 1..=5 {
            state.apply(&Event::GcCycle(GcCycle {
                cycle,
                trigger: Some(GcTrigger::Heap),
                end_ns: u64::from(cycle) * 1_000_000_000,
                dedicated_ns: 100_000_000,
                heap_after: 100 << 20,
                heap_marked: 50 << 20,
                heap_goal: 100 << 20,
                max_procs: 2,
                gc_percent: 100,
                memory_limit: i64::MAX,
                ..GcCycle::default()
            }));
        }
        let mut text = String::new();
        advice(&Report::build(&state), &mut text);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        assert_eq!(lines[1], "GC with other settings, over 200.0 MiB allocated in 4.0 s:");
        assert_eq!(lines[3], "100 off 4.0 100.0 MiB 5.0% seen");
        assert_eq!(lines[5], "200 off 2.0 150.0 MiB 2.5% expected");
        assert!(text.contains("\n- GOMEMLIMIT=110MiB would have left a tenth"), "{text}");
    }

    #[test]
    fn times_are_written_as_the_runtime_does() {
        for (ns, want) in [
            (0, "0"),
            (999, "0"),
            (1_000, "0.001"),
            (22_900, "0.022"),
            (102_000, "0.10"),
            (1_399_000, "1.3"),
            (9_999_999, "9.9"),
            (10_000_000, "10"),
            (123_456_789, "123"),
        ] {
            assert_eq!(millis(ns), want, "{ns}");
        }
        assert_eq!([5, 1_792].map(|ms| decimal(ms, 3)), ["0.005", "1.792"]);
    }

    #[test]
    fn a_cycle_is_a_line_of_gctrace() {
        const START: u64 = 1_000_000_000;
        let cycle = GcCycle {
            cycle: 17,
            forced: true,
            init_ns: START,
            sweep_term_ns: START + 1_768_999_999,
            mark_ns: START + 1_769_021_999,
            mark_term_ns: START + 1_769_261_999,
            end_ns: START + 1_769_268_999,
            dedicated_ns: 80_000,
            fractional_ns: 4_000,
            idle_ns: 96_000,
            cpu_percent: 2,
            stw_procs: 2,
            max_procs: 4,
            heap_before: 37 << 20,
            heap_after: (37 << 20) - 1,
            heap_marked: 19 << 20,
            heap_goal: 49 << 20,
            ..GcCycle::default()
        };
        let line = "gc 17 @1.768s 2%: 0.022+0.24+0.007 ms clock, 0.044+0/0.084/0.096+0.014 ms cpu, \
                    37->36->19 MB, 49 MB goal, 0 MB stacks, 0 MB globals, 4 P (forced)";
        assert_eq!(trace_line(&cycle), line);
        let leak = trace_line(&GcCycle { leak_check: true, ..cycle });
        assert_eq!(leak, line.replace("2%:", "2% (checking for goroutine leaks):"));
    }
}
