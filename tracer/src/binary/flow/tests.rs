//! Hand-assembled functions: each line is `bytes: instruction`, the first at 0x1000.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const RDX: Reg = 2;
const RSI: Reg = 6;
const RDI: Reg = 7;
const R8: Reg = 8;
const START: u64 = 0x1000;

/// A function at 0x8000 whose arguments take 16 bytes, `throw` at 0x9000, two cases of a
/// jump table at 0x2000; nothing is known of the rest.
struct Around;

impl Program for Around {
    fn never_returns(&self, target: u64) -> bool {
        target == 0x9000
    }

    fn argument_bytes(&self, target: u64) -> Option<u32> {
        (target == 0x8000).then_some(16)
    }

    fn read_only_u64(&self, address: u64) -> Option<u64> {
        match address {
            0x2000 => Some(0x1010),
            0x2008 => Some(0x1015),
            _ => None,
        }
    }
}

fn assembled(listing: &str) -> Vec<u8> {
    let bytes = listing.lines().filter_map(|line| line.split_once(": ")).map(|(bytes, _)| bytes);
    bytes.flat_map(str::split_whitespace).map(|b| u8::from_str_radix(b, 16).expect("hex")).collect()
}

fn try_flow(listing: &str) -> Option<Flow<'static>> {
    Flow::analyse(&assembled(listing), START, &Around)
}

fn flow(listing: &str) -> Flow<'static> {
    try_flow(listing).expect("a function that can be followed")
}

/// What holds before the first `ret`.
fn at_return(listing: &str) -> State {
    let flow = flow(&format!("{listing}\nc3: ret"));
    let end = flow.reachable().find(|i| flow.leaves(i)).expect("a return").ip();
    flow.before(end).expect("reached")
}

/// Whether a value says nothing of where it comes from.
fn is_new(value: Value) -> bool {
    matches!(value, Value::Def { .. } | Value::Result { .. })
}

#[test]
fn what_writes_a_register_is_known_or_new() {
    for (instruction, rbx) in [
        ("48 89 cb: mov %rcx,%rbx", Some(Value::Arg(RCX))),
        ("bb 05 00 00 00: mov $0x5,%ebx", Some(Value::Const(5))),
        ("48 c7 c3 ff ff ff ff: mov $-1,%rbx", Some(Value::Const(u64::MAX))),
        ("48 bb 88 77 66 55 44 33 22 11: movabs $…,%rbx", Some(Value::Const(0x1122_3344_5566_7788))),
        ("31 db: xor %ebx,%ebx", Some(Value::Const(0))),
        ("48 8d 1d f9 0f 00 00: lea 0xff9(%rip),%rbx", Some(Value::Const(0x2000))),
        ("48 8b 1d f9 0f 00 00: mov 0xff9(%rip),%rbx", Some(Value::Global { at: START, address: 0x2000 })),
        ("48 8b 59 18: mov 0x18(%rcx),%rbx", Some(Value::Field { at: START, arg: RCX, disp: 24 })),
        ("48 0f ba e3 03: bt $0x3,%rbx", Some(Value::Arg(RBX))),
        ("f3 48 ab: rep stos %rax,(%rdi)", Some(Value::Arg(RBX))),
        ("89 cb: mov %ecx,%ebx", None),
        ("88 cb: mov %cl,%bl", None),
        ("30 db: xor %bl,%bl", None),
        ("0f b6 d9: movzbl %cl,%ebx", None),
        ("48 0f 44 d9: cmove %rcx,%rbx", None),
        ("48 87 cb: xchg %rcx,%rbx", None),
        ("f0 48 0f c1 19: lock xadd %rbx,(%rcx)", None),
        ("48 0f ba eb 03: bts $0x3,%rbx", None),
        ("67 8d 19: lea (%ecx),%ebx", None),
        ("67 48 8b 59 18: mov 0x18(%ecx),%rbx", None),
        ("8b 59 18: mov 0x18(%rcx),%ebx", None),
        ("64 48 8b 1c 25 10 00 00 00: mov %fs:0x10,%rbx", None),
    ] {
        let found = at_return(instruction).reg(RBX);
        assert_eq!(Some(found).filter(|v| !is_new(*v)), rbx, "{instruction}");
    }
}

#[test]
fn implied_registers_are_written_too() {
    for (instruction, reg) in [
        ("48 f7 e3: mul %rbx", RDX),
        ("48 99: cqto", RDX),
        ("48 87 cb: xchg %rcx,%rbx", RCX),
        ("f3 48 ab: rep stos %rax,(%rdi)", RDI),
        ("f3 48 ab: rep stos %rax,(%rdi)", RCX),
        ("e2 00: loop .", RCX),
        ("e8 fb 6f 00 00: call 0x8000", RCX),
    ] {
        assert!(is_new(at_return(instruction).reg(reg)), "{instruction}: {reg}");
    }
    assert_eq!(at_return("ff d0: call *%rax").reg(R14), Value::Arg(R14));
}

