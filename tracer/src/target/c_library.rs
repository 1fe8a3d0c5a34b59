//! Finding the C library of a process.

use std::fs;
use std::os::unix::fs::MetadataExt;

use procfs::process::{MMapPath, Process};

use super::{Identity, explain, load_bias, read_maps};
use crate::base::{Error, Result};
use crate::binary::CLibrary;

/// What a process has `malloc` from.
#[derive(Debug)]
pub struct Allocator {
    pub library: CLibrary,
    /// As the process names it.
    pub path: String,
    /// Where it can be opened from here.
    pub file: String,
    /// Run-time minus link-time address.
    pub load_bias: u64,
}

/// Finds it: in the executable, where that is linked statically, else in the libc that is mapped.
///
/// # Errors
/// Usage when there is none, or it has not been loaded yet; Failed when the file is not the
/// one any more that the process has mapped.
pub fn c_allocator(identity: &Identity) -> Result<Allocator> {
    let target = &identity.target;
    let pid = target.pid as i32;
    let maps = read_maps(pid)?;
    let exe = format!("/proc/{pid}/exe");
    let own = parse(&exe)?;
    if own.function("malloc").is_some() {
        let path = target.exe.clone();
        return Ok(Allocator { library: own, path, file: exe, load_bias: target.load_bias });
    }
    let found = maps.iter().find(|map| map.executable && is_libc(&map.path));
    let Some(found) = found else {
        let error =
            Error::usage("the program has no C library with malloc: there is nothing of C's to follow");
        return Err(error.hint(
            "leave out --cgo; a program that is started with --exec, or is linked statically and stripped, \
             cannot be followed in C",
        ));
    };
    let file = format!("/proc/{pid}/root{}", found.path);
    check_same(pid, &file, found.start)?;
    let library = parse(&file)?;
    let load_bias = load_bias(&maps, &found.path, library.lowest_vaddr())?;
    Ok(Allocator { library, path: found.path.clone(), file, load_bias })
}

/// glibc's `libc.so.6` (`libc-2.31.so` up to 2.33), musl's `ld-musl-x86_64.so.1` or `libc.so`.
fn is_libc(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let known = ["libc.so", "libc-2.", "ld-musl-", "libc.musl-"];
    known.iter().any(|begin| name.starts_with(begin))
}

fn parse(file: &str) -> Result<CLibrary> {
    let bytes = fs::read(file).map_err(|e| Error::failed(format!("cannot read {file}")).because(e))?;
    CLibrary::parse(bytes.into())
}

/// That the file is the one behind the mapping at `start`, not a newer one of its name.
fn check_same(pid: i32, file: &str, start: u64) -> Result<()> {
    let maps = Process::new(pid).and_then(|process| process.maps()).map_err(|e| explain(pid, e))?;
    let mapped = maps.iter().find(|map| map.address.0 == start && matches!(map.pathname, MMapPath::Path(_)));
    let now = fs::metadata(file).map_err(|e| Error::failed(format!("cannot open {file}")).because(e))?;
    if mapped.is_some_and(|map| map.inode == now.ino()) {
        return Ok(());
    }
    Err(Error::failed(format!("{file} is not the library any more that the process has loaded"))
        .hint("it was upgraded since: restart the program to follow its C allocations"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libcs_are_known_by_name() {
        for path in ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc-2.31.so", "/lib/ld-musl-x86_64.so.1"] {
            assert!(is_libc(path), "{path}");
        }
        for path in ["/lib64/ld-linux-x86-64.so.2", "/usr/lib/libcap.so.2", "/usr/lib/libc++.so.1"] {
            assert!(!is_libc(path), "{path}");
        }
    }
}
