//! Reading the target: its stack, the values a recipe names, the goroutine's id.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{bindings::pt_regs, helpers::generated::bpf_probe_read_user};
use tracer_common::{Place, Recipe};

use crate::{G_GOID, G_M, M_CURG, WINDOWS};

/// Bytes of the stack that are read at once: a read's price is the call, not the bytes.
/// 256 hold some four frames, and leave room on the program's own stack of 512.
const WINDOW_BYTES: usize = 256;

/// A piece of the target's stack.
pub struct Window {
    base: u64,
    /// The last offset from `base` at which two words are inside.
    reach: u64,
    /// One word more than is read, so that two words at any offset the verifier deems
    /// possible are inside.
    words: MaybeUninit<[u64; WINDOW_BYTES / 8 + 1]>,
}

impl Window {
    /// To be opened: filled in place, as a move would copy it.
    #[inline(always)]
    pub fn closed() -> Window {
        Window { base: 0, reach: 0, words: MaybeUninit::uninit() }
    }

    /// Reads the stack from `base` up.
    #[inline(always)]
    pub fn open(&mut self, base: u64) {
        // SAFETY: the array's last word, which no read fills.
        unsafe { self.first().add(WINDOW_BYTES / 8).write_volatile(0) };
        let _zeroes = self.move_to(base);
    }

    #[inline(always)]
    fn first(&mut self) -> *mut u64 {
        self.words.as_mut_ptr().cast()
    }

    /// Two words at `address`, where the window is moved if they are not inside.
    #[inline(always)]
    pub fn pair(&mut self, address: u64) -> Result<[u64; 2], ()> {
        let offset = address.wrapping_sub(self.base);
        if WINDOWS.load() != 0 && offset <= self.reach {
            return Ok(self.inside(offset));
        }
        self.move_to(address)?;
        let words = self.first();
        // SAFETY: they were just read.
        unsafe { Ok([words.read(), words.add(1).read()]) }
    }

    /// The word at `address`; 0 when it is not readable. The window stays.
    #[inline(always)]
    fn word(&self, address: u64) -> u64 {
        let offset = address.wrapping_sub(self.base);
        if WINDOWS.load() != 0 && offset <= self.reach { self.inside(offset)[0] } else { word(address) }
    }

    /// As much as can be read from `base` up: less when the memory behind two words is
    /// not there, or the kernel would not let the window be used.
    #[inline(always)]
    fn move_to(&mut self, base: u64) -> Result<(), ()> {
        self.base = base;
        self.reach = WINDOW_BYTES as u64 - 16;
        let words = self.first();
        // SAFETY: the array is longer than the window.
        if WINDOWS.load() != 0 && unsafe { user(base, words, WINDOW_BYTES) }.is_ok() {
            return Ok(());
        }
        self.reach = 0;
        // SAFETY: as above.
        unsafe { user(base, words, 16) }
    }

    /// The words at an offset of at most `WINDOW_BYTES - 16`.
    #[inline(always)]
    fn inside(&self, mut offset: u64) -> [u64; 2] {
        // SAFETY: the mask keeps both words in the array, and says so to the verifier,
        // which also insists on alignment; the compiler must not optimise it away.
        unsafe {
            asm!("{0} &= 248", inout(reg) offset);
            let pair = self.words.as_ptr().cast::<u64>().byte_add(offset as usize);
            [pair.read_volatile(), pair.add(1).read_volatile()]
        }
    }
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
fn word(address: u64) -> u64 {
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

/// Where the stack is read first so that the recipe's places are in the window.
#[inline(always)]
pub fn window_base(regs: &pt_regs, recipe: &Recipe) -> u64 {
    register(regs, if recipe.below_frame == 0 { 5 } else { 4 })
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
