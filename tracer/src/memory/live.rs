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

    fn read_many(&self, reads: &mut [(u64, &mut [u8])]) -> Result<()> {
        for batch in reads.chunks_mut(MAX_RANGES) {
            self.read_batch(batch)?;
        }
        Ok(())
    }
}

/// Ranges one `process_vm_readv` accepts (UIO_MAXIOV, process_vm_readv(2)).
const MAX_RANGES: usize = 1024;

impl LiveMemory {
    /// Reads up to `MAX_RANGES` ranges with one system call.
    fn read_batch(&self, batch: &mut [(u64, &mut [u8])]) -> Result<()> {
        let remote: Vec<RemoteIoVec> =
            batch.iter().map(|(addr, buf)| RemoteIoVec { base: *addr as usize, len: buf.len() }).collect();
        let want: usize = remote.iter().map(|r| r.len).sum();
        let first = batch.first().map_or(0, |(addr, _)| *addr);
        let mut local: Vec<IoSliceMut> = batch.iter_mut().map(|(_, buf)| IoSliceMut::new(buf)).collect();
        let n = process_vm_readv(Pid::from_raw(self.pid), &mut local, &remote)
            .map_err(|e| self.explain(first, e))?;
        if n == want {
            return Ok(());
        }
        // Short: the kernel stopped at a bad range, or at its limit for one call.
        batch.iter_mut().try_for_each(|(addr, buf)| self.read(*addr, buf))
    }

    fn explain(&self, addr: u64, e: nix::Error) -> Error {
        use nix::errno::Errno;
        let pid = self.pid;
        match e {
            Errno::ESRCH => Error::ended(pid),
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
    fn reads_many_ranges_at_once_and_refuses_a_bad_one() {
        let numbers: Vec<u64> = (0..3000).collect();
        let me = LiveMemory::new(std::process::id() as i32);
        let mut got = vec![[0u8; 8]; numbers.len()];
        let mut reads: Vec<(u64, &mut [u8])> =
            numbers.iter().zip(&mut got).map(|(n, b)| (std::ptr::from_ref(n) as u64, &mut b[..])).collect();
        me.read_many(&mut reads).expect("own memory");
        if let Some(bad) = reads.get_mut(2000) {
            bad.0 = 8;
        }
        assert!(me.read_many(&mut reads).is_err());
        assert!(got.iter().enumerate().all(|(i, b)| u64::from_le_bytes(*b) == i as u64));
    }

    #[test]
    fn reads_its_own_memory_and_refuses_null() {
        let secret = *b"heaptap!";
        let me = LiveMemory::new(std::process::id() as i32);
        let got = me.read_u64(secret.as_ptr() as u64).expect("own memory");
        assert_eq!(got, u64::from_le_bytes(secret));
        assert!(me.read_u64(8).is_err());
    }
}
