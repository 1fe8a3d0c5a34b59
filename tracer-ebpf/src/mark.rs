//! Functions and lines of the target that the user has marked.

use aya_ebpf::programs::ProbeContext;
use tracer_common::{Header, MarkRecord, Recipe};

use crate::{EVENTS, G_GOID, read, regs, send};

/// Where runtime.g, whose first field is `stack`, has its `hi` (runtime/runtime2.go).
const G_STACK_HI: u64 = 8;

#[inline(always)]
pub fn passed(ctx: &ProbeContext, recipe: &Recipe) {
    let wake = send::count_hit();
    let regs = regs(ctx);
    let window = read::Window::closed();
    if recipe.slot.arg != 0 {
        send::count_stepped();
    }
    let called_at =
        read::place(regs, &window, &recipe.ptr).wrapping_add(read::place(regs, &window, &recipe.size));
    let g = regs.r14;
    let goroutine = match read::word(g.wrapping_add(u64::from(G_GOID.load()))) {
        0 => g,
        goid => goid,
    };
    let record = MarkRecord {
        header: send::header(Header::MARK, recipe, send::epoch()),
        time_ns: send::now(),
        goroutine,
        depth: read::word(g.wrapping_add(G_STACK_HI)).wrapping_sub(called_at),
    };
    if EVENTS.output::<MarkRecord>(&record, wake).is_err() {
        send::count_lost_event();
    }
}
