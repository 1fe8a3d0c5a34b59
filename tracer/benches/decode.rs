//! How fast captures are written, read, and reported.

mod common;

use divan::Bencher;
use divan::counter::ItemsCount;
use tracer::capture::{Reader, Writer};
use tracer::detect;
use tracer::event::Event;
use tracer::model::State;
use tracer::source::Replay;

const EVENTS: u64 = 1_000_000;

fn main() {
    divan::main();
}

fn events() -> Vec<Event> {
    common::allocations(EVENTS).map(Event::Alloc).collect()
}

fn encode(events: &[Event]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), "memory").expect("header");
    events.iter().for_each(|event| writer.write(event).expect("event"));
    writer.finish().expect("last frame")
}

#[divan::bench(sample_count = 10)]
fn write(bencher: Bencher) {
    let events = events();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| encode(&events));
}

#[divan::bench(sample_count = 10)]
fn read(bencher: Bencher) {
    let file = encode(&events());
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let mut reader = Reader::new(file.as_slice(), "memory").expect("capture");
        let mut events = 0;
        while let Some(event) = reader.next_event().expect("memory") {
            divan::black_box(event);
            events += 1;
        }
        assert_eq!(events, EVENTS);
    });
}

/// All that `heaptap report` does before it prints.
#[divan::bench(sample_count = 10)]
fn report(bencher: Bencher) {
    let file = encode(&events());
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let mut state = State::default();
        for event in Replay::new(Reader::new(file.as_slice(), "memory").expect("capture")) {
            state.apply(&event.expect("memory"));
        }
        detect::report(&state)
    });
}
