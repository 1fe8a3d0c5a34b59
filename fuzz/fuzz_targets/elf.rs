//! An executable: headers, build info, functions, module data, frames.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tracer::binary::Binary;

fuzz_target!(|data: &[u8]| {
    let Ok(binary) = Binary::parse(Bytes::copy_from_slice(data)) else { return };
    _ = (binary.build_id(), binary.go_version(), binary.is_stripped(), binary.uses_cgo());
    _ = binary.symbol("runtime.mallocgc");
    if let Some(module) = binary.moduledata() {
        _ = (binary.read_u64(module.types), binary.file_offset(module.text));
    }
    let Ok(functions) = binary.functions() else { return };
    for function in functions.iter().take(64) {
        assert_eq!(functions.by_name(function.name).map(|f| f.name), Some(function.name));
        for addr in [function.start, function.end.wrapping_sub(1)] {
            _ = functions.containing(addr);
            _ = binary.line_table().map(|table| table.frames(addr));
        }
    }
});
