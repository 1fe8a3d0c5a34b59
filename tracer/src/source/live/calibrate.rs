//! What one trap costs on this machine: measured on heaptap's own process.

use std::arch::naked_asm;
use std::time::Duration;

use super::object::Program;
use super::{Allocations, AttachOptions, Method, attach};
use crate::base::{Error, Result, thread_cpu_ns};
use crate::plan::{CostClass, Place, ProbePlan, Purpose, Recipe, Site};
use crate::target::read_maps;

/// Rounds with the probe, and as many without it; of each the median counts.
const ROUNDS: usize = 9;

/// Hits of one round: together some ten milliseconds.
const HITS: u64 = 700;

/// Frames of the stack that each hit walks: as a request handler of a service has them.
const FRAMES: u64 = 16;

/// Room for the records of all rounds; nobody reads them.
const RING_BYTES: u64 = 2 << 20;

/// Nanoseconds that one trap on such an instruction takes the thread that runs into it.
///
/// The very eBPF program does the very work of an allocation: it reads four values, walks
/// a stack of [`FRAMES`] frames and sends an event into a ring of its own, or counts.
///
/// # Errors
/// Environment: the kernel or the user's rights do not allow it.
pub fn trap_cost(method: Method, is_counted: bool, instruction: CostClass) -> Result<Duration> {
    let pid = std::process::id();
    let plan = ProbePlan { sites: vec![site(pid, instruction)?], ..ProbePlan::default() };
    let options = AttachOptions {
        pid,
        plan: &plan,
        load_bias: 0,
        gc_addresses: None,
        curg: None,
        g_goid: 0,
        step_traps: 1,
        sampler: None,
        c: None,
        ring_bytes: RING_BYTES,
        max_depth: 128,
        bpf_log: false,
        method,
        baseline: false,
        allocations: if is_counted { Allocations::Counted } else { Allocations::Sent },
    };
    let without = median_round();
    let mut program = Program::load(&options)?;
    let probes = attach::attach(&mut program, &options)?;
    let with = median_round();
    drop(probes);
    let cost = with.saturating_sub(without) / HITS as u32;
    if cost.is_zero() {
        return Err(Error::failed("the probe on heaptap's own process has no effect"));
    }
    Ok(cost)
}

/// How an allocation is read off at the entry of [`probed`], or at the instruction behind.
fn site(pid: u32, cost: CostClass) -> Result<Site> {
    let (offset, instruction) = match cost {
        CostClass::Emulated => (0, "push rbp"),
        CostClass::SingleStepped => (1, "pop rbp"),
    };
    let address = probed as *const () as u64 + u64::from(offset);
    let maps = read_maps(pid as i32)?;
    let code = maps.iter().find(|map| (map.start..map.end).contains(&address));
    let code = code.ok_or_else(|| Error::failed("heaptap's own code is not mapped"))?;
    Ok(Site {
        function: "heaptap".into(),
        offset,
        address,
        file_offset: address - code.start + code.offset,
        instruction: instruction.into(),
        cost,
        purpose: Purpose::Alloc(Recipe {
            ptr: Place::Reg(0),
            size: Place::Frame(16),
            type_: Place::Frame(24),
            slot: Place::Reg(3),
        }),
    })
}

fn median_round() -> Duration {
    let mut rounds = [Duration::ZERO; ROUNDS];
    for round in &mut rounds {
        let goroutine = 1;
        // Of processor time: a round of dear traps outlasts a time slice.
        let begin_ns = thread_cpu_ns();
        // SAFETY: `hits` and `frames` are not 0, and the stack has room for that many frames.
        unsafe { hit(HITS, FRAMES, &raw const goroutine) };
        *round = Duration::from_nanos(thread_cpu_ns().saturating_sub(begin_ns));
    }
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

/// The probed function. Its first instruction is one that the kernel emulates, as at most
/// sites of every plan, and its second one that is single-stepped; rbp is the caller's at both,
/// whose frame is complete.
#[unsafe(naked)]
extern "C" fn probed() {
    naked_asm!("push rbp", "pop rbp", "ret")
}

/// Calls [`probed`] so many times from within a chain of `frames` frames, with r14 as in
/// Go code: at the descriptor of a goroutine.
///
/// # Safety
/// Neither number may be 0; each frame takes 16 bytes of the stack.
#[unsafe(naked)]
unsafe extern "C" fn hit(hits: u64, frames: u64, goroutine: *const u64) {
    naked_asm!(
        "push rbp",
        "push r14",
        "mov r14, rdx",
        // Here the chain ends.
        "xor ebp, ebp",
        "call 2f",
        "pop r14",
        "pop rbp",
        "ret",
        // One frame, with another one inside unless it is the last.
        "2:",
        "push rbp",
        "mov rbp, rsp",
        "dec rsi",
        "jz 3f",
        "call 2b",
        "pop rbp",
        "ret",
        "3:",
        "call {probed}",
        "dec rdi",
        "jnz 3b",
        "pop rbp",
        "ret",
        probed = sym probed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probed_instruction_is_found_in_the_executable() {
        let file = std::fs::read("/proc/self/exe").expect("own executable");
        for (cost, byte) in [(CostClass::Emulated, 0x55), (CostClass::SingleStepped, 0x5d)] {
            let site = site(std::process::id(), cost).expect("own code");
            assert_eq!(file.get(site.file_offset as usize), Some(&byte), "{}", site.instruction);
        }
    }

    #[test]
    fn a_round_comes_back() {
        assert!(median_round() > Duration::ZERO);
    }
}
