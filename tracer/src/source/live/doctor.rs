//! Whether this kernel and user can attach, and what to do where they cannot.

use serde::Serialize;
use std::fs;
use std::path::Path;

use aya::maps::MapType;
use aya::util::KernelVersion;

use super::object::{self, MULTI_SINCE, Program};
use super::{Allocations, AttachOptions, Method};
use crate::plan::{CostClass, ProbePlan, Purpose, Site};

/// One thing attaching depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is looked at, in a few words.
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What the user can do; empty where there is nothing to do.
    pub fix: String,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// heaptap works, but slower or with less.
    Degraded,
    /// heaptap cannot attach.
    Missing,
}

/// Looks at everything attaching depends on, in the order in which to mend it.
///
/// Loads the eBPF program, but attaches to nothing.
pub fn checks() -> Vec<Check> {
    let status = read("/proc/self/status");
    let held = capabilities(&status);
    vec![
        kernel(),
        rights(held),
        lockdown(&read("/sys/kernel/security/lockdown")),
        ring(),
        uprobes(Path::new("/sys/bus/event_source/devices/uprobe/type").exists()),
        program(),
        cookies(),
        multi(),
        memory(held, read("/proc/sys/kernel/yama/ptrace_scope").trim()),
        btf(Path::new("/sys/kernel/btf/vmlinux").exists()),
    ]
}

/// A file of the kernel's; empty where it is not there, as on a kernel without it.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn check(name: &'static str, verdict: Verdict, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    let fix = if verdict == Verdict::Ok { String::new() } else { fix.into() };
    Check { name, verdict, detail: detail.into(), fix }
}

/// `Ok` if so, else the other.
fn ok_or(so: bool, otherwise: Verdict) -> Verdict {
    if so { Verdict::Ok } else { otherwise }
}

/// What heaptap is made for; the ring buffer came with 5.8, frozen constants with 5.2.
const OLDEST: KernelVersion = KernelVersion::new(5, 10, 0);

fn at_least(version: KernelVersion) -> bool {
    KernelVersion::current().is_ok_and(|current| current >= version)
}

fn kernel() -> Check {
    let release = read("/proc/sys/kernel/osrelease");
    let verdict = ok_or(at_least(OLDEST), Verdict::Missing);
    check("kernel", verdict, format!("Linux {}", release.trim()), "use Linux 5.10 or newer")
}

