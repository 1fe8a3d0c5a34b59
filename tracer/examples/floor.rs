//! What a trap costs at the least: probes on every allocation site of the process whose id is
//! given, which do next to nothing, or read one word of the stack behind `--read`. They stay until
//! stdin is closed.
//!
//! `cargo xtask bench overhead` runs it.

use std::io::{self, Read};

use tracer::base::{Error, Result};
use tracer::plan::{Place, ProbePlan, Purpose};
use tracer::source::live::{Allocations, AttachOptions, LiveSource, Method};
use tracer::target::identify;

fn main() -> Result<()> {
    let pid = std::env::args().nth(1).and_then(|pid| pid.parse().ok());
    let target = identify(pid.ok_or_else(|| Error::usage("give the id of a process"))?, None)?;
    let mut plan = ProbePlan::of(&target.binary)?;
    plan.sites.retain(|site| matches!(site.purpose, Purpose::Alloc(_)));
    // Who tells call sites apart must read a return address.
    let trigger =
        if std::env::args().nth(2).as_deref() == Some("--read") { Place::Stack(0) } else { Place::None };
    for site in &mut plan.sites {
        // Of all that the eBPF program does this is the least: it finds its recipe, counts the
        // hit and writes two words to a map.
        site.purpose = Purpose::GcStart { trigger };
    }
    let probes = LiveSource::attach(&AttachOptions {
        pid: target.target.pid,
        plan: &plan,
        load_bias: target.target.load_bias,
        gc_addresses: None,
        curg: None,
        g_goid: 0,
        step_traps: 1,
        sampler: None,
        c: None,
        ring_bytes: 64 << 10,
        max_depth: 1,
        bpf_log: false,
        method: Method::Auto,
        baseline: false,
        allocations: Allocations::Sent,
    })?;
    #[expect(clippy::print_stdout, reason = "says that the probes are in place")]
    {
        println!("ready");
    }
    io::stdin().read_to_end(&mut Vec::new()).map_err(|e| Error::failed("cannot read stdin").because(e))?;
    drop(probes);
    Ok(())
}