/// rbx is spilled to a slot; then comes an instruction; then the slot is loaded.
fn survives(instruction: &str) -> bool {
    let end = at_return(&format!(
        "55: push %rbp
         48 89 e5: mov %rsp,%rbp
         48 83 ec 30: sub $0x30,%rsp
         48 89 5c 24 18: mov %rbx,0x18(%rsp)
         {instruction}
         48 8b 4c 24 18: mov 0x18(%rsp),%rcx"
    ));
    end.reg(RCX) == Value::Arg(RBX)
}

#[test]
fn a_slot_lives_until_something_may_write_it() {
    for (instruction, lives) in [
        ("90: nop", true),
        ("44 0f 11 7c 24 20: movups %xmm15,0x20(%rsp)", true),
        ("48 89 07: mov %rax,(%rdi)", true),
        // Below rsp: the stack check of a big frame, not a variable.
        ("4c 8d 64 24 f8: lea -0x8(%rsp),%r12", true),
        ("48 8d 7c 24 20: lea 0x20(%rsp),%rdi", true),
        // Its arguments end below the slot.
        ("e8 ee 6f 00 00: call 0x8000", true),
        ("50: push %rax\n58: pop %rax", true),
        ("c7 44 24 1c 00 00 00 00: movl $0x0,0x1c(%rsp)", false),
        ("c6 44 24 18 00: movb $0x0,0x18(%rsp)", false),
        ("44 0f 11 7c 24 10: movups %xmm15,0x10(%rsp)", false),
        ("c5 fe 7f 04 24: vmovdqu %ymm0,(%rsp)", false),
        ("f0 48 0f c1 4c 24 18: lock xadd %rcx,0x18(%rsp)", false),
        ("0f ae 64 24 10: xsave 0x10(%rsp)", false),
        ("48 0f ab 44 24 10: bts %rax,0x10(%rsp)", false),
        ("48 89 04 cc: mov %rax,(%rsp,%rcx,8)", false),
        ("e8 ee 77 00 00: call 0x8800", false),
        ("ff d0: call *%rax", false),
        ("48 83 e4 f0: and $-16,%rsp", false),
        ("48 01 c4: add %rax,%rsp", false),
        // Addresses in the hands of others.
        ("48 8d 7c 24 10: lea 0x10(%rsp),%rdi", false),
        ("48 8d 3c c4: lea (%rsp,%rax,8),%rdi", false),
        ("48 89 e7: mov %rsp,%rdi", false),
        ("48 01 e0: add %rsp,%rax", false),
        ("48 89 60 08: mov %rsp,0x8(%rax)", false),
    ] {
        assert_eq!(survives(instruction), lives, "{instruction}");
    }
}

#[test]
fn slots_whose_address_escapes_anywhere_are_never_followed() {
    // What comes later may have run before, in a loop.
    let end = at_return(
        "48 83 ec 30: sub $0x30,%rsp
         48 89 5c 24 18: mov %rbx,0x18(%rsp)
         48 8b 4c 24 18: mov 0x18(%rsp),%rcx
         48 8d 7c 24 10: lea 0x10(%rsp),%rdi",
    );
    assert!(is_new(end.reg(RCX)));
}

#[test]
fn the_callers_room_for_arguments_is_ours() {
    let end = at_return(
        "55: push %rbp
         48 89 e5: mov %rsp,%rbp
         48 83 ec 30: sub $0x30,%rsp
         48 89 5c 24 48: mov %rbx,0x48(%rsp)
         ff d0: call *%rax
         48 8d 3c 24: lea (%rsp),%rdi
         48 89 04 cc: mov %rax,(%rsp,%rcx,8)
         48 8b 4c 24 48: mov 0x48(%rsp),%rcx",
    );
    assert_eq!(end.reg(RCX), Value::Arg(RBX));
    assert!(end.locations(Value::Arg(RBX)).any(|loc| loc == Loc::Slot(16)));
}

#[test]
fn frames_of_both_styles_keep_the_callers_frame_pointer() {
    let since_1_21 = "55: push %rbp
        48 89 e5: mov %rsp,%rbp
        48 83 ec 30: sub $0x30,%rsp";
    let up_to_1_20 = "48 83 ec 38: sub $0x38,%rsp
        48 89 6c 24 30: mov %rbp,0x30(%rsp)
        48 8d 6c 24 30: lea 0x30(%rsp),%rbp";
    for prologue in [since_1_21, up_to_1_20] {
        let end = at_return(&format!(
            "{prologue}
             ff d0: call *%rax
             48 8d 7c 24 08: lea 0x8(%rsp),%rdi"
        ));
        assert_eq!(end.reg(RBP), Value::Sp(-8), "{prologue}");
        assert_eq!(end.locations(Value::Arg(RBP)).collect::<Vec<_>>(), [Loc::Slot(-8)], "{prologue}");
        assert_eq!(end.reg(RSP), Value::Sp(-0x38), "{prologue}");
    }
}

