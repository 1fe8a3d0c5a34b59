//! Properties of the file format: what is written comes back, damage costs one frame.

use proptest::prelude::*;

use super::*;
use crate::base::ErrorKind;
use crate::event::*;

fn write(events: &[Event], per_frame: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), "test").unwrap();
    for chunk in events.chunks(per_frame.max(1)) {
        chunk.iter().for_each(|e| writer.write(e).unwrap());
        writer.flush().unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Event>, Damage), crate::base::Error> {
    let mut reader = Reader::new(bytes, "test")?;
    let mut events = Vec::new();
    while let Some(event) = reader.next_event()? {
        events.push(event);
    }
    Ok((events, reader.damage().clone()))
}

prop_compose! {
    fn alloc()(
        time_ns: u64, ptr: u64, size: u64, slot: u64, type_addr: u64, goroutine: u64, epoch: u32, cpu: u32,
        site in 0..4u16, stack in 0..6u64,
    ) -> Event {
        let (stack, site) = (StackId(stack), SiteId(site));
        Event::Alloc(Alloc { time_ns, ptr, size, slot, type_addr, stack, goroutine, site, epoch, cpu })
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    (".*", ".*", any::<u32>(), any::<[bool; 2]>()).prop_map(|(function, file, line, [inlined, wrapper])| {
        Frame { function, file, line, inlined, wrapper }
    })
}

fn event() -> impl Strategy<Value = Event> {
    let id = any::<u64>().prop_map(StackId);
    prop_oneof![
        8 => alloc(),
        1 => (id, prop::collection::vec(any::<u64>(), 0..130)).prop_map(|(id, pcs)| Event::Stack { id, pcs }),
        1 => (any::<u32>(), prop::collection::vec(any::<u64>(), 0..99))
            .prop_map(|(epoch, slots)| Event::Deaths { epoch, slots }),
        1 => (any::<u32>(), any::<u64>()).prop_map(|(epoch, time_ns)| {
            Event::Judged(Judged { epoch, time_ns, ..Judged::default() })
        }),
        1 => any::<u64>().prop_map(|max_memory| Event::Follow { max_memory }),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(hits, cpu_ns)| Event::Cost(Cost { hits, trap_ns: 1, cpu_ns })),
        1 => (any::<u64>(), 0.0..100.0, 0.0..100.0).prop_map(|(time_ns, overhead_percent, limit_percent)| {
            Event::Tripped(Tripped { time_ns, overhead_percent, limit_percent })
        }),
        1 => (any::<u64>(), prop::collection::vec(frame(), 0..3))
            .prop_map(|(pc, frames)| Event::Symbol { pc, frames }),
        1 => (any::<u64>(), ".*", any::<u64>()).prop_map(|(addr, name, size)| Event::Type {
            addr,
            info: TypeInfo { name, size, ..TypeInfo::default() },
        }),
        1 => (any::<u16>(), any::<u64>(), any::<Option<u64>>(), any::<Option<u64>>()).prop_map(
            |(site, stack, type_addr, size)| Event::Inferred(Inferred {
                site: SiteId(site),
                stack: StackId(stack),
                type_addr,
                size,
            })
        ),
        1 => (any::<u32>(), any::<u64>()).prop_map(|(epoch, time_ns)| Event::GcEpoch { epoch, time_ns }),
        1 => (any::<u32>(), any::<u64>(), any::<i32>()).prop_map(|(cycle, end_ns, gc_percent)| {
            Event::GcCycle(GcCycle { cycle, end_ns, gc_percent, ..GcCycle::default() })
        }),
        1 => (any::<u64>(), any::<u64>())
            .prop_map(|(goroutine, begin_ns)| Event::Assist(Assist { goroutine, begin_ns, end_ns: 7 })),
        1 => (any::<[u64; 3]>(), any::<u16>()).prop_map(|([time_ns, goroutine, depth], site)| Event::Mark(
            Mark { site: SiteId(site), time_ns, goroutine, depth }
        )),
        1 => (any::<Option<u8>>(), any::<u64>()).prop_map(|(reason, begin_ns)| Event::Stw(Stw {
            reason: reason.map(|n| n.to_string()),
            begin_ns,
            end_ns: u64::MAX,
        })),
        1 => (any::<u32>(), any::<u64>(), any::<u64>())
            .prop_map(|(cpu, events, stacks)| Event::Lost { cpu, events, stacks }),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(objects, bytes)| {
            Event::Counters(Counters { objects, bytes, ..Counters::default() })
        }),
        1 => (any::<i64>(), prop::collection::vec(any::<u64>(), 0..40)).prop_map(|(rate, pcs)| {
            let row = BaselineRow { pcs, inuse_objects: rate, ..BaselineRow::default() };
            Event::Baseline(Baseline { rate, rows: vec![row] })
        }),
        1 => ".*".prop_map(Event::Note),
        1 => (".*", any::<u64>()).prop_map(|(exe, load_bias)| Event::Start(Start {
            target: Target { exe, load_bias, maps: vec![Mapping::default()], ..Target::default() },
            ..Start::default()
        })),
        1 => any::<u64>().prop_map(|time_ns| Event::End(End { time_ns, reason: EndReason::Interrupted })),
    ]
}

