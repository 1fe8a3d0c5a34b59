//! One session per process at a time.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use procfs::process::Process;

use crate::base::{Error, Result};

/// Held while a session is on a process. It is a socket with an abstract name (unix(7)): the
/// kernel takes it back when its owner ends, however that does.
#[derive(Debug)]
pub(super) struct Lock {
    _socket: UnixDatagram,
}

impl Lock {
    /// # Errors
    /// Usage when another session is on the process; Failed when that is gone.
    pub(super) fn of(pid: i32) -> Result<Lock> {
        let gone = |e| Error::ended(pid).because(e);
        let started = Process::new(pid).and_then(|process| process.stat()).map_err(gone)?.starttime;
        let taken = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                Error::usage(format!("another session is on process {pid} already"))
                    .hint("end that one, or wait for it: sessions would count each other's probes as cost")
            }
            _ => Error::failed(format!("cannot claim process {pid} for this session")).because(e),
        };
        let name =
            SocketAddr::from_abstract_name(format!("heaptap-session-{pid}-{started}")).map_err(taken)?;
        Ok(Lock { _socket: UnixDatagram::bind_addr(&name).map_err(taken)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn a_process_has_one_session_at_a_time() {
        let pid = std::process::id() as i32;
        let first = Lock::of(pid).expect("first");
        let second = Lock::of(pid).expect_err("second");
        assert_eq!(second.kind(), ErrorKind::Usage);
        drop(first);
        Lock::of(pid).expect("third");
    }
}
