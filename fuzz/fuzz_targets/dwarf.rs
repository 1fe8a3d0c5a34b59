//! An executable's DWARF: lines and inlined calls at the addresses of its segments.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tracer::binary::Binary;
use tracer::symbol::Symbolizer;

fuzz_target!(|data: &[u8]| {
    let Ok(binary) = Binary::parse(Bytes::copy_from_slice(data)) else { return };
    let symbolizer = Symbolizer::new(&binary);
    // The seeds' code is in the first pages.
    let start = binary.lowest_vaddr();
    for addr in (start..start.saturating_add(0x2000)).step_by(13) {
        assert!(!symbolizer.frames(addr).is_empty());
    }
});
