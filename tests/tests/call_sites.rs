//! Types and sizes of allocations from their callers' machine code, on real programs.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use tests::{Variant, build, go_lines};
use tracer::binary::flow::Flow;
use tracer::binary::{Binary, Function};
use tracer::plan::CallSites;

/// The way from a function of tests/go/calls to an allocation: who calls whom, the last
/// one being probed. `main.f[*` stands for an instance of a generic function, `*` for
/// whatever a pointer leads to.
type Chain = &'static [&'static str];

/// A type by name (`nil`: memory without one; `?`: not said) and the bytes asked for.
type Told = (&'static str, Option<u64>);

/// What the callers say on the ways along a chain.
type Case = (Chain, &'static [Told]);

/// Compiled code calls the function of its size class itself.
const SPECIALISED: &[Case] = &[
    (&["main.pointers2", "runtime.mallocgcSmallScanNoHeaderSC2"], &[("main.pair", Some(16))]),
    (&["main.pointers3", "runtime.mallocgcSmallScanNoHeaderSC3"], &[("main.triple", Some(24))]),
    (&["main.noscan3", "runtime.mallocgcSmallNoScanSC3"], &[("main.words", Some(24))]),
    (&["main.inlines", "runtime.mallocgcSmallScanNoHeaderSC3"], &[("main.triple", Some(24))]),
    (
        &["main.either", "runtime.mallocgcSmallNoScanSC3"],
        &[("[3]uint64", Some(24)), ("main.words", Some(24))],
    ),
    (
        &["main.closure", "runtime.mallocgcSmallScanNoHeaderSC2"],
        &[("struct { F uintptr; X0 *int }", Some(16))],
    ),
    // While the GC marks: the same arguments, one call further in.
    (
        &["main.pointers3", "runtime.mallocgcSmallScanNoHeaderSC3", "runtime.mallocgcSmallScanSlowPath"],
        &[("main.triple", Some(24))],
    ),
];

/// Through `mallocgc`, in every release.
const GENERAL: &[Case] = &[
    (&["main.over80", "runtime.newobject", "runtime.mallocgc"], &[("main.big", Some(168))]),
    (&["main.slice", "runtime.makeslice", "runtime.mallocgc"], &[("main.triple", None)]),
    (&["main.constSlice", "runtime.makeslice", "runtime.mallocgc"], &[("main.words", None)]),
    (&["main.grow", "runtime.growslice", "runtime.mallocgc"], &[("main.triple", None), ("nil", None)]),
    (&["main.growBytes", "runtime.growslice", "runtime.mallocgc"], &[("nil", None), ("uint8", None)]),
    (
        &[
            "main.concat",
            "runtime.concatstring3",
            "runtime.concatstrings",
            "runtime.rawstringtmp",
            "runtime.mallocgc",
        ],
        &[("nil", None)],
    ),
    (&["main.fromBytes", "runtime.slicebytetostring", "runtime.mallocgc"], &[("nil", None)]),
    (&["main.boxed", "runtime.convTnoptr", "runtime.mallocgc"], &[("main.words", Some(24))]),
    (&["main.boxedInt", "runtime.convT64", "runtime.mallocgc"], &[("runtime.uint64InterfacePtr", Some(8))]),
    (
        &["main.channel", "runtime.makechan", "runtime.mallocgc"],
        &[("main.triple", None), ("nil", None), ("nil", Some(CHAN))],
    ),
    (
        &["main.reflected", "reflect.New", "reflect.unsafe_New", "runtime.mallocgc"],
        &[("main.words", Some(24))],
    ),
    (
        &["main.genericNew", "main.newOf[*", "runtime.newobject", "runtime.mallocgc"],
        &[("main.triple", Some(24))],
    ),
    (
        &["main.genericNewBig", "main.newOf[*", "runtime.newobject", "runtime.mallocgc"],
        &[("main.big", Some(168))],
    ),
    (
        &["main.genericSlice", "main.sliceOf[*", "runtime.makeslice", "runtime.mallocgc"],
        &[("main.words", None)],
    ),
    (
        &["main.genericVia", "main.sliceVia[*", "main.sliceOf[*", "runtime.makeslice", "runtime.mallocgc"],
        &[("main.words", None)],
    ),
];

/// Bytes of `runtime.hchan`, rounded up to `maxAlign` (runtime/chan.go `hchanSize`), since Go 1.25.
const CHAN: u64 = 112;

#[test]
fn callers_tell_type_and_size() -> Result<()> {
    for line in go_lines()?.into_iter().filter(|line| line.minor >= 26) {
        let binary = Binary::parse(std::fs::read(build("calls", line, Variant::Plain)?)?.into())?;
        let specialised = binary.functions()?.by_name("runtime.mallocgcTinySC2").is_some();
        for (chain, expected) in GENERAL {
            check(&binary, chain, expected).with_context(|| format!("Go {line}"))?;
            if specialised {
                // On through the tables of specialised functions.
                check(&binary, &[chain, &["*"][..]].concat(), expected)
                    .with_context(|| format!("Go {line}"))?;
            }
        }
        for (chain, expected) in SPECIALISED.iter().filter(|_| specialised) {
            check(&binary, chain, expected).with_context(|| format!("Go {line}"))?;
        }
    }
    Ok(())
}

fn check(binary: &Binary, chain: &[&str], expected: &[Told]) -> Result<()> {
    let expected: BTreeSet<_> = expected.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
    assert_eq!(told(binary, chain)?, expected, "{chain:?}");
    Ok(())
}

/// A frame in between that does not make the call below it means that something only
/// jumped on, with other arguments.
#[test]
fn broken_chains_tell_nothing() -> Result<()> {
    let newest = go_lines()?.pop().context("no Go line")?;
    let binary = Binary::parse(std::fs::read(build("calls", newest, Variant::Plain)?)?.into())?;
    let stack = |chain| stacks(&binary, chain)?.pop().context("no stack");
    let slice = stack(&["main.slice", "runtime.makeslice", "runtime.mallocgc"])?;
    let new = stack(&["main.over80", "runtime.newobject", "runtime.mallocgc"])?;
    let mut sites = CallSites::new(&binary, |_| None);
    assert!(sites.passed(&slice).type_addr.is_some());
    for broken in
        [vec![slice[0], new[1]], vec![slice[1]], vec![slice[0]], vec![slice[0] + 1, slice[1]], vec![]]
    {
        assert_eq!(sites.passed(&broken), Default::default(), "{broken:x?}");
    }
    Ok(())
}

/// Of stacks that the heap profiler took up to Go 1.25 the two innermost calls are missing.
#[test]
fn a_call_that_the_profiler_leaves_out_is_found() -> Result<()> {
    for line in go_lines()? {
        let binary = Binary::parse(std::fs::read(build("calls", line, Variant::Plain)?)?.into())?;
        let mut sites = CallSites::new(&binary, |_| None);
        let whole = stacks(&binary, &["main.over80", "runtime.newobject", "runtime.mallocgc"])?;
        let whole = whole.first().with_context(|| format!("Go {line}"))?;
        assert_eq!(sites.left_out(whole[1]), Some(whole[0]), "Go {line}");
        assert_eq!(sites.left_out(whole[0]), None, "Go {line}: nothing is between it and mallocgc");
        let passed = sites.passed_before_sampling(whole);
        assert!(passed.type_addr.is_some() && passed == sites.passed(whole), "Go {line}: {passed:?}");
        // One of two calls: which, is not to be told.
        let grown = stacks(&binary, &["main.grow", "runtime.growslice", "runtime.mallocgc"])?;
        let grown = grown.first().with_context(|| format!("Go {line}"))?;
        let left_out = sites.left_out(grown[1]).with_context(|| format!("Go {line}"))?;
        let function = binary.functions()?.containing(left_out).map(|function| function.name.to_owned());
        assert_eq!(function.as_deref(), Some("runtime.growslice"), "Go {line}");
        assert_eq!(sites.passed(&[left_out, grown[1]]), Default::default(), "Go {line}");
    }
    Ok(())
}

/// What the callers say on each way along a chain.
fn told(binary: &Binary, chain: &[&str]) -> Result<BTreeSet<(String, Option<u64>)>> {
    // What `runtime.init` puts into the variable.
    let boxed = |addr| {
        let variable = binary.symbol("runtime.uint64Type")?;
        let interface = binary.symbol("runtime.uint64Eface").filter(|_| variable.addr == addr)?;
        binary.read_u64(interface.addr)
    };
    let mut sites = CallSites::new(binary, boxed);
    let mut found = BTreeSet::new();
    for stack in stacks(binary, chain)? {
        let passed = sites.passed(&stack);
        let type_name = match passed.type_addr {
            None => "?".to_owned(),
            Some(0) => "nil".to_owned(),
            Some(addr) => type_name(binary, addr).with_context(|| format!("no type at {addr:#x}"))?,
        };
        found.insert((type_name, passed.size));
    }
    Ok(found)
}

/// The stacks of return addresses, innermost first, along a chain of calls.
fn stacks(binary: &Binary, chain: &[&str]) -> Result<Vec<Vec<u64>>> {
    let mut stacks = vec![Vec::new()];
    // Functions with their own copy for an instance are told apart by who calls them.
    let mut callers: Vec<Function<'_>> = named(binary, chain[0])?;
    for callee in &chain[1..] {
        let mut called = Vec::new();
        let mut longer = Vec::new();
        for caller in &callers {
            for (return_address, target) in calls(binary, caller, callee)? {
                called.extend(target.and_then(|target| binary.functions().ok()?.containing(target)));
                for stack in &stacks {
                    let mut stack: Vec<u64> = Vec::clone(stack);
                    stack.insert(0, return_address);
                    longer.push(stack);
                }
            }
        }
        called.sort_by_key(|f| f.start);
        called.dedup();
        (callers, stacks) = (called, longer);
    }
    Ok(stacks)
}

fn named<'a>(binary: &'a Binary, name: &str) -> Result<Vec<Function<'a>>> {
    Ok(vec![binary.functions()?.by_name(name).with_context(|| format!("no function {name}"))?])
}

