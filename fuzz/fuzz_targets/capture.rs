//! Whatever a capture file says, reading and reporting it ends without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::capture::Reader;
use tracer::detect;
use tracer::model::State;
use tracer::source::Replay;

fuzz_target!(|data: &[u8]| {
    report(data);
    // Checksums and compression would hide the payload from the fuzzer.
    report(&file_of(data));
});

fn report(file: &[u8]) {
    let Ok(reader) = Reader::new(file, "fuzz") else { return };
    let mut state = State::default();
    for event in Replay::new(reader) {
        state.apply(&event.expect("memory does not fail"));
    }
    let report = detect::report(&state);
    tracer::export::text::write(&report, &Default::default(), &mut Vec::new()).expect("text");
    tracer::export::pprof::write(&report, &mut Vec::new()).expect("pprof");
}

/// A capture with one intact frame of this payload (docs/capture-format.md).
fn file_of(payload: &[u8]) -> Vec<u8> {
    let stored = zstd::bulk::compress(payload, 1).expect("zstd");
    let mut file = b"HEAPTAP\n\x01\0\0\0".to_vec();
    file.extend(crc32c::crc32c(&file).to_le_bytes());
    let mut header = b"\xf7HTF\x01\x01\0\0\0\0\0\0".to_vec();
    header.extend((payload.len() as u32).to_le_bytes());
    header.extend((stored.len() as u32).to_le_bytes());
    header.extend(crc32c::crc32c(&stored).to_le_bytes());
    header.extend(crc32c::crc32c(&header).to_le_bytes());
    file.extend(header);
    file.extend(stored);
    file
}
