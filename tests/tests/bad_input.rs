//! Each bad input has its own message, its exit code, and says what to do.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::report::Report;
use tests::{
    Ended, GoLine, NEWEST, PATIENCE, Process, Signal, Variant, build, build_with, heaptap, run_heaptap,
};

/// What heaptap must do when it refuses: its exit code, and words of its message.
struct Refusal(i32, &'static [&'static str]);

fn check_refused(ended: &Ended, Refusal(code, words): &Refusal) -> Result<()> {
    let said = &ended.stderr;
    ensure!(ended.status.code() == Some(*code), "{}, not {code}: {said}", ended.status);
    for word in *words {
        ensure!(said.contains(word), "no {word:?} in: {said}");
    }
    ensure!(ended.stdout.is_empty(), "data on stdout: {}", ended.stdout);
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

fn refused(args: &[&str], refusal: &Refusal) -> Result<()> {
    check_refused(&run_heaptap(args)?, refusal).with_context(|| format!("heaptap {}", args.join(" ")))
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// A copy of a program with each occurrence of some bytes replaced.
fn patched(program: &Path, old: &[u8], new: &[u8], copy: &Path) -> Result<()> {
    assert_eq!(old.len(), new.len());
    let mut bytes = fs::read(program)?;
    let places: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(old)).collect();
    ensure!(!places.is_empty(), "nothing to replace");
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
    fs::write(copy, bytes)?;
    fs::set_permissions(copy, Permissions::from_mode(0o755))?;
    Ok(())
}

/// Starts a program of the given name; programs are found by it.
fn start_named(name: &str, directory: &Path) -> Result<Process> {
    let program = directory.join(name);
    if !program.exists() {
        tests::copy_program(build("churn", NEWEST, Variant::Stripped)?, &program)?;
    }
    tests::start_target(&program, &["-rate", "1000", "-interval", "100ms"])
}

#[test]
fn executables_that_cannot_be_probed_are_refused() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let file = |name: &str| scratch.path().join(name);
    let (cut, text) = (file("cut"), file("text"));
    let whole = fs::read(build("churn", NEWEST, Variant::Stripped)?)?;
    fs::write(&cut, &whole[..whole.len() / 3])?;
    fs::write(&text, "not a program")?;
    let foreign = |architecture| build_with("churn", NEWEST, Variant::Plain, &[("GOARCH", architecture)]);
    let cases: &[(PathBuf, Refusal)] = &[
        (file("absent"), Refusal(1, &["cannot read", "No such file"])),
        (text, Refusal(2, &["not an ELF file", "hint: "])),
        (cut, Refusal(2, &["not a Go program", "hint: "])),
        (std::env::current_exe()?, Refusal(2, &["not a Go program", "hint: "])),
        (foreign("386")?, Refusal(2, &["32-bit", "hint: "])),
        (foreign("arm64")?, Refusal(2, &["another architecture (arm64)", "hint: "])),
    ];
    for (program, refusal) in cases {
        refused(&["plan", "--binary", utf8(program)?], refusal)?;
    }
    Ok(())
}

#[test]
fn files_that_are_no_captures_are_refused() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let file = |name: &str, content: &[u8]| -> Result<PathBuf> {
        let path = scratch.path().join(name);
        fs::write(&path, content)?;
        Ok(path)
    };
    // Major version 2, with the checksum that goes with it.
    let newer = [b"HEAPTAP\n".as_slice(), &[2, 0, 0, 0], &NEWER_CRC.to_le_bytes()].concat();
    let cases: &[(PathBuf, Refusal)] = &[
        (scratch.path().join("absent"), Refusal(2, &["cannot open", "No such file"])),
        (scratch.path().to_path_buf(), Refusal(1, &["cannot read", "directory"])),
        (file("empty", b"")?, Refusal(2, &["not a heaptap capture", "hint: "])),
        (file("text", b"not a capture, not at all")?, Refusal(2, &["not a heaptap capture", "hint: "])),
        (file("newer", &newer)?, Refusal(2, &["newer heaptap", "format 2", "hint: "])),
    ];
    for (path, refusal) in cases {
        refused(&["report", utf8(path)?], refusal)?;
    }
    Ok(())
}

