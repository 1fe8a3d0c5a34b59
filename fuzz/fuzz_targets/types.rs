//! A target's type descriptors and names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::memory::FakeMemory;
use tracer::runtime::{Layout, TypeReader};

const TYPES: u64 = 0x10_0000;

fuzz_target!(|data: &[u8]| {
    let layout = Layout::measured("go1.27").expect("a measured release");
    let mut memory = FakeMemory::new();
    memory.write(TYPES, data);
    let etypes = TYPES + data.len() as u64;
    let reader = TypeReader::new(memory, &layout, TYPES..etypes);
    for addr in (TYPES..etypes).step_by(8) {
        if let Ok(info) = reader.read(addr) {
            assert!(info.ptr_bytes <= info.size && info.name.len() <= 64 << 10);
        }
    }
});