#[test]
fn memory_below_rsp_is_nobodys() {
    let end = at_return(
        "53: push %rbx
         58: pop %rax",
    );
    assert_eq!(end.reg(RAX), Value::Arg(RBX));
    assert_eq!(end.locations(Value::Arg(RBX)).collect::<Vec<_>>(), [Loc::Reg(RAX), Loc::Reg(RBX)]);
}

#[test]
fn values_meet() {
    let listing = "85 c0: test %eax,%eax
         74 08: je 100c
         48 89 cb: mov %rcx,%rbx
         48 89 fe: mov %rdi,%rsi
         eb 06: jmp 1012
         48 89 ce: mov %rcx,%rsi
         48 89 cb: mov %rcx,%rbx";
    let end = at_return(listing);
    assert_eq!(end.reg(RBX), Value::Arg(RCX));
    let merged = Value::Phi { at: 0x1012, loc: Loc::Reg(RSI) };
    assert_eq!(end.reg(RSI), merged);
    let mut origins = flow(&format!("{listing}\nc3: ret")).origins(merged).expect("few");
    origins.sort_by_key(|v| format!("{v:?}"));
    assert_eq!(origins, [Value::Arg(RCX), Value::Arg(RDI)]);
}

#[test]
fn loops_keep_what_they_do_not_change_and_tell_rounds_apart() {
    // rbx holds what rax held a round earlier.
    let end = at_return(
        "48 89 c3: mov %rax,%rbx
         48 8b 01: mov (%rcx),%rax
         48 85 c0: test %rax,%rax
         75 f5: jne 1000",
    );
    assert_ne!(end.reg(RAX), end.reg(RBX));
    assert_eq!(end.reg(RCX), Value::Arg(RCX));
    // The outer loop changes rdx; in the inner one it is constant.
    let end = at_return(
        "31 d2: xor %edx,%edx
         48 89 ce: mov %rcx,%rsi
         48 ff ce: dec %rsi
         75 fb: jne 1005
         49 89 d0: mov %rdx,%r8
         48 ff c2: inc %rdx
         48 39 d1: cmp %rdx,%rcx
         75 ed: jne 1002",
    );
    assert_eq!(end.reg(R8), Value::Phi { at: 0x1002, loc: Loc::Reg(RDX) });
    assert_eq!(end.reg(RCX), Value::Arg(RCX));
}

#[test]
fn loops_that_pass_values_around_settle() {
    // Three registers rotate in an outer loop around one that changes none of them.
    let end = at_return(
        "48 89 d9: mov %rbx,%rcx
         48 89 d3: mov %rdx,%rbx
         48 89 ca: mov %rcx,%rdx
         48 ff ce: dec %rsi
         75 fb: jne 1009
         48 ff cf: dec %rdi
         75 ed: jne 1000",
    );
    assert_ne!(end.reg(RBX), end.reg(RDX));
    assert_eq!(end.reg(RAX), Value::Arg(RAX));
}

#[test]
fn what_follows_a_call_that_never_returns_is_not_its_successor() {
    let end = at_return(
        "85 c0: test %eax,%eax
         75 0a: jne 100e
         bb 07 00 00 00: mov $0x7,%ebx
         e8 f2 7f 00 00: call throw",
    );
    assert_eq!(end.reg(RBX), Value::Arg(RBX));
}

const SWITCH: &str = "48 83 f8 02: cmp $0x2,%rax
     73 12: jae 1018
     48 8d 15 f3 0f 00 00: lea 0xff3(%rip),%rdx
     ff 24 c2: jmp *(%rdx,%rax,8)
     48 89 cb: mov %rcx,%rbx
     eb 03: jmp 1018
     48 89 fb: mov %rdi,%rbx
     c3: ret";

#[test]
fn switches_lead_to_the_cases_of_their_tables() {
    let flow = flow(SWITCH);
    let end = flow.before(0x1018).expect("reached").reg(RBX);
    let mut origins = flow.origins(end).expect("few");
    origins.sort_by_key(|v| format!("{v:?}"));
    assert_eq!(origins, [Value::Arg(RCX), Value::Arg(RBX), Value::Arg(RDI)]);
    // Not the table that is in memory, so nothing is known of where this leads.
    assert!(try_flow(&SWITCH.replace("f3 0f", "f3 1f")).is_none());
    // Something leads in between the load of the table's address and its use.
    assert!(try_flow(&SWITCH.replace("73 12: jae 1018", "73 07: jae 100d")).is_none());
}

