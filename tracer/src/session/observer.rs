//! Who has asked for a recording, and is told of it.

use crate::base::Result;
use crate::event::Event;
use crate::model::State;

/// Who is told of a recording while it goes on.
pub trait Observer {
    /// Called with what is worth knowing at once: before anything is written to the process, and
    /// when no allocations are recorded any more.
    fn announce(&mut self, text: &str);
    /// Called once, when the probes are in place.
    ///
    /// # Errors
    /// When there is nothing to record then.
    fn ready(&mut self) -> Result<()>;
    /// Called with each event, once `state` has taken it into account.
    fn event(&mut self, _event: &Event, _state: &State) {}
    /// Called every second.
    fn second(&mut self, state: &State);
    /// The phases that have begun since this was last asked, in order: asked every second.
    fn phases(&mut self) -> Vec<String> {
        Vec::new()
    }
    /// Whether the recording is to end.
    fn has_enough(&self) -> bool {
        false
    }
}
