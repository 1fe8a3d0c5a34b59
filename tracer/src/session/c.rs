//! What C allocates, next to what Go does: the probes on its allocator, and their sums as events.

use crate::base::units::format_count;
use crate::base::{Noted, Result, monotonic_ns};
use crate::event::{CCounts, Event};
use crate::plan::c_sites;
use crate::runtime::{Layout, tls_offset};
use crate::source::live::{C_OBJECTS, CProbes, GoroutineInC, LiveSource, fs_base_offset};
use crate::target::{Identity, c_allocator};

/// The probes to place, and what is to be said of them before any other event.
///
/// # Errors
/// When the process has no C allocator, or that cannot be probed.
pub(super) fn probes(target: &Identity, layout: &Layout) -> Result<(CProbes, Vec<Event>)> {
    let allocator = c_allocator(target)?;
    let (sites, notes) = c_sites(&allocator.library)?;
    let Noted { value: goroutine, notes: more } = goroutine(target, layout);
    let mut events = vec![Event::FollowC { library: allocator.path }];
    events.extend(notes.into_iter().chain(more).map(Event::Note));
    Ok((CProbes { file: allocator.file.into(), load_bias: allocator.load_bias, sites, goroutine }, events))
}

/// Where it cannot be found, only the calling C function is known.
fn goroutine(target: &Identity, layout: &Layout) -> Noted<Option<GoroutineInC>> {
    let found = tls_offset(&target.binary).and_then(|tls| {
        Ok(GoroutineInC { tls, sched_bp: layout.g.sched_bp as u32, fs_base: fs_base_offset()? })
    });
    match found {
        Ok(found) => Noted::new(Some(found)),
        Err(e) => {
            Noted { value: None, notes: vec![format!("which goroutines C allocates for is unknown: {e}")] }
        }
    }
}

/// The sums by now.
pub(super) fn counts(source: &mut LiveSource) -> Result<Event> {
    Ok(Event::CCounts(CCounts { time_ns: monotonic_ns(), stacks: source.c_counted()? }))
}

/// What is missing in them.
pub(super) fn left_out(source: &LiveSource) -> Result<Option<Event>> {
    let count = source.c_left_out()?;
    Ok((count > 0).then(|| {
        Event::Note(format!(
            "C allocations left out, as more than {} objects were alive at once or came from too many \
             stacks: {}",
            format_count(u64::from(C_OBJECTS)),
            format_count(count)
        ))
    }))
}
