//! Where the runtime's global variables are: by symbol, else from its machine code.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions};

use super::layout::Layout;
use crate::base::{Error, Result};
use crate::binary::Binary;

/// A global variable of package runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `allfin *finBlock`
    Allfin,
    /// `allglen uintptr`: how many pointers lie at `allgptr`
    AllgLen,
    /// `allgptr **g`
    AllgPtr,
    /// `allp []*p`
    Allp,
    /// `gcBlackenEnabled uint32`
    GcBlackenEnabled,
    /// `gcCleanups cleanupQueue`, from Go 1.25 on
    GcCleanups,
    /// `gcController gcControllerState`
    GcController,
    /// `mProfCycle mProfCycleHolder`, a u32
    MProfCycle,
    /// `mbuckets *bucket`
    Mbuckets,
    /// `MemProfileRate int`
    MemProfileRate,
    /// `memstats mstats`
    Memstats,
    /// `mheap_ mheap`
    Mheap,
    /// `runtimeInitTime int64`
    RuntimeInitTime,
    /// `sched schedt`
    Sched,
    /// `waitReasonStrings [...]string`
    WaitReasonStrings,
    /// `work workType`
    Work,
}

impl Global {
    pub const ALL: [Global; 16] = [
        Global::Allfin,
        Global::AllgLen,
        Global::AllgPtr,
        Global::Allp,
        Global::GcBlackenEnabled,
        Global::GcCleanups,
        Global::GcController,
        Global::MProfCycle,
        Global::Mbuckets,
        Global::MemProfileRate,
        Global::Memstats,
        Global::Mheap,
        Global::RuntimeInitTime,
        Global::Sched,
        Global::WaitReasonStrings,
        Global::Work,
    ];

    /// The linker's name for it.
    pub fn symbol(self) -> &'static str {
        self.clue().symbol
    }

    /// Its link-time address: from `.symtab`, else from machine code that uses it.
    ///
    /// # Errors
    /// Failed when neither tells a plausible address.
    pub fn locate(self, binary: &Binary, layout: &Layout) -> Result<u64> {
        let symbol = self.symbol();
        let place = data_range(binary);
        let plausible = |addr: &u64| match &place {
            Some(range) => range.contains(addr) && addr.is_multiple_of(self.clue().align),
            None => false,
        };
        if let Some(found) = binary.symbol(symbol).map(|s| s.addr).filter(plausible) {
            log::debug!("{symbol}: {found:#x} from .symtab");
            return Ok(found);
        }
        if let Some(found) = self.derive(binary, layout).filter(plausible) {
            log::debug!("{symbol}: {found:#x} from the code of {}", self.clue().function);
            return Ok(found);
        }
        log::debug!("{symbol}: not found, data at {place:x?}");
        Err(Error::failed(format!("cannot find {symbol} in the program")))
    }

    /// The address as the code of a function that uses the variable has it.
    fn derive(self, binary: &Binary, layout: &Layout) -> Option<u64> {
        let clue = self.clue();
        let function = binary.functions().ok()?.by_name(clue.function)?;
        let size = usize::try_from(function.end.checked_sub(function.start)?).ok()?.min(MAX_CODE);
        let code = binary.read(function.start, size)?;
        let decoder = Decoder::with_ip(64, code, function.start, DecoderOptions::NONE);
        let mut operands = decoder
            .into_iter()
            .filter(|instruction| instruction.is_ip_rel_memory_operand())
            .map(|instruction| instruction.ip_rel_memory_address());
        operands.nth(clue.operand)?.checked_sub((clue.inside)(layout))
    }

    fn clue(self) -> Clue {
        let whole = |_: &Layout| 0;
        let clue = |symbol, function, operand| Clue { symbol, function, operand, inside: whole, align: 8 };
        match self {
            Global::Allfin => clue("runtime.allfin", "runtime.queuefinalizer", 6),
            Global::AllgLen => clue("runtime.allglen", "runtime.forEachGRace", 0),
            Global::AllgPtr => clue("runtime.allgptr", "runtime.forEachGRace", 1),
            Global::Allp => clue("runtime.allp", "runtime.gcMarkTinyAllocs", 0),
            Global::GcBlackenEnabled => {
                Clue { align: 4, ..clue("runtime.gcBlackenEnabled", "runtime.gcParkAssist", 1) }
            }
            Global::GcCleanups => clue("runtime.gcCleanups", "runtime.(*activeSweep).end", 11),
            Global::GcController => Clue {
                inside: |layout| layout.gc_controller.mapped_ready,
                ..clue("runtime.gcController", "runtime.sysAlloc", 0)
            },
            Global::Mbuckets => clue("runtime.mbuckets", "runtime.mProf_FlushLocked", 0),
            Global::MProfCycle => Clue { align: 4, ..clue("runtime.mProfCycle", "runtime.mProf_Flush", 0) },
            Global::MemProfileRate => clue("runtime.MemProfileRate", "runtime.profilealloc", 1),
            Global::Memstats => Clue {
                inside: |layout| layout.memstats.buckhash_sys,
                ..clue("runtime.memstats", "runtime.newBucket", 0)
            },
            Global::Mheap => Clue {
                inside: |layout| layout.mheap_sweepgen,
                ..clue("runtime.mheap_", "runtime.(*mcentral).uncacheSpan", 0)
            },
            Global::RuntimeInitTime => clue("runtime.runtimeInitTime", "runtime.main", 5),
            Global::Sched => {
                Clue { inside: |layout| layout.sched.mnext, ..clue("runtime.sched", "runtime.mReserveID", 0) }
            }
            Global::WaitReasonStrings => clue("runtime.waitReasonStrings", "runtime.waitReason.String", 1),
            Global::Work => clue("runtime.work", "runtime.putfull", 0),
        }
    }
}

/// How machine code betrays a variable's address. Measured on Go 1.19 to 1.27, static,
/// PIE and externally linked.
struct Clue {
    symbol: &'static str,
    function: &'static str,
    /// Which RIP-relative operand of the function, from 0.
    operand: usize,
    /// How far inside the variable that operand points.
    inside: fn(&Layout) -> u64,
    align: u64,
}

/// More code than any function looked at has; a longer one is damage.
const MAX_CODE: usize = 64 << 10;

/// Where the program's variables lie: data and bss, with and without pointers. A C linker
/// puts data without pointers last, Go's first.
fn data_range(binary: &Binary) -> Option<Range<u64>> {
    binary.moduledata().map(|m| m.noptrdata.min(m.data)..m.end)
}
