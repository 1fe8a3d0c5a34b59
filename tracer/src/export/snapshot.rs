//! A snapshot as tables for people.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use super::text::{align, line};
use super::{printable, put};
use crate::base::Result;
use crate::base::units::{format_bytes, format_count};
use crate::report::Grouping;
use crate::report::snapshot::{GoroutineGroups, Profile, ProfileMeasure, SizeClass, Snapshot, profile_rows};
use crate::runtime::MemStats;

/// How many of the profile's sites to show, and in which order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableOptions {
    pub sort: ProfileMeasure,
    pub grouping: Grouping,
    /// Sites to show; `None`: all.
    pub limit: Option<usize>,
}

/// Writes a summary, the size classes, the heap profile's sites, and the notes.
///
/// # Errors
/// When `out` does not take it; a closed pipe is no error.
pub fn write(snapshot: &Snapshot, options: &TableOptions, out: &mut impl Write) -> Result<()> {
    let mut text = String::new();
    header(snapshot, &mut text);
    if let Some(classes) = &snapshot.size_classes {
        text.push_str("\nspans by size class:\n");
        size_classes(classes, &mut text);
    }
    if let Some(profile) = snapshot.profile.as_ref().filter(|profile| !profile.sites.is_empty()) {
        text.push_str("\nheap profile (sampled, as of the last GC cycle):\n");
        sites(profile, options, &mut text);
    }
    if !snapshot.notes.is_empty() {
        text.push_str("\nnotes:\n");
        for note in &snapshot.notes {
            line(&mut text, &format!("- {}", printable(note)));
        }
    }
    put(out, text.as_bytes())
}

fn header(snapshot: &Snapshot, text: &mut String) {
    let target = &snapshot.target;
    let mut rows = vec![
        ("target", format!("{} (pid {}), {}", target.exe, target.pid, target.go_version)),
        ("read at", snapshot.read_at.clone()),
    ];
    if let Some(stats) = &snapshot.memstats {
        rows.extend(statistics(stats, snapshot.read_unix_ns));
    }
    if let Some(goroutines) = &snapshot.goroutines {
        rows.push(("goroutines", states(goroutines)));
    }
    if let Some(counts) = &snapshot.scheduler {
        let (goroutines, threads) = (format_count(counts.goroutines), format_count(counts.threads));
        rows.push((
            "scheduler",
            format!("{goroutines} goroutines, {threads} threads, {} processors", counts.processors),
        ));
    }
    if let Some(profile) = &snapshot.profile {
        let rate = match profile.rate {
            ..=0 => "off".to_owned(),
            1 => "every allocation".to_owned(),
            rate => format!("one sample per {}", format_bytes(rate.unsigned_abs())),
        };
        rows.push(("profiler", rate));
    }
    for (name, value) in rows {
        line(text, &format!("{name:<10} {}", printable(&value)));
    }
}

fn statistics(stats: &MemStats, now_unix_ns: u64) -> Vec<(&'static str, String)> {
    let [alloc, inuse, idle, released, stacks, sys, next] = [
        stats.heap_alloc,
        stats.heap_inuse,
        stats.heap_idle,
        stats.heap_released,
        stats.stack_inuse,
        stats.sys,
        stats.next_gc,
    ]
    .map(format_bytes);
    let objects = format_count(stats.heap_objects);
    let goal = if stats.next_gc > i64::MAX as u64 / 2 { "none".to_owned() } else { next };
    let last = match stats.last_gc {
        0 => String::new(),
        last => {
            let ago = Duration::from_millis(now_unix_ns.saturating_sub(last) / 1_000_000);
            format!(", last {} ago", humantime::format_duration(ago))
        }
    };
    let pauses = humantime::format_duration(Duration::from_micros(stats.pause_total_ns / 1000)).to_string();
    vec![
        ("objects", format!("{objects} objects, {alloc}")),
        ("heap", format!("{inuse} in use, {idle} idle, of which {released} released")),
        ("stacks", stacks),
        ("from OS", sys),
        ("gc", format!("{} cycles{last}, next at {goal}, paused {pauses} in all", stats.num_gc)),
        (
            "ever",
            format!(
                "{} objects allocated, {}; {} freed",
                format_count(stats.mallocs),
                format_bytes(stats.total_alloc),
                format_count(stats.frees)
            ),
        ),
    ]
}

