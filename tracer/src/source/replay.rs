//! The events of a capture file, and what of it could not be read.

use std::io::Read;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use crate::base::Result;
use crate::capture::Reader;
use crate::event::Event;

/// Yields a capture's events, then a note for each thing that is lost of it.
pub struct Replay<R: Read> {
    reader: Reader<R>,
    /// What is lost, known once the events have ended.
    notes: Option<std::vec::IntoIter<String>>,
}

impl<R: Read> Replay<R> {
    pub fn new(reader: Reader<R>) -> Replay<R> {
        Replay { reader, notes: None }
    }
}

impl<R: Read> Iterator for Replay<R> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        if self.notes.is_none() {
            match self.reader.next_event() {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => {}
                // What was read before the input failed still counts.
                Err(e) => {
                    self.notes = Some(Vec::new().into_iter());
                    return Some(Err(e));
                }
            }
        }
        let notes = self.notes.get_or_insert_with(|| self.reader.damage().notes().into_iter());
        notes.next().map(|note| Ok(Event::Note(note)))
    }
}

/// Events are handed over by the thousand, so that doing so costs next to nothing.
const BATCH: usize = 1024;
/// Batches decoded ahead.
const AHEAD: usize = 4;

/// Hands each event to `take`, while a thread of its own makes the next of them: decoding a
/// capture takes about half as long as counting what is in it.
///
/// # Errors
/// The first error among the events.
pub fn for_each(
    events: impl Iterator<Item = Result<Event>> + Send,
    mut take: impl FnMut(&Event),
) -> Result<()> {
    let (batches, decoded) = sync_channel(AHEAD);
    thread::scope(|scope| {
        scope.spawn(move || hand_over(events, &batches));
        for batch in decoded {
            batch?.iter().for_each(&mut take);
        }
        Ok(())
    })
}

/// Sends events by the batch, up to an error; `None`: nobody takes them any more.
fn hand_over(
    events: impl Iterator<Item = Result<Event>>,
    batches: &SyncSender<Result<Vec<Event>>>,
) -> Option<()> {
    let mut batch = Vec::with_capacity(BATCH);
    for event in events {
        match event {
            Ok(event) => batch.push(event),
            Err(e) => return batches.send(Err(e)).ok(),
        }
        if batch.len() == BATCH {
            batches.send(Ok(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))).ok()?;
        }
    }
    batches.send(Ok(batch)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Error;
    use crate::capture::Writer;

    #[test]
    fn what_a_cut_capture_lost_is_its_last_event() {
        let mut writer = Writer::new(Vec::new(), "test").unwrap();
        writer.write(&Event::GcEpoch { epoch: 1, time_ns: 5 }).unwrap();
        let mut bytes = writer.finish().unwrap();
        bytes.extend([0; 9]);
        let reader = Reader::new(bytes.as_slice(), "test").unwrap();
        let events: Vec<Event> = Replay::new(reader).map(Result::unwrap).collect();
        assert_eq!(events[0], Event::GcEpoch { epoch: 1, time_ns: 5 });
        assert!(matches!(&events[1..], [Event::Note(note)] if note.contains("last 9 B")), "{events:?}");
    }

    #[test]
    fn events_are_taken_in_order_up_to_an_error() {
        let epoch = |epoch| Ok(Event::GcEpoch { epoch, time_ns: 1 });
        let mut seen = Vec::new();
        let mut take = |event: &Event| seen.push(event.clone());
        for_each((0..3000).map(epoch), &mut take).unwrap();
        assert_eq!(seen, (0..3000).map(|n| epoch(n).unwrap()).collect::<Vec<_>>());
        // More than is decoded ahead comes behind it.
        let failing = (0..).map(|n| if n == 2000 { Err(Error::failed("gone")) } else { epoch(n) });
        assert_eq!(for_each(failing, |_| ()).unwrap_err().to_string(), "gone");
    }
}
