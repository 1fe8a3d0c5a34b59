//! Censuses of processes made of bytes.

use proptest::prelude::*;

use super::super::spans::tests::{memory_of, reader as span_reader, span};
use super::super::unwind::Stack;
use super::*;
use crate::memory::FakeMemory;

const SPECIALS: u64 = 0x50_0000;
const TYPE: u64 = 0x60_0000;
const ELEMENT: u64 = 0x70_0000;

fn goroutine(id: u64, status: Status, stack: Option<usize>) -> Goroutine {
    Goroutine {
        id,
        parent: None,
        status,
        wait_reason: 1,
        wait_since_ns: Some(100 * id),
        is_locked: false,
        go_pc: 7,
        start_pc: if id == 5 { 0x900 } else { 0x800 },
        stack_bytes: 2048 * id,
        stack,
    }
}

#[test]
fn goroutines_are_grouped_by_creation_state_and_stack() {
    let waiting = [1, 2, 3].map(|id| goroutine(id, Status::Waiting, Some(0)));
    let others = [goroutine(4, Status::Running, None), goroutine(5, Status::Waiting, Some(1))];
    let deep: Vec<u64> = (0..100).collect();
    let read = Goroutines {
        all: waiting.into_iter().chain(others).collect(),
        stacks: vec![
            Stack { addresses: vec![10, 20], is_whole: true },
            Stack { addresses: deep, is_whole: true },
        ],
        wait_reasons: [(1, "select".to_owned())].into(),
        read_at_ns: 1000,
    };
    let mut stacks = HashMap::new();
    let (census, runners) = Groups { runners: &[0x900], stacks: &mut stacks }.census(&read);
    assert_eq!((census.count, census.stack_bytes, census.groups.len()), (5, 2048 * 15, 3));
    let group = &census.groups[0];
    assert_eq!((group.count, group.state.as_str(), group.largest_stack_bytes), (3, "select", 3 * 2048));
    assert_eq!(group.oldest_wait_ns, Some(900), "the first has waited longest");
    assert_eq!(group.stack.and_then(|id| stacks.get(&id)), Some(&vec![11, 21]));
    // Of deep stacks both ends are told.
    let [runner] = &runners[..] else { panic!("one calls finalizers: {runners:?}") };
    let pcs = runner.stack.and_then(|id| stacks.get(&id)).expect("its stack");
    assert_eq!((pcs.len(), pcs[INNER - 1], pcs[INNER], pcs.last()), (64, 48, 85, Some(&100)));
}

#[test]
fn only_the_largest_groups_are_told() {
    let all = (0..1000).map(|id| Goroutine { go_pc: id % 100, ..goroutine(id, Status::Running, None) });
    let read = Goroutines { all: all.collect(), ..Goroutines::default() };
    let (census, runners) = Groups { runners: &[], stacks: &mut HashMap::new() }.census(&read);
    assert_eq!((census.count, census.groups.len(), runners.len()), (1000, GROUPS, 0));
    assert!(census.groups.iter().all(|group| group.count == 10 && group.oldest_wait_ns.is_none()));
}

/// A heap of one span whose objects have specials of these kinds.
fn heap(go: &str, kinds: &[u8]) -> (CensusReader<'static>, SpanReader, FakeMemory) {
    let (layout, reader) = (Layout::measured(go).expect(go), span_reader(go));
    let mut memory = memory_of(&reader, &[span(0)]);
    let special = &layout.special;
    let addr = reader.all(&memory).expect("a span").value[0].addr;
    memory.write(SPECIALS, &vec![0; 0x40 * (kinds.len() + 1)]);
    memory.write_u64(addr + special.first, if kinds.is_empty() { 0 } else { SPECIALS });
    for (n, kind) in (0..).zip(kinds) {
        let at = SPECIALS + 0x40 * n;
        let next = if n + 1 < kinds.len() as u64 { at + 0x40 } else { 0 };
        memory.write(at + special.offset, &(8 * n as u16).to_le_bytes()).write(at + special.kind, &[*kind]);
        memory.write_u64(at + special.next, next).write_u64(at + special.finalizer_type, TYPE);
    }
    memory.write_u64(TYPE + layout.types.str + 8, ELEMENT);
    let queues = QueueReader::nowhere(&layout);
    let census =
        CensusReader { goroutines: None, memstats: None, spans: None, queues, layout, runners: Vec::new() };
    (census, reader, memory)
}

#[test]
fn finalizers_are_counted_by_type_and_cleanups() {
    for (go, kinds, cleanups) in [
        ("go1.19.8", [1, 2, 1, 1], 0),
        ("go1.23.9", [1, 3, 1, 1], 0),
        ("go1.24.11", [1, 6, 1, 1], 1),
        ("go1.27.3", [2, 7, 2, 2], 1),
    ] {
        let (census, reader, memory) = heap(go, &kinds);
        let found = census.finalizers(&reader, &memory).expect(go);
        assert_eq!(
            (found.finalizers, found.cleanups, found.types),
            (3, cleanups, vec![(ELEMENT, 3)]),
            "{go}"
        );
    }
}

#[test]
fn spans_are_counted_by_size_class() {
    let reader = span_reader("go1.27.3");
    let large = Span {
        pages: 5,
        limit: 0xc000_a000,
        nelems: 1,
        alloc_count: 1,
        free_index: 1,
        elem_size: 40960,
        span_class: 0,
        ..span(0)
    };
    let memory = memory_of(&reader, &[span(0), span(0), large]);
    let classes = size_classes(&reader, &memory).expect("spans");
    let want = [
        SizeClassCensus { slot_size: 0, spans: 1, bytes: 40960, objects: 1, slots: 1 },
        SizeClassCensus { slot_size: 8, spans: 2, bytes: 2 * 8192, objects: 10, slots: 2048 },
    ];
    assert_eq!(classes, want);
}

proptest! {
    #[test]
    fn hostile_specials_end(damage in prop::collection::vec((0..0x20_u64, any::<u64>()), 1..20)) {
        let (mut census, reader, mut memory) = heap("go1.27.3", &[2, 4, 2, 7]);
        for (at, value) in damage {
            memory.write_u64(SPECIALS + 8 * at, value);
        }
        if let Ok(found) = census.finalizers(&reader, &memory) {
            prop_assert!(found.finalizers + found.cleanups <= 8192);
        }
        // What is not there is said.
        prop_assert!(!census.read(&memory).notes.is_empty());
    }
}
