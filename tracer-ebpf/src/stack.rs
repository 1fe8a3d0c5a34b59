//! The frame-pointer walk: hashing a stack, and sending its frames once.

use core::ptr::write_volatile;

use aya_ebpf::{macros::map, maps::Array};
use tracer_common::{Header, MAX_DEPTH, SHORT_DEPTH, StackRecord};

use crate::{DEPTH, EVENTS, read, send};

/// Hashes of the stacks whose frames were submitted: a set-associative cache, newest
/// first, that needs no helper call to look up. What falls out is sent again when it is
/// next needed, and so is what two CPUs store at the same moment: harmless.
#[map]
static SENT: Array<[u64; WAYS]> = Array::with_max_entries(SETS, 0);
const SETS: u32 = 1 << 14;
const WAYS: usize = 4;

/// Walks the stack whose innermost frame begins at `rbp` with the words `head`, sends
/// its frames unless they were sent before, and returns its hash: 0 when it has none.
#[inline(always)]
pub fn hash_and_send(rbp: u64, head: &read::Head, wake: u64) -> u64 {
    let (depth, hash) = walk(rbp, head, MAX_DEPTH, |_, _| {});
    if depth == 0 {
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
    let sent = if depth <= SHORT_DEPTH {
        send_frames::<SHORT_DEPTH>(rbp, head, hash, wake)
    } else {
        send_frames::<MAX_DEPTH>(rbp, head, hash, wake)
    };
    if sent {
        *set = [hash, set[0], set[1], set[2]];
    } else {
        send::count_lost_stack();
    }
    hash
}

/// Walks once more, writing straight into the ring: seldom, and it needs no scratch
/// memory. The thread is stopped in the trap, so its stack is the same.
#[inline(always)]
fn send_frames<const N: usize>(rbp: u64, head: &read::Head, hash: u64, wake: u64) -> bool {
    let Some(mut entry) = EVENTS.reserve::<StackRecord<N>>(0) else {
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved memory of that type, and `i` is below N.
    // Volatile: the compiler must not turn the loop into a call of memset or memcpy.
    let frames = unsafe { &raw mut (*record).frames }.cast::<u64>();
    let (depth, again) =
        walk(rbp, head, N, |i, pc| unsafe { write_volatile(frames.add(i), pc) });
    if again != hash {
        entry.discard(0);
        return false;
    }
    // SAFETY: as above. Frames beyond `depth` keep what the ring held before, which is
    // older records; nobody reads them.
    unsafe {
        (*record).header = Header { kind: Header::STACK, site: 0, cpu: 0, epoch: depth as u32 };
        (*record).hash = hash;
    }
    entry.submit(wake);
    true
}

/// Calls `visit` with each return address, innermost first, at most `limit`; returns
/// how many there are and their hash.
#[inline(always)]
fn walk(rbp: u64, head: &read::Head, limit: usize, mut visit: impl FnMut(usize, u64)) -> (usize, u64) {
    let mut frame = rbp;
    let [mut words @ .., _, _] = head.0;
    let mut hash = 0x9e37_79b9_7f4a_7c15;
    let mut depth = 0;
    let mut switched = false;
    while depth < limit && depth < DEPTH.load() as usize {
        let [next, pc] = words;
        if pc == 0 {
            break;
        }
        visit(depth, pc);
        hash = mix(hash, pc);
        depth += 1;
        if next == 0 || next % 8 != 0 {
            break;
        }
        // Frames grow towards higher addresses, except where systemstack (Go 1.21 to
        // 1.24) chains g0's stack to the goroutine's, once.
        if next <= frame {
            if switched {
                break;
            }
            switched = true;
        }
        frame = next;
        if read::user(frame, &mut words).is_err() {
            break;
        }
    }
    (depth, hash)
}

/// One step of the hash: a multiplication by an odd constant with good avalanche (from
/// the rrmxmx mixer) and a shift that brings the high bits down.
#[inline(always)]
fn mix(hash: u64, pc: u64) -> u64 {
    let mixed = (hash ^ pc).wrapping_mul(0x9fb2_1c65_1e98_df25);
    mixed ^ (mixed >> 32)
}
