//! Tests of the reference scan on made-up memory.

use proptest::prelude::*;

use super::*;
use crate::memory::FakeMemory;
use crate::runtime::spans::Span;
use crate::runtime::spans::tests::{memory_of, reader, span};

const GLOBALS: u64 = 0x50_0000;
const TYPES: u64 = 0x40_0000;
/// `allglen`, `allgptr`, `allp`.
const RUNTIME: u64 = 0x60_0000;
const G: u64 = 0x61_0000;
const STACK: u64 = 0x62_0000;
const MODULE: u64 = 0x63_0000;

/// A span of one page at 0xc000_0000 and so many pages, with slots of a class; all are used.
fn of_class(page: u64, size: u64, class: u8) -> Span {
    let base = 0xc000_0000 + page * 8192;
    let nelems = 8192 / size;
    Span {
        base,
        limit: base + 8192,
        nelems,
        free_index: nelems,
        alloc_count: nelems,
        elem_size: size,
        span_class: class << 1,
        alloc_bits: 0x9000,
        ..span(0)
    }
}

const HEADERS: u64 = 0xc000_0000;
const TABLES: u64 = HEADERS + 8192;
const DIRECTORIES: u64 = TABLES + 8192;
const GROUPS: u64 = DIRECTORIES + 8192;
const SESSIONS: u64 = GROUPS + 8192;
const PAGES: u64 = 0xc010_0000;

fn spans() -> Vec<Span> {
    let mut large = of_class(128, 8192, 0);
    (large.base, large.pages, large.nelems, large.elem_size) = (PAGES, 8, 1, 65536);
    (large.limit, large.free_index, large.alloc_count, large.span_class) = (PAGES + 65536, 1, 1, 1);
    vec![
        of_class(0, 48, 5),
        of_class(1, 32, 4),
        of_class(2, 8, 1),
        of_class(3, 288, 19),
        of_class(4, 64, 6),
        large,
    ]
}

fn reader_of(go: &str) -> ReferenceReader {
    ReferenceReader {
        spans: reader(go),
        layout: Layout::measured(go).expect(go),
        globals: [GLOBALS..GLOBALS + 64, GLOBALS + 64..GLOBALS + 64],
        module_data: MODULE,
        module: TYPES..TYPES + 0x1000,
        allglen: RUNTIME,
        allgptr: RUNTIME + 8,
        allp: RUNTIME + 16,
    }
}

/// A global map of 10 sessions, the first of which has a short slice of a large array.
fn program() -> FakeMemory {
    program_of(&spans())
}

fn program_of(spans: &[Span]) -> FakeMemory {
    let mut memory = memory_of(&reader_of("go1.26.6").spans, spans);
    for base in [HEADERS, TABLES, DIRECTORIES, GROUPS, SESSIONS] {
        memory.write(base, &[0; 8192]);
    }
    memory.write(0x9000, &[0xff; 128]).write(GLOBALS, &[0; 64]).write(RUNTIME, &[0; 64]);
    memory.write_u64(GLOBALS + 8, HEADERS + 48);
    // No goroutines, no Ps.
    memory.write_u64(RUNTIME + 8, RUNTIME).write_u64(RUNTIME + 16, RUNTIME);
    let put = |memory: &mut FakeMemory, at: u64, words: &[u64]| {
        (at..).step_by(8).zip(words).for_each(|(at, word)| _ = memory.write_u64(at, *word));
    };
    // used, seed, dirPtr, dirLen, globalDepth; used and capacity, index, groups and mask.
    put(&mut memory, HEADERS + 48, &[10, 77, DIRECTORIES, 1, 0]);
    memory.write_u64(DIRECTORIES, TABLES + 32);
    put(&mut memory, TABLES + 32, &[10 | 16 << 16, 0, GROUPS + 288, 1]);
    // The first slot of the second group: after 8 bytes of control, a key of 8 bytes.
    memory.write_u64(GROUPS + 288 + 136 + 16, SESSIONS + 64);
    put(&mut memory, SESSIONS + 64, &[1, PAGES + 100, 16, 65536 - 100]);
    memory
}

fn look(memory: &FakeMemory, wanted: &[Wanted]) -> Look {
    reader_of("go1.26.6").look(memory, wanted).expect("readable")
}

