//! Reading the target: its stack, the values a recipe names, the goroutine's id.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{bindings::pt_regs, helpers::generated::bpf_probe_read_user};
use tracer_common::Place;

use crate::{G_GOID, G_M, M_CURG, WINDOWS};

/// Bytes of the stack that are read at once, a power of two: a read's price is the call,
/// not the bytes. 256 hold some four frames, and leave room on the program's own stack
/// of 512.
const BLOCK: u64 = 256;

/// The place of no block.
const NOT_OPEN: u64 = 1;

/// An aligned block of the target's stack and the word below it, so that every pair of
/// words whose second one lies in the block is inside. Of an aligned block only that word
/// can lie in a page that is not there.
pub struct Window {
    block: u64,
    words: MaybeUninit<[u64; BLOCK as usize / 8 + 1]>,
}

impl Window {
    /// To be opened: filled in place, as a move would copy it.
    #[inline(always)]
    pub fn closed() -> Window {
        Window { block: NOT_OPEN, words: MaybeUninit::uninit() }
    }

    /// Reads the block that the pair at `address` is in.
    #[inline(always)]
    pub fn open(&mut self, address: u64) -> Result<(), ()> {
        self.block = block(address);
        // SAFETY: the array is that long.
        let read =
            unsafe { user(self.block.wrapping_sub(8), self.words.as_mut_ptr().cast(), BLOCK as usize + 8) };
        if read.is_err() {
            // The word below an aligned block may lie in a page that the stack has not yet
            // reached: that says nothing of the words in the block.
            self.block = NOT_OPEN;
        }
        read
    }

    /// The two words at `address`; the window moves there.
    #[inline(always)]
    pub fn pair(&mut self, address: u64) -> Result<[u64; 2], ()> {
        if block(address) != self.block {
            self.open(address)?;
        }
        // SAFETY: the block was read.
        Ok(unsafe { self.inside(address) })
    }

    /// The word at `address`; 0 when it is not readable. The window stays.
    #[inline(always)]
    fn word(&self, address: u64) -> u64 {
        if WINDOWS.load() != 0 && block(address) == self.block {
            // SAFETY: the block was read.
            unsafe { self.inside(address)[0] }
        } else {
            word(address)
        }
    }

    /// # Safety
    /// The block must be that of `address`, and have been read.
    #[inline(always)]
    unsafe fn inside(&self, address: u64) -> [u64; 2] {
        let mut offset = address.wrapping_add(8);
        // SAFETY: the mask keeps both words in the array, and says so to the verifier,
        // which also insists on alignment; the compiler must not optimise it away.
        unsafe {
            asm!("{0} &= 248", inout(reg) offset);
            let pair = self.words.as_ptr().cast::<u64>().byte_add(offset as usize);
            [pair.read_volatile(), pair.add(1).read_volatile()]
        }
    }
}

/// The block that the pair at `address` is in, by its first address.
#[inline(always)]
fn block(address: u64) -> u64 {
    address.wrapping_add(8) & !(BLOCK - 1)
}

/// Copies `bytes` of the target's memory; zeroes and `Err` when they are not readable.
///
/// # Safety
/// `words` must have room for them.
#[inline(always)]
unsafe fn user(address: u64, words: *mut u64, bytes: usize) -> Result<(), ()> {
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

/// The goroutine on whose behalf the code runs: r14 is g in Go code (ABIInternal), and
/// on a thread's own g0, whose id is 0, `g.m.curg` is the goroutine that switched to it.
#[inline(always)]
pub fn goid(regs: &pt_regs) -> u64 {
    let g = regs.r14;
    let id = word(g.wrapping_add(u64::from(G_GOID.load())));
    if id != 0 {
        return id;
    }
    let m = word(g.wrapping_add(u64::from(G_M.load())));
    let curg = word(m.wrapping_add(u64::from(M_CURG.load())));
    word(curg.wrapping_add(u64::from(G_GOID.load())))
}
