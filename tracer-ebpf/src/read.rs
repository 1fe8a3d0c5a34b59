//! Reading the target: memory, the values a recipe names, the goroutine's id.

use aya_ebpf::{bindings::pt_regs, helpers::generated::bpf_probe_read_user};
use tracer_common::Place;

use crate::{G_GOID, G_M, M_CURG};

/// The first words of the trapped function's frame, from rbp up: the saved frame
/// pointer, the return address, and the first two words of the caller's frame, where
/// Go spills the first register arguments (size and type of an allocation).
pub struct Head(pub [u64; 4]);

impl Head {
    /// All zeroes when the memory is not readable (the helper clears it).
    #[inline(always)]
    pub fn at(rbp: u64) -> Head {
        let mut words = [0; 4];
        let _unreadable = user(rbp, &mut words);
        Head(words)
    }
}

/// Fills `words` from the target's memory; zeroes and `Err` when it is not readable.
#[inline(always)]
pub fn user<const N: usize>(address: u64, words: &mut [u64; N]) -> Result<(), ()> {
    // SAFETY: the destination is `N` words long; the helper checks the source.
    match unsafe { bpf_probe_read_user(words.as_mut_ptr().cast(), (N * 8) as u32, address as *const _) } {
        0 => Ok(()),
        _ => Err(()),
    }
}

#[inline(always)]
fn word(address: u64) -> u64 {
    let mut words = [0];
    let _unreadable = user(address, &mut words);
    words[0]
}

/// The value at `place`; 0 when it is not readable.
#[inline(always)]
pub fn place(regs: &pt_regs, head: &Head, place: &Place) -> u64 {
    match place.kind {
        Place::CONST => place.arg,
        Place::REG => register(regs, place.arg),
        // The two places Go spills size and type to need no read of their own.
        Place::FRAME if place.arg == 16 => head.0[2],
        Place::FRAME if place.arg == 24 => head.0[3],
        Place::FRAME => word(regs.rbp.wrapping_add(place.arg)),
        Place::STACK => word(regs.rsp.wrapping_add(place.arg)),
        _ => 0,
    }
}

/// A general register by its x86-64 encoding. The loads are volatile so that the
/// compiler keeps sixteen of them: the verifier refuses one load at a computed offset
/// of the context.
#[inline(always)]
fn register(regs: &pt_regs, number: u64) -> u64 {
    macro_rules! load {
        ($($n:literal $field:ident)*) => {
            match number {
                // SAFETY: a field of a valid reference.
                $($n => unsafe { core::ptr::read_volatile(&raw const regs.$field) },)*
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
