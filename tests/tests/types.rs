//! Types read from a process's memory, against what its own reflect says of them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::{Process, Variant, build, go_lines};
use tracer::event::TypeInfo;
use tracer::memory::LiveMemory;
use tracer::runtime::{Layout, TypeReader};
use tracer::target::identify;

const PATIENCE: Duration = Duration::from_secs(60);

/// A line of the target program: the descriptor's address, and what it says.
fn parse(line: &str) -> Option<(u64, TypeInfo)> {
    let mut fields = line.splitn(5, '\t');
    let addr = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
    let size = fields.next()?.parse().ok()?;
    let (kind, package) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    let name = fields.next()?.to_owned();
    Some((addr, TypeInfo { name, package, size, ptr_bytes: 0, kind }))
}

#[test]
fn types_are_what_reflect_says() -> Result<()> {
    for line in go_lines()? {
        for variant in Variant::ALL {
            let mut process = Process::spawn(&mut Command::new(build("types", line, variant)?))?;
            let mut said = Vec::new();
            loop {
                let text = process.stdout_line(|_| true, PATIENCE)?;
                match parse(&text) {
                    Some(entry) => said.push(entry),
                    None => break assert_eq!(text, "ready"),
                }
            }
            let pid = i32::try_from(process.pid())?;
            let it = identify(pid, None)?;
            let layout = Layout::for_binary(&it.binary, &it.target.go_version)?;
            let module = it.binary.moduledata().context("moduledata")?;
            let at = |addr: u64| addr.wrapping_add(it.target.load_bias);
            let types = at(module.types)..at(module.etypes);
            let reader = TypeReader::new(LiveMemory::new(pid), &layout, types);
            assert!(said.len() > 100, "{line} {variant}: {}", said.len());
            let mut created = 0;
            for (addr, want) in said {
                let got = reader.read(addr).with_context(|| format!("{line} {variant} {want:?}"))?;
                let name = if got.name.starts_with("runtime-created") { &got.name } else { &want.name };
                created += usize::from(*name != want.name);
                // reflect does not tell how far pointers reach.
                let want = TypeInfo { ptr_bytes: got.ptr_bytes, name: name.clone(), ..want };
                assert_eq!(got, want, "{line} {variant}");
            }
            assert_eq!(created, 2, "{line} {variant}");
            for bad in [0, 8, at(module.addr), u64::MAX] {
                assert!(reader.read(bad).is_err(), "{bad:#x}");
            }
        }
    }
    Ok(())
}
