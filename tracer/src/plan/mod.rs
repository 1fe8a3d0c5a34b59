//! Where to probe, and how to read an allocation there (tier 3).
//!
//! A plan is plain data, decided from the binary's machine code before the kernel is
//! touched.

mod alloc;
mod c;
mod call_site;
mod gc;
mod leaf;
mod mark;
mod sampler;

use iced_x86::{FlowControl, Instruction};
use serde::{Deserialize, Serialize};

pub use c::{CCall, c_sites};
pub use call_site::{CallSites, Passed};
pub use mark::Mark;

use crate::base::{Error, Result};
use crate::binary::flow::Flow;
use crate::binary::{Binary, Function};

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
    /// A GC cycle starts; what triggered it (runtime/mgc.go `gcTriggerKind`).
    GcStart { trigger: Place },
    /// A GC cycle has ended: the runtime's record of it is complete.
    GcRecord,
    /// A goroutine has to mark, before it may allocate.
    AssistBegin,
    /// It has marked enough.
    AssistEnd,
    /// The world is to be stopped; why (runtime/proc.go `stwReason`, from Go 1.21 on).
    StwBegin { reason: Place },
    /// The world is started again.
    StwEnd,
    /// A function of C's allocator is entered, for `count` objects of `size`; what `pointer`
    /// is depends on what it does.
    CAlloc { call: CCall, pointer: Place, size: Place, count: Place },
    /// One of these has its result, and is about to return; the stack pointer was so many bytes
    /// higher when it was called.
    CReturn { result: Place, depth: i64 },
    /// C's `free` is entered.
    CFree { pointer: Place },
    /// A mark of the user's is passed; the stack pointer was so many bytes higher when the
    /// function was called.
    Mark { frame: i64 },
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
    /// The kernel emulates the instruction: one trap.
    Emulated,
    /// Single-stepped out of line: some twenty times an emulated one.
    SingleStepped,
}

impl ProbePlan {
    /// Decides where to probe an executable, from its own machine code.
    ///
    /// What is not found stands in `notes`.
    ///
    /// # Errors
    /// When the executable has no function table or no allocation function.
    pub fn of(binary: &Binary) -> Result<ProbePlan> {
        let functions = binary.functions()?;
        let mut plan = ProbePlan::default();
        let leaves: Vec<Function<'_>> = functions.iter().filter(|f| leaf::is_probed(f.name)).collect();
        if leaves.is_empty() {
            return Err(Error::failed(
                "no allocation function found: the executable has no runtime.mallocgc",
            )
            .hint("is this a Go program that was built with the standard toolchain?"));
        }
        for function in &leaves {
            plan.add_allocation_sites(binary, function);
        }
        let (sites, notes) = gc::sites(binary);
        plan.sites.extend(sites);
        plan.notes.extend(notes);
        Ok(plan)
    }

    /// Decides where to probe an executable to be told of the objects that the runtime's own
    /// heap profiler samples, and of GC cycles.
    ///
    /// Assists are left out: the allocation that had to wait is hardly ever a sampled one.
    ///
    /// # Errors
    /// When the executable has no function table or no site for samples.
    pub fn of_sampler(binary: &Binary) -> Result<ProbePlan> {
        let mut plan = ProbePlan { sites: vec![sampler::site_of(binary)?], notes: Vec::new() };
        let (sites, notes) = gc::sites(binary);
        let assists = |p: &Purpose| matches!(p, Purpose::AssistBegin | Purpose::AssistEnd);
        plan.sites.extend(sites.into_iter().filter(|site| !assists(&site.purpose)));
        plan.notes.extend(notes);
        Ok(plan)
    }

    /// Decides where to probe an executable to be told of each GC cycle, and of nothing else.
    ///
    /// # Errors
    /// When the executable has no function table or no site for that.
    pub fn of_gc(binary: &Binary) -> Result<ProbePlan> {
        binary.functions()?;
        let (mut sites, notes) = gc::sites(binary);
        let wanted =
            |p: &Purpose| matches!(p, Purpose::GcEpoch | Purpose::GcStart { .. } | Purpose::GcRecord);
        sites.retain(|site| wanted(&site.purpose));
        if !sites.iter().any(|site| site.purpose == Purpose::GcRecord) {
            return Err(Error::failed(notes.join("; ")));
        }
        Ok(ProbePlan { sites, notes })
    }

