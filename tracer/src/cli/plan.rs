//! `heaptap plan`: what would be probed, and at what price.

use std::io::{self, Write};

use super::args::{Mode, Plan};
use super::{find_process, to_stdout, write_json};
use crate::base::Result;
use crate::binary::Binary;
use crate::plan::{CostClass, Place, ProbePlan, Purpose, Site};
use crate::target;

pub(super) fn run(args: &Plan) -> Result<u8> {
    let binary = binary(args)?;
    let plan = match args.mode {
        Mode::Auto | Mode::Exact | Mode::Burst => ProbePlan::of(&binary)?,
        Mode::Runtime => ProbePlan::of_sampler(&binary)?,
    };
    if args.json {
        write_json(&plan)?;
    } else {
        to_stdout(|out| table(&plan, out))?;
    }
    Ok(0)
}

fn binary(args: &Plan) -> Result<Binary> {
    let program = &args.program;
    match &program.binary {
        Some(path) => target::open_binary(path),
        None => Ok(target::identify(find_process(program.pid, program.name.as_deref())?, None)?.binary),
    }
}

fn table(plan: &ProbePlan, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:<52} {:<34} {:<14} READS", "SITE", "INSTRUCTION", "COST")?;
    for site in &plan.sites {
        let place = format!("{}+{:#x}", site.function, site.offset);
        writeln!(out, "{place:<52} {:<34} {:<14} {}", site.instruction, cost(site.cost), reads(site))?;
    }
    for note in &plan.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn cost(class: CostClass) -> &'static str {
    match class {
        CostClass::Emulated => "emulated",
        CostClass::SingleStepped => "single-stepped",
    }
}

fn reads(site: &Site) -> String {
    match &site.purpose {
        Purpose::GcEpoch => "(end of marking)".into(),
        Purpose::GcStart { trigger } => format!("trigger={}", place("trigger", *trigger)),
        Purpose::GcRecord => "(GC cycle)".into(),
        Purpose::AssistBegin => "(assist)".into(),
        Purpose::AssistEnd => "(end of assist)".into(),
        Purpose::StwBegin { reason } => format!("reason={}", place("reason", *reason)),
        Purpose::StwEnd => "(world started)".into(),
        Purpose::Mark { .. } => "(mark)".into(),
        Purpose::CAlloc { .. } | Purpose::CReturn { .. } | Purpose::CFree { .. } => "(C's allocator)".into(),
        Purpose::Alloc(r) => [("ptr", r.ptr), ("size", r.size), ("type", r.type_), ("slot", r.slot)]
            .iter()
            .map(|(name, at)| format!("{name}={}", place(name, *at)))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

fn place(name: &str, at: Place) -> String {
    const REGISTERS: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15",
    ];
    match at {
        Place::None if name == "slot" => "by-size".into(),
        Place::None if matches!(name, "size" | "type") => "by-caller".into(),
        Place::None => "unknown".into(),
        Place::Const(c) => c.to_string(),
        Place::Reg(r) => REGISTERS[usize::from(r & 15)].into(),
        Place::Frame(o) => format!("[rbp{o:+}]"),
        Place::Stack(o) => format!("[rsp{o:+}]"),
    }
}
