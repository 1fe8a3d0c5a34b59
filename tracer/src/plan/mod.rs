//! Where to probe, and how to read an allocation there (tier 3).
//!
//! A plan is plain data, decided from the binary's machine code before the kernel is
//! touched.

use serde::{Deserialize, Serialize};

/// Everything heaptap would attach to one executable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbePlan {
    pub sites: Vec<Site>,
    /// What could not be found, and what that costs, in words for the user.
    pub notes: Vec<String>,
}

/// One probe: an instruction and how to read what happens there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// `runtime.mallocgc`.
    pub function: String,
    /// Bytes from the function's entry to the instruction.
    pub offset: u32,
    /// Link-time address of the instruction.
    pub address: u64,
    /// Offset of the instruction in the executable file: what a uprobe is given.
    pub file_offset: u64,
    /// The instruction, for people: `call runtime.publicationBarrier`.
    pub instruction: String,
    pub cost: CostClass,
    pub purpose: Purpose,
}

/// What a hit of the site means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// An object was completed.
    Alloc(Recipe),
    /// The world is stopped and marking has ended: a new GC epoch begins.
    GcEpoch,
}

/// Where an allocation's values lie when the site traps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    pub ptr: Place,
    /// The bytes asked for; `Place::None`: decoded from the call site.
    pub size: Place,
    /// The `*_type`; `Place::None`: decoded from the call site.
    #[serde(rename = "type")]
    pub type_: Place,
    /// The size class in bytes, 0 for a tiny object that fitted an existing block;
    /// `Place::None`: it follows from size and type.
    pub slot: Place,
}

/// Where one value lies at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    None,
    /// Known beforehand.
    Const(u64),
    /// In a general register, by x86-64 encoding number (0 rax, 1 rcx, 2 rdx, 3 rbx,
    /// 4 rsp, 5 rbp, 6 rsi, 7 rdi, 8 to 15 r8 to r15).
    Reg(u8),
    /// A u64 in memory at rbp plus this.
    Frame(i32),
    /// A u64 in memory at rsp plus this.
    Stack(i32),
}

/// What a trap on the instruction costs (probe-site measurements in docs/BENCHMARKS.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostClass {
    /// A 5-byte nop: Linux 6.18 turns the trap into a call.
    Optimised,
    /// The kernel emulates the instruction: one trap.
    Emulated,
    /// Single-stepped out of line: some twenty times an emulated one.
    SingleStepped,
}
