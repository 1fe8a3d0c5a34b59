//! How fast the model takes allocation events in.

mod common;

use divan::Bencher;
use divan::counter::ItemsCount;
use tracer::event::Event;
use tracer::model::State;

const EVENTS: u64 = 1_000_000;

fn main() {
    divan::main();
}

#[divan::bench(sample_count = 10)]
fn aggregate(bencher: Bencher) {
    let events: Vec<Event> = common::allocations(EVENTS).map(Event::Alloc).collect();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let mut state = State::default();
        events.iter().for_each(|event| state.apply(event));
        state
    });
}
