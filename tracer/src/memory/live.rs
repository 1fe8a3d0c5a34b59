//! A running process's memory, read with `process_vm_readv` (no stop, no ptrace attach).

use std::io::IoSliceMut;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::ProcessMemory;
use crate::base::{Error, Result};

/// The memory of the process with this id.
#[derive(Debug, Clone, Copy)]
pub struct LiveMemory {
    pid: i32,
}

impl LiveMemory {
    pub fn new(pid: i32) -> LiveMemory {
        LiveMemory { pid }
    }
}

impl ProcessMemory for LiveMemory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let remote = [RemoteIoVec { base: (addr as usize).wrapping_add(done), len: buf.len() - done }];
            let n =
                process_vm_readv(Pid::from_raw(self.pid), &mut [IoSliceMut::new(&mut buf[done..])], &remote)
                    .map_err(|e| self.explain(addr, e))?;
            if n == 0 {
                return Err(Error::failed(format!(
                    "memory of process {} ends at {:#x}",
                    self.pid,
                    addr + done as u64
                )));
            }
            done += n;
        }
        Ok(())
    }
}

impl LiveMemory {
    fn explain(&self, addr: u64, e: nix::Error) -> Error {
        use nix::errno::Errno;
        let pid = self.pid;
        match e {
            Errno::ESRCH => Error::failed(format!("process {pid} has ended")),
            Errno::EPERM => Error::environment(format!("not permitted to read the memory of process {pid}"))
                .hint("run as root, or give heaptap CAP_SYS_PTRACE and see kernel.yama.ptrace_scope"),
            e => Error::failed(format!("cannot read memory of process {pid} at {addr:#x}")).because(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_memory_and_refuses_null() {
        let secret = *b"heaptap!";
        let me = LiveMemory::new(std::process::id() as i32);
        let got = me.read_u64(secret.as_ptr() as u64).expect("own memory");
        assert_eq!(got, u64::from_le_bytes(secret));
        assert!(me.read_u64(8).is_err());
    }
}
