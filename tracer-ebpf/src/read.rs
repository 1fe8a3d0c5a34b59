//! Reading the target: its stack, and the values a recipe names.

use core::{arch::asm, mem::MaybeUninit, ptr::null_mut};

use aya_ebpf::{bindings::pt_regs, helpers::generated::bpf_probe_read_user, macros::map, maps::PerCpuArray};
use tracer_common::Place;

use crate::WINDOWS;

/// Most bytes of the stack that are read at once: a read's price is the call, not the bytes.
const WINDOW: u64 = 1016;

/// All bits of a number of bytes up to [`WINDOW`], by which the verifier knows its bounds.
const BITS: u64 = 1023;

/// What is not read at once is not read beyond: the next page may not be there.
const PAGE: u64 = 4096;

/// Where the bytes of a window lie. Of each CPU one run of the program may have it.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

struct Scratch {
    /// 1 while a run has it: another task may preempt that one and run the program, too.
    taken: u64,
    words: [u64; BITS as usize / 8 + 2],
}

/// A part of the target's stack, read at once; nothing at first.
pub struct Window {
    /// Null: words are read one by one.
    scratch: *mut Scratch,
    /// The address of the first word.
    start: u64,
    /// How many bytes of it hold the first word of a pair.
    bytes: u64,
}

impl Window {
    pub fn closed() -> Window {
        Window { scratch: null_mut(), start: 0, bytes: 0 }
    }

    /// What the stack holds from `address` on, if this run can have the CPU's scratch memory.
    #[inline(always)]
    pub fn open(address: u64) -> Window {
        let mut window = Window::closed();
        if WINDOWS.load() != 0
            && let Some(scratch) = SCRATCH.get_ptr_mut(0)
        {
            let mut taken = 1u64;
            // SAFETY: the entry lives as long as the program; all runs of it take turns by this.
            unsafe { asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) taken, in(reg) scratch) };
            if taken == 0 {
                window.scratch = scratch;
                let _word_by_word = window.move_to(address);
            }
        }
        window
    }

    /// Lets others have the memory.
    #[inline(always)]
    pub fn close(self) {
        if !self.scratch.is_null() {
            // SAFETY: this run has it until now.
            unsafe { (&raw mut (*self.scratch).taken).write_volatile(0) };
        }
    }

    pub fn is_open(&self) -> bool {
        !self.scratch.is_null()
    }

    #[inline(always)]
    fn move_to(&mut self, address: u64) -> Result<(), ()> {
        // The two words of a pair may lie on two pages: then both are needed.
        let mut bytes = (PAGE - address % PAGE).min(WINDOW).max(16);
        self.start = address;
        self.bytes = bytes - 8;
        // SAFETY: the mask changes nothing, but tells the verifier that the words have room.
        let read = unsafe {
            asm!("{0} &= 1023", inout(reg) bytes);
            user(address, (&raw mut (*self.scratch).words).cast(), bytes)
        };
        if read.is_err() {
            self.bytes = 0;
        }
        read
    }

    /// The two words at `address`; the window, which must be open, moves there.
    #[inline(always)]
    pub fn pair(&mut self, address: u64) -> Result<[u64; 2], ()> {
        if address.wrapping_sub(self.start) >= self.bytes {
            self.move_to(address)?;
        }
        // SAFETY: that is where the words were read to.
        Ok(unsafe { self.inside(address) })
    }

    /// The word at `address`; 0 when it is not readable. The window stays.
    #[inline(always)]
    fn word(&self, address: u64) -> u64 {
        if address.wrapping_sub(self.start) < self.bytes {
            // SAFETY: as above.
            unsafe { self.inside(address)[0] }
        } else {
            word(address)
        }
    }

    /// # Safety
    /// The pair at `address` must be in the window.
    #[inline(always)]
    unsafe fn inside(&self, address: u64) -> [u64; 2] {
        let mut offset = address.wrapping_sub(self.start);
        // SAFETY: the mask keeps both words in the memory, and says so to the verifier; the
        // compiler must not optimise it away.
        unsafe {
            asm!("{0} &= 1023", inout(reg) offset);
            let pair = (&raw const (*self.scratch).words).cast::<u64>().byte_add(offset as usize);
            [pair.read_volatile(), pair.add(1).read_volatile()]
        }
    }
}

/// Copies `bytes` of the target's memory; zeroes and `Err` when they are not readable.
///
/// # Safety
/// `words` must have room for them.
#[inline(always)]
unsafe fn user(address: u64, words: *mut u64, bytes: u64) -> Result<(), ()> {
    // SAFETY: the caller's promise; the helper checks the source.
    match unsafe { bpf_probe_read_user(words.cast(), bytes as u32, address as *const _) } {
        0 => Ok(()),
        _ => Err(()),
    }
}

/// Two words at `address`.
#[inline(always)]
pub fn pair(address: u64) -> Result<[u64; 2], ()> {
    let mut pair = MaybeUninit::<[u64; 2]>::uninit();
    // SAFETY: two words, which the helper fills.
    unsafe {
        user(address, pair.as_mut_ptr().cast(), 16)?;
        Ok(pair.assume_init())
    }
}

/// The word at `address`; 0 when it is not readable.
#[inline(always)]
pub fn word(address: u64) -> u64 {
    let mut word = 0;
    // SAFETY: one word.
    let _zero = unsafe { user(address, &raw mut word, 8) };
    word
}

/// The value at `place`; 0 when it is not readable.
#[inline(always)]
pub fn place(regs: &pt_regs, window: &Window, place: &Place) -> u64 {
    match place.kind {
        Place::CONST => place.arg,
        Place::REG => register(regs, place.arg),
        Place::FRAME => window.word(regs.rbp.wrapping_add(place.arg)),
        Place::STACK => window.word(regs.rsp.wrapping_add(place.arg)),
        _ => 0,
    }
}

/// A general register by its x86-64 encoding. Each load is written out: the verifier
/// refuses loads at a computed offset of the context, into which the compiler merges
/// even volatile ones.
#[inline(always)]
fn register(regs: &pt_regs, number: u64) -> u64 {
    macro_rules! load {
        ($($n:literal $field:ident)*) => {
            match number {
                $($n => {
                    let value;
                    // SAFETY: reads one field of a valid reference.
                    unsafe {
                        asm!(
                            "{value} = *(u64 *)({regs} + {field})",
                            value = out(reg) value,
                            regs = in(reg) regs,
                            field = const core::mem::offset_of!(pt_regs, $field),
                            options(pure, readonly, nostack),
                        );
                    }
                    value
                })*
                _ => 0,
            }
        };
    }
    load! {
        0 rax 1 rcx 2 rdx 3 rbx 4 rsp 5 rbp 6 rsi 7 rdi
        8 r8 9 r9 10 r10 11 r11 12 r12 13 r13 14 r14 15 r15
    }
}