/// How many goroutines are in which state, the most common first.
fn states(goroutines: &GoroutineGroups) -> String {
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for group in &goroutines.groups {
        *states.entry(group.state()).or_default() += group.count;
    }
    let mut states: Vec<(&str, u64)> = states.into_iter().collect();
    states.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let states: Vec<String> =
        states.iter().map(|(state, n)| format!("{} {state}", format_count(*n))).collect();
    format!("{}: {}", format_count(goroutines.count), states.join(", "))
}

fn size_classes(classes: &[SizeClass], text: &mut String) {
    let heading = ["SIZE", "SPANS", "BYTES", "OBJECTS", "FULL", "WASTE", "POINTERS"].map(String::from);
    let row = |class: &SizeClass| {
        let size = if class.size == 0 { "large".to_owned() } else { class.size.to_string() };
        [
            size,
            format_count(class.spans),
            format_bytes(class.bytes),
            format_count(class.objects),
            format!("{:.1}%", 100.0 * class.occupancy),
            format_bytes(class.waste_bytes),
            (if class.noscan { "no" } else { "yes" }).to_owned(),
        ]
    };
    let mut lines = vec![heading];
    lines.extend(classes.iter().map(row));
    let sum = |value: fn(&SizeClass) -> u64| classes.iter().map(value).fold(0, u64::saturating_add);
    lines.push([
        "total".to_owned(),
        format_count(sum(|c| c.spans)),
        format_bytes(sum(|c| c.bytes)),
        format_count(sum(|c| c.objects)),
        String::new(),
        format_bytes(sum(|c| c.waste_bytes)),
        String::new(),
    ]);
    align(&lines, 6, text);
}

pub(super) fn sites(profile: &Profile, options: &TableOptions, text: &mut String) {
    let rows = profile_rows(&profile.sites, options.grouping, options.sort);
    let (shown, rest) = rows.split_at(options.limit.unwrap_or(rows.len()).min(rows.len()));
    let total = profile.totals.of(options.sort);
    let heading = ["INUSE", "OBJECTS", "SHARE", "ALLOC", "OBJECTS", "SITE"].map(String::from);
    let mut lines = vec![heading];
    for row in shown {
        let share = match total {
            0 => "-".to_owned(),
            total => format!("{:.1}%", 100.0 * row.values.of(options.sort) as f64 / total as f64),
        };
        lines.push([
            format_bytes(count(row.values.inuse_bytes)),
            format_count(count(row.values.inuse_objects)),
            share,
            format_bytes(count(row.values.alloc_bytes)),
            format_count(count(row.values.alloc_objects)),
            printable(&row.place).into_owned(),
        ]);
    }
    align(&lines, 5, text);
    if !rest.is_empty() {
        line(text, &format!("and {} more", format_count(rest.len() as u64)));
    }
}

/// Less than nothing, of a torn read, is nothing.
fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::snapshot::SampledSite;

    fn written(snapshot: &Snapshot) -> String {
        let mut out = Vec::new();
        write(snapshot, &TableOptions { limit: Some(1), ..TableOptions::default() }, &mut out)
            .expect("a table");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn parts_that_could_not_be_read_are_left_out() {
        let text = written(&Snapshot { notes: vec!["no\x1b[2Jpe".into()], ..Snapshot::default() });
        assert!(!text.contains("heap ") && !text.contains("spans") && !text.contains("profiler"), "{text}");
        assert!(text.contains("- no\u{fffd}[2Jpe"), "{text}");
    }

    #[test]
    fn all_parts_are_shown() {
        let stats = MemStats { heap_objects: 1234, next_gc: u64::MAX, num_gc: 3, ..MemStats::default() };
        let class = SizeClass { size: 48, spans: 2, objects: 5, ..SizeClass::default() };
        let profile = Profile { rate: 524_288, sites: vec![SampledSite::default()], ..Profile::default() };
        let text = written(&Snapshot {
            memstats: Some(stats),
            size_classes: Some(vec![class]),
            profile: Some(profile),
            goroutines: Some(GoroutineGroups { count: 7, ..GoroutineGroups::default() }),
            ..Snapshot::default()
        });
        for part in [
            "1,234 objects",
            "3 cycles, next at none",
            "one sample per 512.0 KiB",
            "goroutines 7",
            "(no stack)",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        assert!(text.lines().any(|line| line.split_whitespace().take(2).eq(["48", "2"])), "{text}");
    }
}
