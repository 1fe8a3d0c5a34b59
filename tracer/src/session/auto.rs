//! Which lane suits a process: `--mode auto`.

use super::options::Mode;
use crate::base::Result;
use crate::memory::LiveMemory;
use crate::runtime::{Layout, ProfileReader};
use crate::target::Identity;

/// The lane for a process, `starting` if it has yet to begin, and why, for people.
pub fn choose(target: &Identity, starting: bool) -> (Mode, String) {
    if starting {
        return (Mode::Burst, "mode burst: a program that starts has not set its rate of samples yet".into());
    }
    match rate(target) {
        Ok(rate @ 1..) => (
            Mode::Runtime,
            format!("mode runtime: the program's own heap profiler is on (MemProfileRate {rate})"),
        ),
        Ok(_) => {
            (Mode::Burst, "mode burst: the program's own heap profiler is off (MemProfileRate 0)".into())
        }
        Err(e) => (
            Mode::Burst,
            format!("mode burst: whether the program's own heap profiler is on cannot be read: {e}"),
        ),
    }
}

fn rate(target: &Identity) -> Result<i64> {
    let layout = Layout::for_binary(&target.binary, &target.target.go_version)?;
    let reader = ProfileReader::new(&target.binary, &layout, target.target.load_bias)?;
    reader.rate(&LiveMemory::new(target.target.pid as i32))
}
