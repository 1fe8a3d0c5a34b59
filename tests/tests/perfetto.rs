//! What heaptap exports to Perfetto is what its schema says, and says what the report says.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    NEWEST, PATIENCE, Process, Variant, build, end_recording, heaptap, run_heaptap, start_recording,
};
use xtask::shell;

/// Decodes a trace by the schema, as text; fails where a field is not in it.
fn decode(trace: &Path) -> Result<String> {
    if !shell::on_path("protoc") {
        shell::apt_install(&["protobuf-compiler"])?;
    }
    let schema = shell::root().join("tests/perfetto");
    let mut protoc = Command::new("protoc");
    protoc.arg("--proto_path").arg(&schema).arg("--decode=perfetto.protos.Trace").arg("trace.proto");
    let decoded = protoc.stdin(File::open(trace)?).output().context("protoc")?;
    ensure!(decoded.status.success(), "{}", String::from_utf8_lossy(&decoded.stderr));
    let text = String::from_utf8(decoded.stdout)?;
    // What is not in the schema, or of another type, stands there by its number.
    let unknown = text.lines().find(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    ensure!(unknown.is_none(), "not in the schema: {unknown:?}");
    Ok(text)
}

/// A packet's fields and those of the message in it, by their names.
type Packet<'t> = BTreeMap<&'t str, &'t str>;

fn packets(text: &str) -> Vec<Packet<'_>> {
    let is_inner = |line: &&str| line.starts_with("      ");
    let packets = text.split("packet {\n").skip(1).map(|packet| {
        let lines = packet.lines().filter(|line| !is_inner(line));
        let fields = lines.filter_map(|line| line.trim().split_once(": "));
        fields.map(|(name, value)| (name, value.trim_matches('"'))).collect()
    });
    packets.collect()
}

/// What one track shows.
#[derive(Debug, Default)]
struct Track {
    /// Names of slices, by how deep they are nested.
    slices: Vec<(usize, String)>,
    values: Vec<i64>,
}

/// The tracks by their names. Slices must nest, and end.
fn tracks(packets: &[Packet<'_>]) -> Result<BTreeMap<String, Track>> {
    let mut names = BTreeMap::new();
    let mut tracks = BTreeMap::<String, Track>::new();
    let mut open = BTreeMap::<&str, Vec<u64>>::new();
    for packet in packets {
        if let (Some(uuid), Some(name)) = (packet.get("uuid"), packet.get("name")) {
            names.insert(*uuid, *name);
            tracks.entry((*name).to_owned()).or_default();
        }
        let (Some(uuid), Some(of)) = (packet.get("track_uuid"), packet.get("type")) else { continue };
        let name = names.get(uuid).with_context(|| format!("no track {uuid}"))?;
        let track = tracks.get_mut(*name).context("just added")?;
        let time: u64 = packet.get("timestamp").context("no timestamp")?.parse()?;
        let open = open.entry(uuid).or_default();
        match *of {
            "TYPE_SLICE_BEGIN" => {
                let name = *packet.get("name").context("a slice without a name")?;
                track.slices.push((open.len(), name.to_owned()));
                open.push(time);
            }
            "TYPE_SLICE_END" => {
                let begin = open.pop().context("an end without a begin")?;
                ensure!(begin <= time, "{name}: from {begin} to {time}");
            }
            "TYPE_COUNTER" => track.values.push(packet.get("counter_value").context("no value")?.parse()?),
            of => ensure!(of == "TYPE_INSTANT", "{of}"),
        }
    }
    ensure!(open.values().all(Vec::is_empty), "slices without an end: {open:?}");
    Ok(tracks)
}

/// Records what the program `collect` does when it gets the commands.
fn record(commands: &str, capture: &Path) -> Result<()> {
    let mut collect = Process::spawn(&mut Command::new(build("collect", NEWEST, Variant::Stripped)?))?;
    let record = start_recording(collect.pid(), capture)?;
    for command in commands.chars() {
        collect.send(&command.to_string())?;
        collect.stdout_line(|line| line == "done", PATIENCE)?;
    }
    end_recording(record).map(drop)
}

fn sum(rows: &Value, field: &str) -> u64 {
    rows.as_array().into_iter().flatten().filter_map(|row| row[field].as_u64()).sum()
}

mod privileged {
    use super::*;

    #[test]
    fn a_trace_shows_what_the_report_says() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let (capture, trace) = (scratch.path().join("c.heaptap"), scratch.path().join("c.pftrace"));
        record("hsf", &capture)?;
        let mut export = heaptap();
        export.arg("report").arg(&capture).args(["--format", "perfetto", "-o"]).arg(&trace);
        let ended = Process::spawn(&mut export)?.wait(PATIENCE)?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        let report = run_heaptap(&["report", capture.to_str().context("a path in UTF-8")?, "--json"])?;
        let report: Value = serde_json::from_str(&report.stdout)?;

        let text = decode(&trace)?;
        let tracks = tracks(&packets(&text))?;
        let track =
            |name: &str| tracks.get(name).with_context(|| format!("no {name} in {:?}", tracks.keys()));
        let rows = report["gc"].as_array().context("gc")?;
        ensure!(rows.len() >= 80, "only {} cycles", rows.len());
        let cycles = &track("GC cycles")?.slices;
        for (row, slices) in rows.iter().zip(cycles.chunks(4)) {
            let number = format!("GC {}", row["cycle"]);
            let phases = ["sweep termination", "mark", "mark termination"].map(|phase| (1, phase.to_owned()));
            ensure!(slices[0] == (0, number) && slices[1..] == phases, "{slices:?}");
        }
        assert_eq!(cycles.len(), 4 * rows.len());
        assert_eq!(track("stop the world")?.slices.len() as u64, sum(&report["stw"], "count"));
        let assists = tracks.iter().filter(|(name, _)| name.starts_with("goroutine 0x"));
        let assists: usize = assists.map(|(_, track)| track.slices.len()).sum();
        // The report leaves out those after which nothing was allocated.
        ensure!(assists as u64 >= sum(&report["assists"], "count") && assists > 0, "{assists}");

        for name in ["goroutines", "resident memory"] {
            let values = &track(name)?.values;
            ensure!(!values.is_empty() && values.iter().all(|value| *value > 0), "{name}: {values:?}");
        }
        let live = &track("heap live")?.values;
        for row in rows {
            let marked = row["heap_live"].as_i64().context("heap_live")?;
            ensure!(live.contains(&marked), "{marked} of {row} is not in {live:?}");
        }
        assert_eq!(track("heap goal")?.values.len(), rows.len());
        let rates = &track("allocated bytes per second")?.values;
        ensure!(rates.iter().any(|rate| *rate > 1_000_000), "{rates:?}");
        ensure!(text.contains("primary_trace_clock: BUILTIN_CLOCK_MONOTONIC"), "no clock");
        Ok(())
    }
}
