//! `heaptap doctor`: whether this machine and user can trace, and how to fix it.

use std::io::{self, Write};

use super::args::Doctor;
use super::{to_stdout, write_json};
use crate::base::Result;
use crate::source::live::doctor::{self, Check, Verdict};

/// Exit code 4 when something is missing without which nothing works.
pub(super) fn run(args: &Doctor) -> Result<u8> {
    let checks = doctor::checks();
    if args.json {
        write_json(&checks)?;
    } else {
        to_stdout(|out| table(&checks, out))?;
    }
    let missing = checks.iter().any(|check| check.verdict == Verdict::Missing);
    Ok(if missing { 4 } else { 0 })
}

fn table(checks: &[Check], out: &mut dyn Write) -> io::Result<()> {
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Degraded => "degraded",
            Verdict::Missing => "MISSING",
        };
        writeln!(out, "{verdict:<9} {:<22} {}", check.name, check.detail)?;
        if !check.fix.is_empty() {
            writeln!(out, "{:<32} fix: {}", "", check.fix)?;
        }
    }
    Ok(())
}