/// CRC-32C of the first twelve bytes of a capture of version 2.0.
const NEWER_CRC: u32 = 0x4800_d7b3;

#[test]
fn processes_that_cannot_be_meant_are_refused() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let (one, other) = (start_named("ht-twins", scratch.path())?, start_named("ht-twins", scratch.path())?);
    let out = scratch.path().join("never.heaptap");
    let record = |selector: &str, value: &str| {
        run_heaptap(&["record", "--mode", "exact", selector, value, "--for", "1s", "-o", utf8(&out)?])
    };
    // Above the most that Linux gives (pid_max, proc_sys_kernel(5)).
    check_refused(&record("--pid", "4194305")?, &Refusal(1, &["no process 4194305"]))?;
    check_refused(&record("--pid", "2")?, &Refusal(2, &["kernel thread"]))?;
    check_refused(&record("--name", "ht-nobody")?, &Refusal(1, &["no process", "ht-nobody", "hint: "]))?;
    let me = std::process::id().to_string();
    check_refused(&record("--pid", &me)?, &Refusal(2, &["not a Go program", "hint: "]))?;
    let twins = record("--name", "ht-twins")?;
    check_refused(&twins, &Refusal(2, &["2 processes", "ht-twins", "--pid"]))?;
    for twin in [one.pid(), other.pid()] {
        ensure!(twins.stderr.contains(&twin.to_string()), "{twin} is not named: {}", twins.stderr);
    }
    ensure!(!out.exists(), "a refused recording left a file");
    Ok(())
}

#[test]
fn the_command_line_is_checked() -> Result<()> {
    let cases: &[(&[&str], Refusal)] = &[
        (&["record"], Refusal(2, &["--pid", "--name", "--exec"])),
        (&["record", "--pid", "1", "--name", "x"], Refusal(2, &["cannot be used with"])),
        (&["record", "--pid", "1", "--for", "soon"], Refusal(2, &["--for"])),
        (&["record", "--pid", "1", "--buffer", "lots"], Refusal(2, &["--buffer", "64MiB"])),
        (&["record", "--pid", "1", "--depth", "129"], Refusal(2, &["--depth", "1..=128"])),
        (&["repport"], Refusal(2, &["report"])),
    ];
    for (args, refusal) in cases {
        refused(args, refusal)?;
    }
    Ok(())
}

mod privileged {
    use super::*;