const WANTED: [Wanted; 3] = [
    Wanted { name: PAGES, size: 65536 },
    Wanted { name: SESSIONS + 64, size: 64 },
    Wanted { name: SESSIONS + 64, size: 80 },
];

#[test]
fn the_way_up_leads_through_a_map_to_a_global_variable() {
    let look = look(&program(), &WANTED);
    let [Some(page), Some(session), None] = look.held.as_slice() else { panic!("{:?}", look.held) };
    assert_eq!(page.count, 1);
    let [slice] = page.references.as_slice() else { panic!("{page:?}") };
    assert_eq!((slice.offset, slice.len, slice.cap), (100, Some(16), Some(65436)));
    let [of_page, map, root] = page.holders.as_slice() else { panic!("{page:?}") };
    assert_eq!(of_page.place, Place::Object(Slot { base: SESSIONS + 64, size: 64 }));
    assert_eq!(map.container, Some(Container::Map(0)));
    assert_eq!(map.entry, Some((Slot { base: GROUPS + 288, size: 288 }, 136 + 16)));
    assert_eq!(root.place, Place::Root(Root::Global, GLOBALS + 8));
    assert_eq!(session.holders, [*map, *root]);
    let [map] = look.maps.as_slice() else { panic!("{:?}", look.maps) };
    assert_eq!((map.addr, map.count, map.capacity, map.table_bytes), (HEADERS + 48, 10, 16, 288));
}

#[test]
fn what_is_free_holds_nothing_and_what_is_new_is_told_apart() {
    let mut all = spans();
    all[4].alloc_bits = 0xa000;
    for (free_index, is_there) in [(1, false), (128, true)] {
        all[4].free_index = free_index;
        let mut memory = program_of(&all);
        // All but the session have survived.
        memory.write(0xa000, &[0xfd, 0xff]).write(0xa002, &[0xff; 14]);
        let look = look(&memory, &WANTED);
        let page = look.held[0].as_ref().expect("the array");
        assert_eq!(page.references.iter().map(|r| r.is_new).collect::<Vec<_>>(), vec![true; is_there.into()]);
    }
}

#[test]
fn stacks_hold_objects_too() {
    let mut memory = program();
    memory.write_u64(GLOBALS + 8, 0);
    let g = Layout::measured("go1.26.6").expect("layout").g;
    memory.write_u64(RUNTIME, 1).write_u64(RUNTIME + 8, RUNTIME + 32).write_u64(RUNTIME + 32, G);
    memory.write(G, &[0; 0x200]).write(STACK, &[0; 0x100]);
    memory.write_u64(G + g.goid, 17).write_u64(G + g.stack, STACK).write_u64(G + g.stack + 8, STACK + 0x100);
    memory.write_u64(G + g.sched_sp, STACK + 0x80).write_u64(STACK + 0x90, HEADERS + 48);
    let found = look(&memory, &WANTED[1..2]);
    let last = found.held[0].as_ref().and_then(|session| session.holders.last().copied());
    assert_eq!(last.map(|last| last.place), Some(Place::Root(Root::Stack(17), STACK + 0x90)));
    // Below the stack pointer there is nothing.
    memory.write_u64(STACK + 0x90, 0).write_u64(STACK + 0x70, HEADERS + 48);
    let found = look(&memory, &WANTED[1..2]);
    let ends_in_map = |held: &Held| held.holders.last().is_some_and(|last| last.container.is_some());
    assert!(found.held[0].as_ref().is_some_and(ends_in_map), "{:?}", found.held[0]);
}

#[test]
fn words_that_the_runtime_takes_for_no_pointers_hold_nothing() {
    for (bits, is_held) in [(0xff, true), (1 << 1, true), (!(1 << 1), false)] {
        let mut memory = program();
        memory.write(MODULE, &[0; MODULE_DATA]).write(MODULE + 0x800, &[bits]);
        for (i, word) in [8, MODULE + 0x800, 0, MODULE + 0x900].into_iter().enumerate() {
            memory.write_u64(MODULE + 536 + 8 * i as u64, word);
        }
        let found = look(&memory, &WANTED[1..2]);
        let last = found.held[0].as_ref().and_then(|session| session.holders.last().copied());
        let is_root = matches!(last, Some(Holder { place: Place::Root(Root::Global, _), .. }));
        assert_eq!(is_root, is_held, "{bits:#x} {last:x?}");
    }
}

