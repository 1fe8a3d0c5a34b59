//! Go's line table alone, with the inline tree in the last part of the input.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tracer::binary::LineTable;

const TEXT: u64 = 0x40_0100;

fuzz_target!(|data: &[u8]| {
    let data = Bytes::copy_from_slice(data);
    let gofunc = data.slice(data.len().saturating_sub(64)..);
    let Some(table) = LineTable::parse(data, TEXT, gofunc) else { return };
    for function in table.functions().iter().take(64) {
        for addr in (function.start..function.end).step_by(7).take(16) {
            _ = table.frames(addr);
        }
    }
    for addr in TEXT..TEXT + 0x40 {
        _ = table.frames(addr);
    }
});
