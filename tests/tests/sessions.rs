//! Scripted sessions: every file in `scripts/` on real processes, and sessions that go wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use tests::{NEWEST, PATIENCE, Process, Report, Variant, build, copy_program, heaptap, run_heaptap};
use tracer::capture::Reader;
use tracer::event::Event;
use xtask::process::Ended;

/// `session.json`, as far as the tests look at it.
#[derive(Debug, Deserialize)]
struct Results {
    state: String,
    captures: Vec<Capture>,
    phases: Vec<Phase>,
    triggers: Vec<Fired>,
    assertions: Vec<Assertion>,
    diffs: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Capture {
    file: String,
    mode: String,
    reports: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Phase {
    name: String,
    outcome: String,
    reason: Option<String>,
    output: Option<String>,
    exit_code: Option<i32>,
}

#[derive(Debug, Deserialize)]
struct Fired {
    name: String,
    file: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Assertion {
    outcome: String,
}

/// A directory for the programs and the output of a test.
struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Result<Scratch> {
        Ok(Scratch { dir: tempfile::tempdir()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn output(&self) -> PathBuf {
        self.path("out")
    }

    /// A session from a file, with its output here and some settings.
    fn session(&self, file: &Path, set: &[(&str, &str)]) -> Command {
        let mut command = heaptap();
        command.args(["session", "run"]).arg(file);
        let output = self.output();
        for (name, value) in set.iter().copied().chain([("output", &*output.to_string_lossy())]) {
            command.arg("--set").arg(format!("{name}={value}"));
        }
        command
    }

    /// One of the files in `scripts/`.
    fn script(&self, name: &str, set: &[(&str, &str)]) -> Command {
        self.session(&xtask::shell::root().join("scripts").join(name), set)
    }

    /// A session of these tables on a process.
    fn tables(&self, target: &str, tables: &str) -> Result<Command> {
        let file = self.path("session.toml");
        let head = "[set]\noutput = \"\"\n[output]\ndirectory = \"{{output}}\"\n";
        fs::write(&file, format!("{head}[target]\n{target}\n{tables}"))?;
        Ok(self.session(&file, &[]))
    }

    fn results(&self) -> Result<Results> {
        let json = fs::read(self.output().join("session.json")).context("session.json")?;
        serde_json::from_slice(&json).context("session.json")
    }

    /// How many censuses of the process are in a capture.
    fn censuses(&self, capture: &str) -> Result<usize> {
        let mut reader = Reader::new(fs::File::open(self.output().join(capture))?, capture)?;
        let mut censuses = 0;
        while let Some(event) = reader.next_event()? {
            censuses += usize::from(matches!(event, Event::Census(_)));
        }
        Ok(censuses)
    }

    /// Each capture can be reported, and says what process it is of.
    fn check_captures(&self) -> Result<()> {
        for capture in self.results()?.captures {
            let file = self.output().join(&capture.file);
            let ended = run_heaptap(&["report", &file.to_string_lossy(), "--json"])?;
            ensure!(ended.status.success(), "{}: {}", capture.file, ended.stderr);
            let report: serde_json::Value = serde_json::from_str(&ended.stdout)?;
            ensure!(report["capture"]["mode"] == capture.mode, "{report}");
        }
        Ok(())
    }
}

fn finish(command: &mut Command, code: i32) -> Result<Ended> {
    let ended = Process::spawn(command)?.wait(PATIENCE)?;
    ensure!(ended.status.code() == Some(code), "{}\n{}\n{}", ended.status, ended.stdout, ended.stderr);
    Ok(ended)
}

#[test]
fn every_script_is_a_session() -> Result<()> {
    let mut count = 0;
    for entry in fs::read_dir(xtask::shell::root().join("scripts"))? {
        let path = entry?.path();
        let ended = run_heaptap(&["session", "check", &path.to_string_lossy()])?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        count += 1;
    }
    // Each of them is run below.
    ensure!(count == 5, "{count} scripts");
    Ok(())
}

#[test]
fn the_template_is_a_session() -> Result<()> {
    let scratch = Scratch::new()?;
    let new = run_heaptap(&["session", "new"])?;
    fs::write(scratch.path("new.toml"), &new.stdout)?;
    let ended = run_heaptap(&["session", "check", &scratch.path("new.toml").to_string_lossy()])?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    Ok(())
}

mod privileged {
    use xtask::process::Signal;

    use super::*;

    /// A service that runs under a name of its own.
    struct Service {
        process: Process,
        program: PathBuf,
        url: String,
        name: String,
    }

    impl Service {
        fn start(scratch: &Scratch, name: &str, args: &[&str]) -> Result<Service> {
            // Tests run at the same time, and those of another run may.
            let unique = scratch.dir.path().file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{name}{unique}");
            let program = scratch.path(&name);
            if !program.exists() {
                copy_program(build("service", NEWEST, Variant::Plain)?, &program)?;
            }
            let mut process = Process::spawn(Command::new(&program).args(args))?;
            let line = process.stdout_line(|line| line.starts_with("listening on "), PATIENCE)?;
            let url = line.trim_start_matches("listening on ").to_owned();
            process.stdout_line(|line| line == "ready", PATIENCE)?;
            Ok(Service { process, program, url, name })
        }

        /// What names it in a session.
        fn target(&self) -> String {
            format!("pid = {}", self.process.pid())
        }

        /// A command that makes requests.
        fn load(&self, requests: u32, rest: &str) -> String {
            let client = build("service", NEWEST, Variant::Plain).unwrap_or_else(|_| self.program.clone());
            format!("{} -load {} -n {requests} -rest {rest}", client.display(), self.url)
        }
    }

    /// Runs a test on a healthy service and, at the same time, on a leaky one: with a name for
    /// it, its arguments, and the exit code that the session is to have.
    fn on_both(test: impl Fn(&str, &[&str], i32) -> Result<()> + Sync) -> Result<()> {
        std::thread::scope(|scope| {
            let healthy = scope.spawn(|| test("healthy", &[], 0).context("healthy"));
            test("leaky", &["-leak"], 3).context("leaky")?;
            healthy.join().map_err(|_| anyhow!("the test panicked"))?
        })
    }

    fn phase(session: &mut Process, name: &str) -> Result<()> {
        session.stderr_line(|line| line == format!("phase {name}"), PATIENCE).map(drop)
    }

    #[test]
    fn a_load_test_passes_on_a_healthy_service_and_fails_on_a_leaky_one() -> Result<()> {
        on_both(|name, args, code| {
            let scratch = Scratch::new()?;
            let service = Service::start(&scratch, name, args)?;
            let set =
                [("name", service.name.as_str()), ("load", &service.load(500, "0s")), ("baseline", "1s")];
            let ended = finish(&mut scratch.script("load-test.toml", &set), code)?;
            let results = scratch.results()?;
            let (outcome, line) = match code {
                0 => ("passed", "passed   memory returns"),
                _ => ("failed", "FAILED   memory returns"),
            };
            ensure!(results.state == "done" && results.assertions[0].outcome == outcome, "{results:?}");
            ensure!(results.phases.iter().all(|phase| phase.outcome == "passed"), "{results:?}");
            ensure!(ended.stdout.contains(line), "{}", ended.stdout);
            let junit = fs::read_to_string(scratch.output().join("junit.xml"))?;
            ensure!(junit.contains("<failure message=\"heap.live") == (code == 3), "{junit}");
            let log = fs::read_to_string(scratch.output().join("phase-load.log"))?;
            ensure!(log == "500 requests\n", "{log}");
            let report = Report::of(&scratch.output().join(&results.captures[0].file))?;
            let recorded = report.phases.iter().map(|phase| &phase.name);
            ensure!(recorded.eq(results.phases.iter().map(|phase| &phase.name)), "{:?}", report.phases);
            scratch.check_captures()
        })
    }

    #[test]
    fn a_hunt_takes_snapshots_as_the_heap_grows() -> Result<()> {
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch, "hunt", &["-leak"])?;
        let set = [("name", service.name.as_str()), ("warmup", "2s"), ("duration", "3s")];
        let mut session = Process::spawn(&mut scratch.script("hunt.toml", &set))?;
        phase(&mut session, "hunt")?;
        let mut sh = Command::new("sh");
        let load = Process::spawn(sh.arg("-c").arg(format!("exec {}", service.load(100_000, "1ms"))))?;
        let ended = session.wait(PATIENCE)?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        drop(load);
        let results = scratch.results()?;
        let fired: Vec<&str> = results.triggers.iter().map(|fired| fired.name.as_str()).collect();
        ensure!(fired == ["half as much again", "twice as much"], "{fired:?}");
        for fired in &results.triggers {
            let file = scratch.output().join(fired.file.as_ref().context("a snapshot")?);
            let snapshot: serde_json::Value = serde_json::from_slice(&fs::read(file)?)?;
            ensure!(snapshot["memstats"]["HeapInuse"].as_u64() > Some(0), "{snapshot}");
        }
        let table = fs::read_to_string(scratch.output().join("capture-1.txt"))?;
        ensure!(results.captures[0].reports.len() == 5 && table.contains("SITE"), "{table}");
        ensure!(scratch.censuses("capture-1.heaptap")? > 1, "no evidence");
        scratch.check_captures()
    }

    #[test]
    fn a_deployment_is_recorded_before_and_after() -> Result<()> {
        let scratch = Scratch::new()?;
        let mut service = Service::start(&scratch, "deploy", &[])?;
        let set = [
            ("name", service.name.as_str()),
            ("deploy", "kill $HEAPTAP_PID"),
            ("duration", "1s"),
            ("warmup", "1s"),
            ("mode", "exact"),
        ];
        let mut session = Process::spawn(&mut scratch.script("deployment.toml", &set))?;
        session.stderr_line(|line| line.contains("waiting for the next"), PATIENCE)?;
        service = Service::start(&scratch, "deploy", &[])?;
        let ended = session.wait(PATIENCE)?;
        ensure!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
        drop(service);
        let results = scratch.results()?;
        ensure!(results.captures.len() == 2 && results.state == "done", "{results:?}");
        ensure!(results.assertions.iter().all(|a| a.outcome == "passed"), "{results:?}");
        let diff = fs::read_to_string(scratch.output().join("diff.txt"))?;
        ensure!(results.diffs == ["diff.txt", "diff.svg"] && diff.contains("main."), "{diff}");
        scratch.check_captures()
    }

    #[test]
    fn a_snapshot_is_taken_when_rss_passes_its_limit() -> Result<()> {
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch, "rss", &["-leak"])?;
        let set = [("name", service.name.as_str()), ("limit", "80"), ("duration", "1h")];
        let mut session = Process::spawn(&mut scratch.script("rss-limit.toml", &set))?;
        phase(&mut session, "watch")?;
        ensure!(scratch.results()?.triggers.is_empty());
        finish(Command::new("sh").arg("-c").arg(service.load(1500, "0s")), 0)?;
        session.stderr_line(|line| line.starts_with("over the limit: rss > 80"), PATIENCE)?;
        // Before its phase is over, which is said.
        session.signal(Signal::SIGINT)?;
        let ended = session.wait(PATIENCE)?;
        ensure!(ended.status.code() == Some(1), "{}", ended.stderr);
        let results = scratch.results()?;
        ensure!(results.state == "interrupted", "{results:?}");
        let snapshot = results.triggers.iter().find_map(|fired| fired.file.clone()).context("a snapshot")?;
        ensure!(scratch.output().join(snapshot).exists());
        ensure!(results.triggers.iter().any(|fired| fired.name == "close to the limit"), "{results:?}");
        scratch.check_captures()
    }

    #[test]
    fn a_soak_tells_a_leak_from_health() -> Result<()> {
        on_both(|name, args, code| {
            let scratch = Scratch::new()?;
            let service = Service::start(&scratch, name, args)?;
            let set = [
                ("name", service.name.as_str()),
                ("load", &service.load(100_000, "1ms")),
                ("warmup", "1s"),
                ("duration", "3s"),
                ("growth", "1024"),
                ("gc", "90"),
            ];
            finish(&mut scratch.script("nightly-soak.toml", &set), code)?;
            let results = scratch.results()?;
            let first = &results.assertions[0].outcome;
            ensure!((first == "failed") == (code == 3), "{results:?}");
            // The load was ended with its phase.
            let soak = &results.phases[1];
            ensure!(soak.outcome == "passed" && soak.exit_code.is_none(), "{results:?}");
            scratch.check_captures()
        })
    }

    const LONG: &str = "[[phase]]\nname = \"long\"\nduration = \"1h\"\n";

    #[test]
    fn a_command_that_fails_or_hangs_does_what_it_was_told_to() -> Result<()> {
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch, "commands", &[])?;
        let pid = service.target();
        let fails = "[[phase]]\nname = \"a\"\nrun = \"echo $WORD; exit 7\"\nenv = { WORD = \"said\" }\n";
        let after = "[[phase]]\nname = \"b\"\nrun = \"true\"\n";
        let ended = finish(&mut scratch.tables(&pid, &format!("{fails}{after}"))?, 1)?;
        ensure!(
            ended.stderr.contains("phase a failed: its command ended with exit status: 7"),
            "{}",
            ended.stderr
        );
        let results = scratch.results()?;
        let [a, b] = results.phases.as_slice() else { panic!("{results:?}") };
        ensure!(a.outcome == "failed" && a.exit_code == Some(7) && b.outcome == "skipped", "{results:?}");
        ensure!(results.state == "failed" && a.name == "a", "{results:?}");
        ensure!(fs::read_to_string(scratch.output().join(a.output.as_ref().context("log")?))? == "said\n");

        let hangs = "[[phase]]\nname = \"a\"\nrun = \"trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000\"\n\
                     timeout = \"1s\"\non_failure = \"continue\"\n";
        finish(&mut scratch.tables(&pid, &format!("{hangs}{after}"))?, 0)?;
        let results = scratch.results()?;
        let reason = results.phases[0].reason.as_deref();
        ensure!(reason == Some("its command did not end within 1s"), "{results:?}");
        ensure!(results.phases[1].outcome == "passed" && results.state == "done", "{results:?}");
        // What the shell had started is gone as well, or a zombie.
        let started = fs::read_to_string(scratch.output().join("phase-a.log"))?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", started.trim()));
        ensure!(stat.as_ref().is_err() || stat.as_ref().is_ok_and(|s| s.contains(") Z ")), "{stat:?}");
        scratch.check_captures()
    }

    #[test]
    fn a_target_is_waited_for_and_ends_the_session() -> Result<()> {
        let scratch = Scratch::new()?;
        let target = format!("cmdline = '^{}/late'\nwait = \"1m\"", scratch.dir.path().display());
        let mut session = Process::spawn(&mut scratch.tables(&target, LONG)?)?;
        session.stderr_line(|line| line.contains("1 phase"), PATIENCE)?;
        let service = Service::start(&scratch, "late", &[])?;
        phase(&mut session, "long")?;
        drop(service);
        let ended = session.wait(PATIENCE)?;
        ensure!(
            ended.status.code() == Some(1) && ended.stderr.contains("ended before the session"),
            "{}",
            ended.stderr
        );
        let results = scratch.results()?;
        ensure!(results.state == "failed" && results.phases[0].outcome == "failed", "{results:?}");
        scratch.check_captures()
    }

    #[test]
    fn a_program_is_started_and_may_end_by_itself() -> Result<()> {
        let scratch = Scratch::new()?;
        let program = build("service", NEWEST, Variant::Plain)?;
        let file = scratch.path("exec.toml");
        let phases = "[[phase]]\nname = \"all\"\nuntil = 'target.running == 0'\n";
        let assertion = "[[assert]]\nthat = 'phase(\"all\").gc.cycles >= 0 && target.running == 0'\n";
        fs::write(
            &file,
            format!(
                "[set]\noutput = \"\"\n[output]\ndirectory = \"{{{{output}}}}\"\n\
                 [target]\nexec = [{program:?}]\n{phases}{assertion}"
            ),
        )?;
        // Its standard input ends at once, and so does it.
        let ended = finish(&mut scratch.session(&file, &[]), 0)?;
        ensure!(ended.stdout.contains("passed"), "{}", ended.stdout);
        ensure!(fs::read_to_string(scratch.output().join("target.log"))?.contains("ready"));
        scratch.check_captures()
    }

    #[test]
    fn a_trigger_switches_to_another_mode() -> Result<()> {
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch, "switch", &["-leak"])?;
        // What is alive is known of a capture when a GC cycle of it was judged.
        let tables = "[capture]\nmode = \"burst\"\n\
                      [[trigger]]\nwhen = 'gc.cycles >= 1'\ndo = \"switch\"\nmode = \"exact\"\n\
                      [[trigger]]\nwhen = 'site(\"main.breathe\").live_objects >= 0'\ndo = \"stop\"\n\
                      [[assert]]\nthat = 'site(\"main.breathe\").live_bytes <= site(\"main.breathe\").alloc_bytes'\n";
        finish(&mut scratch.tables(&service.target(), &format!("{LONG}{tables}"))?, 0)?;
        let results = scratch.results()?;
        let modes: Vec<&str> = results.captures.iter().map(|capture| capture.mode.as_str()).collect();
        ensure!(modes == ["burst", "exact"] && results.state == "done", "{results:?}");
        ensure!(
            results.phases[0].outcome == "passed" && results.assertions[0].outcome == "passed",
            "{results:?}"
        );
        scratch.check_captures()
    }

    #[test]
    fn a_killed_session_leaves_what_can_be_read_and_no_lock() -> Result<()> {
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch, "killed", &["-leak"])?;
        let pid = service.target();
        let tables = "[[phase]]\nname = \"first\"\nduration = \"1s\"\n\
                      [[trigger]]\nwhen = 'elapsed >= 1'\ndo = \"snapshot\"\n\
                      [[phase]]\nname = \"long\"\nrun = \"true\"\nduration = \"1h\"\n";
        for moment in ["recording", "phase first", "trigger 1", "phase long"] {
            let mut session = Process::spawn(&mut scratch.tables(&pid, tables)?)?;
            session.stderr_line(|line| line.starts_with(moment), PATIENCE)?;
            if moment == "phase long" {
                let ended = finish(&mut scratch.tables(&pid, LONG)?, 2)?;
                ensure!(ended.stderr.contains("another session writes to"), "{}", ended.stderr);
                let ended = finish(&mut Scratch::new()?.tables(&pid, LONG)?, 2)?;
                ensure!(ended.stderr.contains("another session is on process"), "{}", ended.stderr);
            }
            session.signal(Signal::SIGKILL)?;
            session.wait(PATIENCE)?;
            let results = scratch.results().context(moment)?;
            let junit = fs::read_to_string(scratch.output().join("junit.xml"))?;
            ensure!(junit.trim_end().ends_with("</testsuites>"), "{moment}: {junit}");
            if moment.starts_with("phase") {
                ensure!(results.state == "running" && results.captures.len() == 1, "{moment}: {results:?}");
                scratch.check_captures().context(moment)?;
            }
        }
        Ok(())
    }

    /// A file system of its own, as small as that.
    struct Tiny(PathBuf);

    impl Tiny {
        fn mount(path: PathBuf) -> Result<Tiny> {
            fs::create_dir_all(&path)?;
            let status =
                Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&path).status()?;
            ensure!(status.success(), "mount: {status}");
            Ok(Tiny(path))
        }
    }

    impl Drop for Tiny {
        fn drop(&mut self) {
            _ = Command::new("umount").arg(&self.0).status();
        }
    }

    #[test]
    fn a_full_disk_leaves_what_was_written() -> Result<()> {
        let scratch = Scratch::new()?;
        let _tiny = Tiny::mount(scratch.output())?;
        let service = Service::start(&scratch, "full", &[])?;
        let tables = "[capture]\nmode = \"exact\"\n[[phase]]\nname = \"fill\"\n\
                      run = \"cat /dev/zero\"\nduration = \"1h\"\n";
        let ended = finish(&mut scratch.tables(&service.target(), tables)?, 1)?;
        ensure!(ended.stderr.contains("cannot write"), "{}", ended.stderr);
        ensure!(scratch.results()?.captures.len() == 1);
        scratch.check_captures()
    }
}