#[test]
fn the_end_of_a_stack_holds_nothing() {
    // A pair of words in a session: where a stack begins and ends.
    for (low, is_held) in [(PAGES - 8192, false), (PAGES - 8192 + 8, true), (0, true)] {
        let mut memory = program();
        memory
            .write_u64(SESSIONS + 64 + 8, 0)
            .write_u64(SESSIONS + 128, low)
            .write_u64(SESSIONS + 136, PAGES);
        let look = look(&memory, &WANTED[..1]);
        let holders = look.held[0].as_ref().map(|page| page.holders.len());
        assert_eq!(holders, Some(is_held.into()), "{low:#x}");
    }
}

#[test]
fn buckets_beside_the_array_belong_to_the_map() {
    // Two buckets of 208 bytes, and two more in a row behind the second.
    const BUCKETS: u64 = TABLES;
    const MORE: u64 = DIRECTORIES;
    let mut all = spans();
    (all[1], all[2]) = (of_class(1, 416, 23), of_class(2, 208, 15));
    let reader =
        ReferenceReader { layout: Layout::measured("go1.21.13").expect("it"), ..reader_of("go1.26.6") };
    for (last_word, is_entry) in [(200, true), (160, false)] {
        let mut memory = program_of(&all);
        memory.write(HEADERS + 48, &[0; 48]).write(TABLES, &[0; 8192]).write(DIRECTORIES, &[0; 8192]);
        memory.write_u64(HEADERS + 48, 17).write_u64(HEADERS + 56, 1 << 8).write_u64(HEADERS + 64, BUCKETS);
        memory.write_u64(BUCKETS + 208 + 200, MORE).write_u64(MORE + last_word, MORE + 208);
        memory.write_u64(GROUPS + 288 + 136 + 16, 0).write_u64(MORE + 208 + 136, SESSIONS + 64);
        let look = reader.look(&memory, &WANTED[1..2]).expect("readable");
        let holders = look.held[0].as_ref().map(|held| held.holders.clone()).unwrap_or_default();
        let containers: Vec<_> = holders.iter().map(|holder| holder.container).collect();
        let map = [Some(Container::Map(0)), None];
        assert_eq!(containers == map, is_entry, "{holders:x?}");
    }
}

proptest! {
    #[test]
    fn hostile_memory_is_looked_at_in_bounds(
        damage in prop::collection::vec((0..7_usize, 0..1024_u64, any::<u64>()), 0..60),
        pointers in prop::collection::vec((0..6_usize, 0..1024_u64, 0..6_usize, 0..8192_u64), 0..60),
        go in prop::sample::select(vec!["go1.21.13", "go1.26.6"]),
    ) {
        let mut memory = program();
        let places = [HEADERS, TABLES, DIRECTORIES, GROUPS, SESSIONS, RUNTIME, MODULE];
        for (place, at, value) in damage {
            memory.write_u64(places[place] + 8 * at, value);
        }
        for (place, at, to, offset) in pointers {
            memory.write_u64(places[place] + 8 * at, places[to] + offset);
        }
        let reader = ReferenceReader { layout: Layout::measured(go).expect(go), ..reader_of("go1.26.6") };
        if let Ok(look) = reader.look(&memory, &WANTED) {
            prop_assert_eq!(look.held.len(), WANTED.len());
            for held in look.held.iter().flatten() {
                prop_assert!(held.references.len() as u64 <= REFERENCES);
                prop_assert!(held.holders.len() <= 64);
                prop_assert!(held.references.iter().all(|r| r.offset + r.room <= held.slot.size));
            }
        }
    }

    #[test]
    fn any_words_are_a_table_or_none(words in prop::collection::vec(0..0x1200_u64, 0x200)) {
        let reader = reader_of("go1.26.6");
        let mut memory = FakeMemory::new();
        for (at, word) in (TYPES..).step_by(8).zip(&words) {
            memory.write_u64(at, TYPES + word);
        }
        let is_key = |offset| reader.map_table(&memory, TYPES + 8).is_some_and(|table| table.is_key(offset));
        _ = [0, 8, u64::MAX].map(is_key);
    }
}
