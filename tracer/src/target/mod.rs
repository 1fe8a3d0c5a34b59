//! Finding a process, its maps and what it is (tier 2).

mod alive;
mod c_library;
mod find;
mod identify;
mod maps;
mod spawn;

pub use alive::{Ended, Watch};
pub use c_library::{Allocator, c_allocator};
pub use find::{by_cgroup, by_cmdline, by_container, by_name, by_pid};
pub use identify::{Identity, identify, open_binary};
pub use maps::{load_bias, read_maps};
pub use spawn::Spawned;

use procfs::ProcError;

use crate::base::Error;

/// Says what a failed look at `/proc/PID` means to the user.
fn explain(pid: i32, error: ProcError) -> Error {
    let io_kind = match &error {
        ProcError::Io(e, _) => Some(e.kind()),
        _ => None,
    };
    let permission = matches!(error, ProcError::PermissionDenied(_))
        || io_kind == Some(std::io::ErrorKind::PermissionDenied);
    if permission {
        return not_permitted(pid);
    }
    // ESRCH: the process ended while its file was open.
    let gone = matches!(error, ProcError::NotFound(_))
        || matches!(&error, ProcError::Io(e, _) if e.raw_os_error() == Some(libc::ESRCH));
    if gone {
        return Error::ended(pid);
    }
    Error::failed(format!("cannot read /proc/{pid}")).because(error)
}

fn not_permitted(pid: i32) -> Error {
    Error::environment(format!("not permitted to look into process {pid}"))
        .hint("run as root, or give heaptap CAP_SYS_PTRACE and see kernel.yama.ptrace_scope")
}
