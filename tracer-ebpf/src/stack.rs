//! The frame-pointer walk: hashing a stack, and sending its frames once.

use core::{arch::asm, ptr::write_volatile};

use aya_ebpf::{macros::map, maps::Array};
use tracer_common::{Header, MAX_DEPTH, StackRecord};

use crate::{DEPTH, EVENTS, read, send};

macro_rules! repeat_128 {
    ($block:block) => {
        repeat_128!(@4 repeat_128!(@4 repeat_128!(@4 { $block $block })))
    };
    (@4 $($body:tt)*) => {{ $($body)*; $($body)*; $($body)*; $($body)*; }};
}

/// Hashes of the stacks whose frames were submitted: a set-associative cache, newest
/// first, that needs no helper call to look up. What falls out is sent again when it is
/// next needed, and so is what two CPUs store at the same moment: harmless.
#[map]
static SENT: Array<[u64; WAYS]> = Array::with_max_entries(SETS, 0);
const SETS: u32 = 1 << 14;
const WAYS: usize = 4;

/// Walks the stack whose innermost frame begins at `rbp`, sends its frames unless they
/// were sent before, and returns its hash: 0 when it has none.
#[inline(always)]
pub fn hash_and_send(rbp: u64, window: &mut read::Window, wake: u64) -> u64 {
    let hash = hash(rbp, window);
    send(0, rbp, hash, wake)
}

/// As [`hash_and_send`], of a stack with the return address `first` inside of all others,
/// walked by one read for each frame.
#[inline(always)]
pub fn hash_and_send_behind(first: u64, rbp: u64, wake: u64) -> u64 {
    send(first, rbp, walk(first, rbp, |_, _| {}).hash, wake)
}

/// Sends the frames unless they were sent before; returns the hash, or 0 when it is of none.
#[inline(always)]
fn send(first: u64, rbp: u64, hash: u64, wake: u64) -> u64 {
    if hash == SEED {
        return 0;
    }
    let Some(set) = SENT.get_ptr_mut(hash as u32 % SETS) else {
        return hash;
    };
    // SAFETY: the pointer is into the map; whole words, so a racing CPU's are not torn.
    let set = unsafe { &mut *set };
    if set[0] == hash || set[1] == hash || set[2] == hash || set[3] == hash {
        return hash;
    }
    if send_frames(first, rbp, hash, wake) {
        *set = [hash, set[0], set[1], set[2]];
    } else {
        send::count_lost_stack();
    }
    hash
}

/// A walk along the frame pointers, outwards.
struct Walk {
    frame: u64,
    /// Return addresses met.
    depth: usize,
    hash: u64,
    /// Steps to a lower address.
    descents: u64,
}

/// The hash of no return addresses.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

impl Walk {
    #[inline(always)]
    fn from(rbp: u64) -> Walk {
        Walk { frame: rbp, depth: 0, hash: SEED, descents: 0 }
    }

    /// Takes the return address at the current frame and goes on to the next one; false
    /// when there is none.
    #[inline(always)]
    fn step(&mut self, [next, pc]: [u64; 2]) -> bool {
        if pc == 0 {
            return false;
        }
        self.hash = mix(self.hash, pc);
        self.depth += 1;
        // Frames grow towards higher addresses, except where systemstack (Go 1.21 to
        // 1.24) chains g0's stack to the goroutine's, once.
        self.descents += not_above(next, self.frame);
        self.frame = next;
        next != 0 && next % 8 == 0 && self.descents <= 1
    }
}

/// 1 if `next` is not above `frame`, else 0. Without a branch, and without comparing the
/// two: either would give the verifier more states to follow.
#[inline(always)]
fn not_above(next: u64, frame: u64) -> u64 {
    let mut sign = next.wrapping_sub(frame).wrapping_sub(1);
    // SAFETY: arithmetic; written out, as the compiler would make it a branch.
    unsafe { asm!("{0} >>= 63", inout(reg) sign, options(pure, nomem, nostack)) };
    sign
}

/// The hash of the stack's return addresses; `SEED` when there are none.
#[inline(always)]
fn hash(rbp: u64, window: &mut read::Window) -> u64 {
    if window.is_open()
        && let Some(hash) = hash_in_windows(rbp, window)
    {
        return hash;
    }
    walk(0, rbp, |_, _| {}).hash
}

/// `None` when a block cannot be read, which does not mean that the frame in it cannot.
///
/// Unrolled: the verifier forgets states of a loop that it meets again in every round,
/// and then follows each combination of the branches inside.
#[inline(always)]
fn hash_in_windows(rbp: u64, window: &mut read::Window) -> Option<u64> {
    let limit = DEPTH.load() as usize;
    let mut walk = Walk::from(rbp);
    repeat_128!({
        if walk.depth >= limit {
            return Some(walk.hash);
        }
        let Ok(words) = window.pair(walk.frame) else {
            return None;
        };
        if !walk.step(words) {
            return Some(walk.hash);
        }
    });
    Some(walk.hash)
}

/// Walks by one read for each frame, and calls `visit` with each number and word that
/// may be a return address; as many of them are as the walk is deep. `first`, unless 0, is
/// a return address before those.
#[inline(always)]
fn walk(first: u64, rbp: u64, mut visit: impl FnMut(usize, u64)) -> Walk {
    let mut walk = Walk::from(rbp);
    if first != 0 {
        visit(0, first);
        walk.hash = mix(walk.hash, first);
        walk.depth = 1;
    }
    while walk.depth < MAX_DEPTH && walk.depth < DEPTH.load() as usize {
        let Ok(words) = read::pair(walk.frame) else {
            break;
        };
        visit(walk.depth, words[1]);
        if !walk.step(words) {
            break;
        }
    }
    walk
}

/// Walks once more, writing straight into the ring: seldom, and it needs no scratch
/// memory. The thread is stopped in the trap, so its stack is the same.
#[inline(always)]
fn send_frames(first: u64, rbp: u64, hash: u64, wake: u64) -> bool {
    let Some(mut entry) = EVENTS.reserve::<StackRecord>(0) else {
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved memory of that type, and the walk stays below
    // `MAX_DEPTH`. Volatile: the compiler must not make it a call of memset or memcpy.
    let walk = walk(first, rbp, |i, pc| unsafe { write_volatile(&raw mut (*record).frames[i], pc) });
    if walk.hash != hash {
        entry.discard(0);
        return false;
    }
    // SAFETY: as above. Frames beyond `depth` keep what the ring held before, which is
    // older records; nobody reads them.
    unsafe {
        (*record).header = Header { kind: Header::STACK, site: 0, cpu: 0, epoch: walk.depth as u32 };
        (*record).hash = hash;
    }
    entry.submit(wake);
    true
}

/// One step of the hash: a multiplication by an odd constant with good avalanche (from
/// the rrmxmx mixer) and a shift that brings the high bits down.
#[inline(always)]
fn mix(hash: u64, pc: u64) -> u64 {
    let mixed = (hash ^ pc).wrapping_mul(0x9fb2_1c65_1e98_df25);
    mixed ^ (mixed >> 32)
}
