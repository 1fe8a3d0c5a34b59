//! The events of a capture file, and what of it could not be read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::base::Result;
use crate::capture::Reader;
use crate::event::Event;

/// Yields a capture's events, then a note for each thing that is lost of it.
pub struct Replay<R: Read> {
    reader: Reader<R>,
    /// What is lost, known once the events have ended.
    notes: Option<std::vec::IntoIter<String>>,
}

impl Replay<File> {
    /// Opens the capture file `path`.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open(path: &Path) -> Result<Replay<File>> {
        Reader::open(path).map(Replay::new)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
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
}
