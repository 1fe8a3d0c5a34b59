//! A function's machine code: dataflow, paths and values at every instruction.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::binary::flow::{Flow, Program, RAX, Value};

const START: u64 = 0x40_1000;

/// What is said of the rest of the program depends on the address alone.
struct Around;

impl Program for Around {
    fn never_returns(&self, target: u64) -> bool {
        target % 5 == 0
    }

    fn argument_bytes(&self, target: u64) -> Option<u32> {
        (target % 3 != 0).then_some(target as u32 & 0x7fff_fff8)
    }

    fn read_only_u64(&self, address: u64) -> Option<u64> {
        (address % 7 != 0).then_some(START + address % 64)
    }
}

fuzz_target!(|code: &[u8]| {
    let Some(flow) = Flow::analyse(code, START, &Around) else { return };
    let mut met = Vec::new();
    flow.visit(|i, state| {
        assert_eq!(flow.before(i.ip()).as_ref(), Some(state));
        let origins = flow.origins(state.reg(RAX));
        assert!(origins.is_none_or(|o| o.iter().all(|v| !matches!(v, Value::Phi { .. }))));
        met.push(i.ip());
    });
    for address in &met {
        assert!(flow.dominates(*address, *address) && flow.dominates(START, *address));
        assert!(*address == START || flow.reaches(START, *address));
    }
});
