//! A process's memory map, and where its executable lies in it.

use procfs::process::{MMPermissions, MMapPath, Process};

use super::explain;
use crate::base::{Error, Result};
use crate::event::Mapping;

/// The mappings that are backed by a file or executable, in the order of addresses.
///
/// # Errors
/// Failed when the process is gone; Environment when it may not be read.
pub fn read_maps(pid: i32) -> Result<Vec<Mapping>> {
    let maps = Process::new(pid).and_then(|p| p.maps()).map_err(|e| explain(pid, e))?;
    let kept = maps.into_iter().filter_map(|map| {
        let executable = map.perms.contains(MMPermissions::EXECUTE);
        let path = match map.pathname {
            MMapPath::Path(path) => path.to_string_lossy().into_owned(),
            MMapPath::Vdso => "[vdso]".to_owned(),
            _ => String::new(),
        };
        let (start, end) = map.address;
        (executable || !path.is_empty()).then_some(Mapping {
            start,
            end,
            offset: map.offset,
            executable,
            path,
        })
    });
    let kept: Vec<Mapping> = kept.collect();
    // A process that ends gives up its memory first: then it is still there, without any.
    if kept.is_empty() {
        return Err(Error::ended(pid));
    }
    Ok(kept)
}

/// Run-time minus link-time address of the executable mapped from `exe` (as the link
/// `/proc/PID/exe` reads, also when deleted), of which `lowest_vaddr` is the lowest
/// loaded page.
///
/// The kernel maps an executable's segments in the order of their addresses, so the
/// lowest mapping of the file holds its lowest page.
///
/// # Errors
/// Failed when the executable is not mapped.
pub fn load_bias(maps: &[Mapping], exe: &str, lowest_vaddr: u64) -> Result<u64> {
    let lowest = maps.iter().filter(|map| map.path == exe).map(|map| map.start).min();
    let start = lowest.ok_or_else(|| Error::failed(format!("{exe} is not mapped in its process")))?;
    Ok(start.wrapping_sub(lowest_vaddr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_is_that_of_the_lowest_mapping() {
        let map = |start, offset, path: &str| Mapping {
            start,
            end: start + 0x1000,
            offset,
            executable: offset > 0,
            path: path.to_owned(),
        };
        let maps = [
            map(0x5000_0000, 0, "/bin/other"),
            map(0x5500_0000, 0, "/srv/app (deleted)"),
            map(0x5500_1000, 0x1000, "/srv/app (deleted)"),
        ];
        assert_eq!(load_bias(&maps, "/srv/app (deleted)", 0x40_0000).ok(), Some(0x5500_0000 - 0x40_0000));
        assert!(load_bias(&maps, "/srv/app", 0).is_err());
    }

    #[test]
    fn own_maps_hold_own_executable() {
        let pid = std::process::id() as i32;
        let exe = std::fs::read_link("/proc/self/exe").expect("exe");
        let maps = read_maps(pid).expect("maps");
        let bias = load_bias(&maps, &exe.to_string_lossy(), 0).expect("bias");
        let here = own_maps_hold_own_executable as fn() as usize as u64;
        let code = maps.iter().find(|m| (m.start..m.end).contains(&here)).expect("own code");
        assert!(code.executable && code.path == exe.to_string_lossy() && bias <= here);
        assert!(maps.iter().any(|m| m.path == "[vdso]"));
    }
}