/// The numbers of linux/capability.h.
const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// The effective capabilities in `/proc/PID/status`; none when it cannot be read.
fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn rights(held: u64) -> Check {
    let admin = held & CAP_SYS_ADMIN != 0;
    let needed = [("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON)];
    let missing: Vec<&str> =
        needed.iter().filter(|(_, bit)| !admin && held & bit == 0).map(|(name, _)| *name).collect();
    let detail = if missing.is_empty() {
        "may load eBPF programs and place probes".to_owned()
    } else {
        format!("without {}", missing.join(" and "))
    };
    let fix = "run as root, or: setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep on the heaptap program";
    check("capabilities", ok_or(missing.is_empty(), Verdict::Missing), detail, fix)
}

/// `text` is `none [integrity] confidentiality`, the mode in force in brackets; empty
/// without that security module.
fn lockdown(text: &str) -> Check {
    let mode =
        text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("none", |(mode, _)| mode);
    let verdict = ok_or(mode != "confidentiality", Verdict::Missing);
    check("lockdown", verdict, mode, "boot with lockdown=integrity or without lockdown")
}

fn ring() -> Check {
    match aya::sys::is_map_supported(MapType::RingBuf) {
        Ok(true) => check("ring buffer", Verdict::Ok, "supported", ""),
        Ok(false) => check("ring buffer", Verdict::Missing, "not supported", "use Linux 5.8 or newer"),
        Err(e) => check("ring buffer", Verdict::Missing, format!("cannot be tried: {e}"), "see capabilities"),
    }
}

fn uprobes(there: bool) -> Check {
    let detail = if there { "supported" } else { "not in this kernel" };
    check("uprobes", ok_or(there, Verdict::Missing), detail, "use a kernel with CONFIG_UPROBE_EVENTS=y")
}

/// Has the kernel verify the very program.
fn program() -> Check {
    let site = Site {
        function: String::new(),
        offset: 0,
        address: 0,
        file_offset: 0,
        instruction: String::new(),
        cost: CostClass::Emulated,
        purpose: Purpose::GcEpoch,
    };
    let plan = ProbePlan { sites: vec![site], ..ProbePlan::default() };
    let options = AttachOptions {
        pid: 0,
        plan: &plan,
        load_bias: 0,
        gc_addresses: None,
        curg: None,
        g_goid: 0,
        step_traps: 1,
        sampler: None,
        c: None,
        ring_bytes: 64 << 10,
        max_depth: 128,
        bpf_log: false,
        method: Method::Auto,
        baseline: false,
        allocations: Allocations::Sent,
    };
    match Program::load(&options) {
        Ok(_) => check("eBPF program", Verdict::Ok, "accepted by the kernel", ""),
        Err(e) => {
            let fix = e.hint_text().unwrap_or("report this with the kernel's version").to_owned();
            check("eBPF program", Verdict::Missing, e.to_string(), fix)
        }
    }
}

fn cookies() -> Check {
    let there = aya::features().bpf_cookie();
    let detail = if there { "supported" } else { "not supported: sites are found by address" };
    check("attach cookies", ok_or(there, Verdict::Degraded), detail, "use Linux 5.15 or newer")
}

fn multi() -> Check {
    let detail = if object::has_multi() {
        "supported: attaching and detaching take milliseconds"
    } else {
        "not usable: detaching takes the kernel some 100 ms a site"
    };
    let verdict = ok_or(at_least(MULTI_SINCE), Verdict::Degraded);
    check("uprobe_multi", verdict, detail, "use Linux 6.10 or newer")
}

/// `scope` as in Documentation/admin-guide/LSM/Yama.rst; empty without Yama.
fn memory(held: u64, scope: &str) -> Check {
    let may = held & CAP_SYS_PTRACE != 0;
    let (verdict, fix) = match scope {
        "3" => (Verdict::Missing, "reboot with kernel.yama.ptrace_scope below 3; it cannot be lowered"),
        _ if may => (Verdict::Ok, ""),
        "1" | "2" => {
            (Verdict::Missing, "run as root, or add CAP_SYS_PTRACE, or: sysctl kernel.yama.ptrace_scope=0")
        }
        _ => (Verdict::Degraded, "run as root, or add CAP_SYS_PTRACE, to read other users' processes"),
    };
    let scope = if scope.is_empty() { "no Yama".to_owned() } else { format!("ptrace scope {scope}") };
    let with = if may { "with" } else { "without" };
    check("reading memory", verdict, format!("{with} CAP_SYS_PTRACE, {scope}"), fix)
}

fn btf(there: bool) -> Check {
    let detail = if there { "there" } else { "not there; heaptap's program does not need it" };
    check("kernel BTF", Verdict::Ok, detail, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status_file() {
        assert_eq!(
            capabilities("Name:\tx\nCapEff:\t000000c000080000\n"),
            CAP_BPF | CAP_PERFMON | CAP_SYS_PTRACE
        );
        assert_eq!(capabilities("CapEff:\tnonsense"), 0);
        assert_eq!(rights(CAP_BPF | CAP_PERFMON).verdict, Verdict::Ok);
        assert_eq!(rights(CAP_SYS_ADMIN).verdict, Verdict::Ok);
        let bare = rights(CAP_BPF);
        assert_eq!((bare.verdict, bare.detail.as_str()), (Verdict::Missing, "without CAP_PERFMON"));
        assert!(bare.fix.contains("cap_perfmon"));
    }

    #[test]
    fn only_confidentiality_locks_probes_down() {
        for (text, verdict) in [
            ("", Verdict::Ok),
            ("[none] integrity confidentiality\n", Verdict::Ok),
            ("none [integrity] confidentiality\n", Verdict::Ok),
            ("none integrity [confidentiality]\n", Verdict::Missing),
        ] {
            assert_eq!(lockdown(text).verdict, verdict, "{text}");
        }
    }

    #[test]
    fn a_ptrace_scope_of_three_stops_even_root() {
        for (held, scope, verdict) in [
            (CAP_SYS_PTRACE, "1", Verdict::Ok),
            (CAP_SYS_PTRACE, "3", Verdict::Missing),
            (0, "1", Verdict::Missing),
            (0, "0", Verdict::Degraded),
            (0, "", Verdict::Degraded),
        ] {
            assert_eq!(memory(held, scope).verdict, verdict, "{held:x} {scope}");
        }
    }
}
