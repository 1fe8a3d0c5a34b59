//! What a process is: its executable, Go version, build and place in memory.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;

use super::{find, load_bias, not_permitted, read_maps};
use crate::base::{Error, Result};
use crate::binary::Binary;
use crate::event::Target;

/// A process and the executable it runs.
#[derive(Debug)]
pub struct Identity {
    pub binary: Binary,
    pub target: Target,
}

/// Looks at a process through `/proc/PID`, which also works when its executable was
/// deleted or lies in another mount namespace.
///
/// `assume_go` is a Go version that the user knows better than the binary. When nobody
/// knows, the target's version is `unknown`.
///
/// # Errors
/// Usage when it is not a Go program for this architecture; Environment when it may not
/// be read; Failed when it is gone.
pub fn identify(pid: i32, assume_go: Option<&str>) -> Result<Identity> {
    let link = format!("/proc/{pid}/exe");
    let exe = fs::read_link(&link).map_err(|e| match e.kind() {
        ErrorKind::PermissionDenied => not_permitted(pid),
        // A zombie and a kernel thread have no executable either.
        ErrorKind::NotFound => match find::by_pid(pid) {
            Ok(_) => Error::usage(format!("process {pid} is a kernel thread")),
            Err(gone) => gone,
        },
        _ => Error::failed(format!("cannot read {link}")).because(e),
    })?;
    let exe = exe.to_string_lossy().into_owned();
    let binary = open_binary(Path::new(&link)).map_err(|e| e.context(format!("process {pid} ({exe})")))?;
    let maps = read_maps(pid)?;
    let load_bias = load_bias(&maps, &exe, binary.lowest_vaddr())?;
    let go_version = assume_go.map(str::to_owned).or_else(|| binary.go_version());
    let target = Target {
        pid: pid.unsigned_abs(),
        exe,
        build_id: binary.build_id(),
        go_version: go_version.unwrap_or_else(|| "unknown".to_owned()),
        arch: "amd64".to_owned(),
        stripped: binary.is_stripped(),
        pie: binary.is_pie(),
        cgo: binary.uses_cgo(),
        load_bias,
        maps,
    };
    log::debug!("process {pid}: {} {} bias {load_bias:#x}", target.exe, target.go_version);
    Ok(Identity { binary, target })
}

/// Reads and parses an executable, and sees to it that it is a Go program.
///
/// # Errors
/// Usage when it is not; Failed when it cannot be read.
pub fn open_binary(path: &Path) -> Result<Binary> {
    let bytes = fs::read(path).map_err(|e| {
        let error = Error::failed(format!("cannot read {}", path.display()));
        match e.kind() {
            ErrorKind::PermissionDenied => {
                Error::environment(format!("not permitted to read {}", path.display()))
                    .hint("run as root, or as a user who may read the file")
            }
            _ => error.because(e),
        }
    })?;
    let binary = Binary::parse(Bytes::from(bytes))?;
    binary.functions()?;
    Ok(binary)
}