/// A capture of ten small frames.
fn small_capture() -> (Vec<Event>, Vec<u8>) {
    let events: Vec<Event> = (0..20u64)
        .map(|i| match i % 4 {
            0 => Event::Stack { id: StackId(i), pcs: vec![0x400000 + i, 0x500000] },
            _ => Event::Alloc(Alloc {
                time_ns: i * 1000,
                ptr: 0xc000000000 + i * 16,
                size: 16,
                ..Alloc::default()
            }),
        })
        .collect();
    let bytes = write(&events, 2);
    (events, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn events_come_back_in_order(events in prop::collection::vec(event(), 0..200), per_frame in 1..80usize) {
        let (back, damage) = read(&write(&events, per_frame)).unwrap();
        prop_assert_eq!(back, events);
        prop_assert_eq!(damage, Damage::default());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut file = write(&[], 1);
        file.extend(bytes);
        read(&file).unwrap();
    }
}

#[test]
fn a_file_cut_anywhere_yields_a_prefix() {
    let (events, bytes) = small_capture();
    let mut previous = 0;
    for cut in FILE_HEADER_LEN..=bytes.len() {
        let (back, damage) = read(&bytes[..cut]).unwrap();
        assert_eq!(back, events[..back.len()], "cut at {cut}");
        assert!(back.len() >= previous, "cut at {cut}");
        previous = back.len();
        if damage.bytes_skipped > 0 {
            assert!(damage.cut_short, "cut at {cut}: {damage:?}");
            assert!(damage.notes()[0].contains("ends inside a frame"), "{:?}", damage.notes());
        }
    }
    assert_eq!(previous, events.len());
    for cut in 0..FILE_HEADER_LEN {
        assert_eq!(read(&bytes[..cut]).unwrap_err().kind(), ErrorKind::Usage, "cut at {cut}");
    }
}

#[test]
fn a_flipped_byte_costs_at_most_its_frame() {
    let (events, bytes) = small_capture();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        let (back, damage) = read(&damaged).unwrap();
        assert!(back.len() + 2 >= events.len(), "byte {at}: {} events", back.len());
        assert!(back.iter().all(|e| events.contains(e)), "byte {at}");
        assert!(!damage.notes().is_empty(), "byte {at}: {damage:?}");
    }
}

#[test]
fn a_hole_and_garbage_are_stepped_over_and_counted() {
    let (events, bytes) = small_capture();
    let mut holed = bytes.clone();
    let inside = FILE_HEADER_LEN + frame::HEADER_LEN + 5;
    holed.drain(inside..inside + 10);
    let (back, damage) = read(&holed).unwrap();
    assert_eq!(back.len(), events.len() - 2);
    assert_eq!((damage.frames_lost, damage.frames_malformed), (1, 0));

    let mut mixed = bytes[..FILE_HEADER_LEN].to_vec();
    mixed.extend([0xf7, b'H', b'T', b'F', 0xf7, b'H']);
    mixed.extend(&bytes[FILE_HEADER_LEN..]);
    let (back, damage) = read(&mixed).unwrap();
    assert_eq!(back, events);
    assert_eq!(damage.bytes_skipped, 6);
    assert_eq!(damage.notes().len(), 1);
}

#[test]
fn other_files_and_newer_formats_are_refused_by_name() {
    let text = read(b"#!/bin/sh\necho this is a longer file than any header\n").unwrap_err();
    assert_eq!(text.to_string(), "test is not a heaptap capture");
    assert!(text.hint_text().is_some());

    let mut newer = MAGIC.to_vec();
    newer.extend([2, 0, 0, 0]);
    let crc = crc32c::crc32c(&newer);
    newer.extend(crc.to_le_bytes());
    let error = read(&newer).unwrap_err();
    assert_eq!(error.to_string(), "test was written by a newer heaptap (format 2, this one reads 1)");
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn what_a_later_minor_version_adds_is_skipped() {
    let mut encoder = batch::Encoder::default();
    encoder.json(br#"{"gc_phase":{"cycle":1}}"#);
    encoder.json(br#"{"gc_epoch":{"epoch":3,"time_ns":9,"heap_live":1}}"#);
    let mut raw = Vec::new();
    encoder.finish(&mut raw);
    let mut decoder = batch::Decoder::new(raw.into()).unwrap();
    assert_eq!(decoder.next(), Ok(Some(Event::GcEpoch { epoch: 3, time_ns: 9 })));
    assert_eq!(decoder.next(), Ok(None));
    assert_eq!(decoder.unknown_records, 1);
}

#[test]
fn a_capture_that_cannot_be_created_says_why() {
    let error = Writer::create(std::path::Path::new("/nonexistent/dir/x.heaptap")).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().starts_with("cannot write /nonexistent/dir/x.heaptap: "));
}