    /// Takes out the sites that would copy the runtime's records of GC cycles, when these
    /// cannot be read, and notes why.
    pub fn leave_out_gc_records(&mut self, why: &str) {
        let records = |purpose: &Purpose| matches!(purpose, Purpose::GcRecord | Purpose::GcStart { .. });
        self.sites.retain(|site| !records(&site.purpose));
        self.notes.push(format!("{}: {why}", gc::NO_TIMELINE));
    }

    /// Without a goroutine's next allocation nothing tells what its assists were for.
    pub fn leave_out_assists(&mut self) {
        let assists = |purpose: &Purpose| matches!(purpose, Purpose::AssistBegin | Purpose::AssistEnd);
        self.sites.retain(|site| !assists(&site.purpose));
    }

    fn add_allocation_sites(&mut self, binary: &Binary, function: &Function<'_>) {
        let name = function.name;
        let flow = probed(binary, function);
        let found = match &flow {
            None => Err("its machine code could not be analysed"),
            Some(flow) => alloc::sites(flow, name, &|target| binary.name_at(target)),
        };
        match (found, flow) {
            (Ok(found), Some(flow)) => {
                let sites = found
                    .into_iter()
                    .filter_map(|f| site(binary, function, &flow, f.address, Purpose::Alloc(f.recipe)));
                self.sites.extend(sites);
            }
            (Err(why), _) => {
                self.notes.push(format!("{name}: no site found ({why}): its objects will be missing"))
            }
            (Ok(_), None) => {}
        }
    }

    /// Whether only the runtime's own samples are seen, not every object.
    pub fn is_sampled(&self) -> bool {
        self.sites.iter().any(|site| site.function == sampler::FUNCTION)
    }

    /// Whether some objects' type or size must be decoded from call sites.
    pub fn needs_call_sites(&self) -> bool {
        self.sites.iter().any(|s| matches!(&s.purpose, Purpose::Alloc(r) if r.needs_call_site()))
    }
}

impl Recipe {
    /// Whether type or size must be decoded from the call site.
    pub fn needs_call_site(&self) -> bool {
        self.size == Place::None || self.type_ == Place::None
    }
}

/// Where an instruction of an allocation function can read each value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable {
    pub ptr: Vec<Place>,
    pub size: Vec<Place>,
    pub type_: Vec<Place>,
}

/// Every place where the values of an allocation lie at an instruction, of which the plan
/// would choose the cheapest; a stack slot is given by each base. `None` when there is no
/// such function or instruction, or no completed object passes it.
pub fn readable_at(binary: &Binary, function: &str, offset: u32) -> Option<Readable> {
    let function = binary.functions().ok()?.by_name(function)?;
    let flow = probed(binary, &function)?;
    let address = function.start.checked_add(u64::from(offset))?;
    alloc::readable(&flow, address, &|target| binary.name_at(target))
}

/// The dataflow of a function to be probed; `None` also when it is longer than such are:
/// the search for sites takes time with the square of the length.
fn probed<'a>(binary: &'a Binary, function: &Function<'_>) -> Option<Flow<'a>> {
    const MAX_PROBED: u64 = 16 << 10;
    let len = function.end.checked_sub(function.start)?;
    (len <= MAX_PROBED).then(|| call_site::analyse(binary, function))?
}

fn site(
    binary: &Binary,
    function: &Function<'_>,
    flow: &Flow,
    address: u64,
    purpose: Purpose,
) -> Option<Site> {
    let instruction = flow.instruction(address)?;
    Some(Site {
        function: function.name.to_owned(),
        offset: u32::try_from(address - function.start).ok()?,
        address,
        file_offset: binary.file_offset(address)?,
        instruction: describe(binary, instruction),
        cost: alloc::cost_class(instruction),
        purpose,
    })
}

/// The instruction for people: its mnemonic and, for a call, who is called.
fn describe(binary: &Binary, instruction: &Instruction) -> String {
    let mnemonic = format!("{:?}", instruction.mnemonic()).to_lowercase();
    match instruction.flow_control() {
        FlowControl::Call => match binary.name_at(instruction.near_branch_target()) {
            Some(callee) => format!("{mnemonic} {callee}"),
            None => mnemonic,
        },
        FlowControl::Next => format!("{mnemonic} {:?}", instruction.op0_register()).to_lowercase(),
        _ => mnemonic,
    }
}