    #[test]
    fn what_cannot_be_recorded_into_is_refused() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let target = start_named("churn", scratch.path())?;
        let pid = target.pid().to_string();
        let out = scratch.path().join("c.heaptap");
        let record = |more: &[&str]| {
            run_heaptap(&[&["record", "--mode", "exact", "--pid", &pid, "--for", "1s"], more].concat())
        };
        let no_directory = scratch.path().join("absent/c.heaptap");
        let unwritable = record(&["-o", utf8(&no_directory)?])?;
        check_refused(&unwritable, &Refusal(2, &["cannot write", "No such file", "hint: "]))?;
        let small = record(&["-o", utf8(&out)?, "--buffer", "4KiB"])?;
        check_refused(&small, &Refusal(2, &["too small", "--buffer"]))?;
        let full = record(&["-o", "/dev/full"])?;
        check_refused(&full, &Refusal(1, &["cannot write", "No space"]))
    }

    #[test]
    fn a_program_of_too_old_a_go_is_refused() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let program = scratch.path().join("old");
        let oldest = build("churn", GoLine::parse("1.19")?, Variant::Plain)?;
        // It says so; it is not.
        patched(&oldest, b"go1.19.8", b"go1.18.8", &program)?;
        let target = tests::start_target(&program, &["-rate", "1000"])?;
        let out = scratch.path().join("c.heaptap");
        let pid = target.pid().to_string();
        let ended =
            run_heaptap(&["record", "--mode", "exact", "--pid", &pid, "--for", "1s", "-o", utf8(&out)?])?;
        check_refused(&ended, &Refusal(2, &["Go 1.18", "Go 1.19", "hint: "]))
    }

    #[test]
    fn a_stripped_program_of_unknown_go_needs_a_word_from_the_user() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let program = scratch.path().join("unknown");
        let version = format!("go{}", NEWEST.version);
        let devel = format!("go1.99{}", &version[6..]);
        patched(&build("churn", NEWEST, Variant::Stripped)?, version.as_bytes(), devel.as_bytes(), &program)?;
        let target = tests::start_target(&program, &["-rate", "1000"])?;
        let pid = target.pid().to_string();
        let out = scratch.path().join("c.heaptap");
        let args = ["record", "--mode", "exact", "--pid", &pid, "--for", "1s", "-o", utf8(&out)?];
        check_refused(&run_heaptap(&args)?, &Refusal(1, &["go1.99", "hint: ", "--assume-go"]))?;
        let gc = ["gc", "--pid", &pid, "--for", "1s"];
        check_refused(&run_heaptap(&gc)?, &Refusal(1, &["go1.99", "hint: ", "--assume-go"]))?;
        let told = run_heaptap(&[&args[..], &["--assume-go", NEWEST.version]].concat())?;
        ensure!(told.status.success(), "{}", told.stderr);
        ensure!(Report::of(&out)?.totals.alloc_objects > 500, "recorded too little");
        Ok(())
    }

    /// A function that records a cycle, and one whose code tells where, are not found.
    #[test]
    fn without_the_records_of_gc_cycles_allocations_are_recorded_all_the_same() -> Result<()> {
        const CASES: [(&str, &str, Refusal); 2] = [
            ("runtime.gcMarkTermination\0", "runtime.gcMark_ermination\0", Refusal(1, &["no such function"])),
            ("runtime.putfull\0", "runtime.put_ull\0", Refusal(1, &["cannot find runtime.work"])),
        ];
        let scratch = tempfile::tempdir()?;
        for (i, (name, renamed, refusal)) in CASES.into_iter().enumerate() {
            let program = scratch.path().join(format!("churn{i}"));
            let stripped = build("churn", NEWEST, Variant::Stripped)?;
            patched(&stripped, name.as_bytes(), renamed.as_bytes(), &program)?;
            let target = tests::start_target(&program, &["-rate", "10000"])?;
            let pid = target.pid().to_string();
            check_refused(&run_heaptap(&["gc", "--pid", &pid, "--for", "1s"])?, &refusal)?;
            let out = scratch.path().join("c.heaptap");
            let recorded =
                run_heaptap(&["record", "--mode", "exact", "--pid", &pid, "--for", "1s", "-o", utf8(&out)?])?;
            ensure!(recorded.status.success(), "{}", recorded.stderr);
            let report = Report::of(&out)?;
            ensure!(report.totals.alloc_objects > 5000, "recorded too little");
            let Refusal(_, why) = refusal;
            let says = |note: &String| note.contains("GC timeline is missing") && note.contains(why[0]);
            ensure!(report.capture.notes.iter().any(says), "{name}: {:?}", report.capture.notes);
        }
        Ok(())
    }

    #[test]
    fn without_rights_it_says_which() -> Result<()> {
        const NOBODY: &str = "65534";
        let scratch = tempfile::tempdir()?;
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o777))?;
        let program = scratch.path().join("heaptap");
        tests::copy_program(heaptap().get_program(), &program)?;
        let churn = scratch.path().join("churn");
        tests::copy_program(build("churn", NEWEST, Variant::Stripped)?, &churn)?;
        let as_nobody = |program: &Path| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs"]);
            command.arg(program);
            command
        };
        let attempt = |target: &Process| -> Result<Ended> {
            let mut record = as_nobody(&program);
            record.args([
                "record",
                "--mode",
                "exact",
                "--pid",
                &target.pid().to_string(),
                "--for",
                "1s",
                "-o",
            ]);
            Process::spawn(record.arg(scratch.path().join("c.heaptap")))?.wait(PATIENCE)
        };
        let roots = tests::start_target(&churn, &["-rate", "1000"])?;
        check_refused(&attempt(&roots)?, &Refusal(4, &["not permitted", "hint: ", "CAP_SYS_PTRACE"]))?;
        // Its own process it may look into; it is BPF that it may not use.
        let mut own = Process::spawn(as_nobody(&churn).args(["-rate", "1000"]))?;
        own.stdout_line(|line| line == "ready", PATIENCE)?;
        check_refused(&attempt(&own)?, &Refusal(4, &["hint: ", "CAP_BPF"]))
    }

    #[test]
    fn a_target_that_ends_leaves_its_recording() -> Result<()> {
        for mode in ["exact", "burst"] {
            for is_reaped in [true, false] {
                let scratch = tempfile::tempdir()?;
                let report = record_to_its_end(scratch.path(), mode, is_reaped)
                    .with_context(|| format!("{mode}, reaped: {is_reaped}"))?;
                ensure!(report.capture.lost == 0);
                let seen = report.totals.alloc_objects;
                ensure!(mode == "burst" || seen >= 200, "kept only {seen}");
            }
        }
        Ok(())
    }

    /// The recording of a target that is killed in its midst. One that is not reaped by its
    /// parent stays as a zombie.
    fn record_to_its_end(scratch: &Path, mode: &str, is_reaped: bool) -> Result<Report> {
        let out = scratch.join("c.heaptap");
        let mut target = start_named("churn", scratch)?;
        let mut record = heaptap();
        record.args(["record", "--mode", mode, "--pid", &target.pid().to_string(), "-o"]).arg(&out);
        let mut record = Process::spawn(&mut record)?;
        tests::await_recording(&mut record)?;
        for _ in 0..3 {
            target.discard_stdout();
            target.stdout_line(|line| line.starts_with('{'), PATIENCE)?;
        }
        target.signal(Signal::SIGKILL)?;
        let zombie = (!is_reaped).then_some(target);
        let ended = record.wait(PATIENCE)?;
        drop(zombie);
        ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        Report::of(&out)
    }

    #[test]
    fn a_target_that_ends_while_attaching_is_not_waited_for() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let target = start_named("churn", scratch.path())?;
        let pid = target.pid();
        let out = scratch.path().join("c.heaptap");
        let mut record = heaptap();
        record.args(["record", "--mode", "exact", "--pid", &pid.to_string(), "-o"]).arg(&out);
        let record = Process::spawn(&mut record)?;
        // Sometime between its first look at the process and its last probe.
        drop(target);
        let ended = record.wait(PATIENCE)?;
        match ended.status.code() {
            Some(0) => {}
            Some(1) => ensure!(
                ended.stderr.contains(&format!("no process {pid}")) || ended.stderr.contains("has ended"),
                "{}",
                ended.stderr
            ),
            _ => ensure!(false, "{}: {}", ended.status, ended.stderr),
        }
        Ok(())
    }

    #[test]
    fn a_damaged_capture_gives_its_intact_part() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let whole = scratch.path().join("whole.heaptap");
        let target = start_named("churn", scratch.path())?;
        let pid = target.pid().to_string();
        let ended =
            run_heaptap(&["record", "--mode", "exact", "--pid", &pid, "--for", "4s", "-o", utf8(&whole)?])?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        refused(&["report", utf8(&whole)?, "--filter", "("], &Refusal(2, &["regular expression"]))?;
        let all = Report::of(&whole)?.totals.alloc_objects;
        let bytes = fs::read(&whole)?;

        let cut = scratch.path().join("cut.heaptap");
        fs::write(&cut, &bytes[..bytes.len() * 3 / 4])?;
        let report = Report::of(&cut)?;
        ensure!((1..all).contains(&report.totals.alloc_objects), "{} of {all}", report.totals.alloc_objects);
        ensure!(report.capture.notes.iter().any(|note| note.contains("incomplete")), "{:?}", report.capture);

        let flipped = scratch.path().join("flipped.heaptap");
        let mut damaged = bytes;
        let middle = damaged.len() * 3 / 4;
        damaged[middle] ^= 0xff;
        fs::write(&flipped, damaged)?;
        let report = Report::of(&flipped)?;
        ensure!((1..all).contains(&report.totals.alloc_objects), "{} of {all}", report.totals.alloc_objects);
        ensure!(report.capture.notes.iter().any(|note| note.contains("damaged")), "{:?}", report.capture);
        Ok(())
    }
}
