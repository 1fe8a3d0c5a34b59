//! `uprobe_multi` links by the bpf system call: many probes at once (Linux 6.6).
//!
//! aya 0.14 has no call for them. Delete this module when aya can be raised to a
//! version that has; the attributes are those of `bpf(2)` in linux/bpf.h.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Ebpf;
use aya::maps::Map;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type};
use aya_obj::{Function, Object};

use super::attach::refused;
use super::object::{OBJECT, PROGRAM, missing};
use crate::base::{Error, Result};

/// Bytes of the verifier's log that are asked for when it refuses the program.
const LOG_BYTES: usize = 1 << 20;

/// Loads the program for `uprobe_multi` links, over the maps `ebpf` created.
pub(super) fn load(ebpf: &Ebpf) -> Result<OwnedFd> {
    let function = relocated(ebpf)?;
    load_function(&function, &mut []).or_else(|_| {
        // Once more, for the verifier's reasons.
        let mut log = vec![0; LOG_BYTES];
        load_function(&function, &mut log).map_err(|error| {
            let text = String::from_utf8_lossy(&log);
            log::debug!("verifier log:\n{}", text.trim_end_matches('\0'));
            refused("the kernel refuses the eBPF program", error)
        })
    })
}

/// The program's instructions with the maps' file descriptors in them.
fn relocated(ebpf: &Ebpf) -> Result<Function> {
    let damaged = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::failed("cannot read the eBPF object").because(e).hint("rebuild it: cargo xtask build-ebpf")
    };
    let mut object = Object::parse(OBJECT).map_err(|e| damaged(e.into()))?;
    let maps = std::mem::take(&mut object.maps);
    let mut placed = Vec::with_capacity(maps.len());
    for (name, map) in &maps {
        let created = ebpf.map(name).ok_or_else(|| missing(name))?;
        let (Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data)) = created
        else {
            return Err(missing(name));
        };
        placed.push((name.as_str(), data.fd().as_fd().as_raw_fd(), map));
    }
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(placed.into_iter(), &sections).map_err(|e| damaged(e.into()))?;
    object.relocate_calls(&sections).map_err(|e| damaged(e.into()))?;
    let key = object.programs.get(PROGRAM).ok_or_else(|| missing(PROGRAM))?.function_key();
    object.functions.remove(&key).ok_or_else(|| missing(PROGRAM))
}

fn load_function(function: &Function, log: &mut [u8]) -> io::Result<OwnedFd> {
    // SAFETY: all-zero bytes are a valid bpf_attr.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: plain integers; this is the member BPF_PROG_LOAD reads.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    for (to, from) in load.prog_name.iter_mut().zip(PROGRAM.bytes()) {
        *to = from as _;
    }
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
    load.expected_attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
    load.insns = function.instructions.as_ptr() as u64;
    load.insn_cnt = function.instructions.len() as u32;
    load.license = c"Dual MIT/GPL".as_ptr() as u64;
    if !log.is_empty() {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = log.len() as u32;
    }
    bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Attaches `program` at each of `offsets` in the file at `path`, for process `pid`, with
/// as many `cookies`. The probes live as long as the link's descriptor.
pub(super) fn link(
    program: &OwnedFd,
    path: &Path,
    offsets: &[u64],
    cookies: &[u64],
    pid: u32,
) -> io::Result<OwnedFd> {
    if cookies.len() != offsets.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero bytes are a valid bpf_attr.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
    // SAFETY: plain integers; this is the member BPF_LINK_CREATE reads for this type.
    let multi = unsafe { &mut attr.link_create.__bindgen_anon_3.uprobe_multi };
    multi.path = path.as_ptr() as u64;
    multi.offsets = offsets.as_ptr() as u64;
    multi.cookies = cookies.as_ptr() as u64;
    multi.cnt = offsets.len() as u32;
    multi.pid = pid;
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// The bpf system call, for commands that return a file descriptor.
fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `attr` and what it points to, which the callers keep alive,
    // and writes to the log buffer only.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attr, size_of::<bpf_attr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