#[test]
fn what_cannot_be_followed_is_refused() {
    for listing in [
        "",
        "ff e0: jmp *%rax",
        "eb 01: jmp 1003\nbb 05 00 00 00: mov $0x5,%ebx\nc3: ret",
        "74 01: je 1003\n06: (bad)\nc3: ret",
        "c7 f8 00 00 00 00: xbegin 1006\nc3: ret",
    ] {
        assert!(try_flow(listing).is_none(), "{listing}");
    }
    assert!(try_flow("c3: ret\n06: (bad)").is_some(), "padding is not run");
    let nops = vec![0x90; (1 << 20) + 1];
    assert!(Flow::analyse(&nops, START, &Around).is_none());
    assert!(Flow::analyse(&nops[1..], START, &Around).is_some());
    assert!(Flow::analyse(&[0xc3; 2], u64::MAX, &Around).is_none());
}

#[test]
fn functions_are_left_by_returns_and_by_jumps_to_others() {
    let left_at = |listing: &str| {
        let flow = flow(listing);
        flow.reachable().filter(|i| flow.leaves(i)).map(Instruction::ip).collect::<Vec<_>>()
    };
    assert_eq!(left_at("85 c0: test %eax,%eax\n0f 84 f8 5f 00 00: je 7000\nc3: ret"), [0x1002, 0x1008]);
    assert_eq!(left_at("90: nop\n90: nop"), [0x1001]);
    assert!(left_at("0f 0b: ud2").is_empty());
}

#[test]
fn paths_are_told_apart() {
    let flow = flow(
        "85 c0: test %eax,%eax
         74 05: je 1009
         e8 f7 6f 00 00: call 8000
         48 83 f9 01: cmp $0x1,%rcx
         74 05: je 1014
         e8 ec 77 00 00: call 8800
         48 ff c9: dec %rcx
         75 f0: jne 1009
         c3: ret
         e8 e1 6f 00 00: call 8000",
    );
    let (test, first, compare, second, dec, end) = (0x1000, 0x1004, 0x1009, 0x100f, 0x1014, 0x1019);
    for (through, to, expected) in [
        (test, end, true),
        (first, end, false),
        (compare, end, true),
        (second, end, false),
        (dec, end, true),
        (end, end, true),
        (dec, compare, false),
        (end, 0x101a, true), // Nothing leads there: every path, of none.
    ] {
        assert_eq!(flow.dominates(through, to), expected, "{through:#x} before {to:#x}");
    }
    for (from, to, expected) in [
        (test, test, false),
        (first, first, false),
        (second, second, true),
        (dec, compare, true),
        (compare, first, false),
        (end, end, false),
        (test, 0x101a, false),
        (test, 0x1001, false), // Not an instruction.
    ] {
        assert_eq!(flow.reaches(from, to), expected, "{from:#x} to {to:#x}");
    }
    assert!(flow.before(0x101a).is_none());
    assert_eq!(flow.call_returning_to(0x1009).map(Instruction::ip), Some(first));
    assert!(flow.call_returning_to(0x1004).is_none());
}

/// Code that costs the analysis most: many blocks, each merging many slots.
fn spilling_loops(bytes: usize) -> Vec<u8> {
    let mut code = vec![0x48, 0x81, 0xec, 0x00, 0x00, 0x01, 0x00]; // sub $0x10000,%rsp
    for slot in 0..1000u32 {
        code.extend([0x48, 0x89, 0x84, 0x24]); // mov %rax,slot(%rsp)
        code.extend((8 * slot).to_le_bytes());
    }
    while code.len() < bytes {
        code.extend([0x48, 0xff, 0xc0, 0x75, 0xf0]); // inc %rax; jne back
    }
    code
}

#[test]
fn hostile_code_costs_bounded_time() {
    let jumps: Vec<u8> =
        (0..1 << 19).flat_map(|n: u32| [0x70 | (n & 15) as u8, (n.wrapping_mul(37)) as u8]).collect();
    for code in [jumps, spilling_loops(1 << 15), spilling_loops(1 << 20)] {
        let began = Instant::now();
        let flow = Flow::analyse(&code, START, &Around);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "{} bytes took {took:?}: {}", code.len(), flow.is_some());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_analysed_or_refused(code in prop::collection::vec(any::<u8>(), 0..400), start in any::<u64>()) {
        let Some(flow) = Flow::analyse(&code, start, &Around) else { return Ok(()) };
        let mut looked_at = 0;
        flow.visit(|i, state| {
            assert_eq!(flow.before(i.ip()).as_ref(), Some(state));
            flow.origins(state.reg(RAX));
            looked_at += 1;
        });
        prop_assert_eq!(looked_at, flow.reachable().count());
    }
}