/// Return address and target of each call of a function to one of that name.
fn calls(binary: &Binary, caller: &Function<'_>, callee: &str) -> Result<Vec<(u64, Option<u64>)>> {
    let code = binary.read(caller.start, (caller.end - caller.start) as usize).context("code")?;
    let flow = Flow::analyse(code, caller.start, binary).with_context(|| format!("{caller:?}"))?;
    let is_callee = |name: &str| match callee.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == callee,
    };
    let mut found = Vec::new();
    for i in flow.reachable() {
        if callee == "*" {
            found.extend(i.is_call_near_indirect().then(|| (i.next_ip(), None)));
        } else if i.is_call_near() && binary.name_at(i.near_branch_target()).is_some_and(is_callee) {
            found.push((i.next_ip(), Some(i.near_branch_target())));
        }
    }
    Ok(found)
}

/// The name in a type's descriptor (internal/abi/type.go `Type`, `Name`).
fn type_name(binary: &Binary, addr: u64) -> Option<String> {
    const TFLAG_EXTRA_STAR: u8 = 2;
    let descriptor = binary.read(addr, 48)?;
    let offset = u32::from_le_bytes(descriptor[40..44].try_into().ok()?);
    let name = binary.moduledata()?.types + u64::from(offset);
    let len = usize::from(*binary.read(name + 1, 1)?.first()?);
    let text = String::from_utf8_lossy(binary.read(name + 2, len)?).into_owned();
    Some(if descriptor[20] & TFLAG_EXTRA_STAR != 0 { text[1..].to_owned() } else { text })
}
