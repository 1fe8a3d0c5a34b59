//! Where the kernel keeps a thread's FS base, from its type information.
//!
//! aya reads BTF, but keeps to itself what it read. The format is that of the kernel's
//! Documentation/bpf/btf.rst.

use crate::base::{Error, Result};

/// The running kernel's types.
const BTF: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;

/// Bytes from the start of the kernel's `task_struct` to `thread.fsbase`.
///
/// # Errors
/// Environment when the kernel has no type information, or that does not say.
pub fn fs_base_offset() -> Result<u32> {
    let missing = || Error::environment("the kernel does not tell where it keeps a thread's FS base");
    let bytes = std::fs::read(BTF).map_err(|e| missing().because(e))?;
    offset_in(&bytes).ok_or_else(missing)
}

fn offset_in(bytes: &[u8]) -> Option<u32> {
    let btf = Btf::of(bytes)?;
    let (thread, in_task) = btf.member("task_struct", "thread")?;
    let (_, in_thread) = btf.member_of(thread, "fsbase")?;
    in_task.checked_add(in_thread)
}

struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins, by its number less one.
    starts: Vec<usize>,
}

impl<'a> Btf<'a> {
    fn of(bytes: &'a [u8]) -> Option<Btf<'a>> {
        if u16::from_le_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let header = |at: usize| Some(word(bytes, at)? as usize);
        let body = bytes.get(header(4)?..)?;
        let part = |offset: usize, len: usize| body.get(offset..offset.checked_add(len)?);
        let types = part(header(8)?, header(12)?)?;
        let strings = part(header(16)?, header(20)?)?;
        let (mut starts, mut at) = (Vec::new(), 0);
        while at < types.len() {
            starts.push(at);
            at = at.checked_add(12 + trailing(word(types, at + 4)?)?)?;
        }
        Some(Btf { types, strings, starts })
    }

    /// Number of the type, and bytes to the member, of a struct by its name.
    fn member(&self, name: &str, member: &str) -> Option<(u32, u32)> {
        let mut all = self.starts.iter().zip(1..);
        all.find_map(|(&at, number)| {
            let is_meant =
                kind(word(self.types, at + 4)?) == KIND_STRUCT && self.is(word(self.types, at)?, name);
            is_meant.then(|| self.member_of(number, member))?
        })
    }

    fn member_of(&self, number: u32, member: &str) -> Option<(u32, u32)> {
        let at = *self.starts.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
        let info = word(self.types, at + 4)?;
        if kind(info) != KIND_STRUCT {
            return None;
        }
        let mut members = (0..(info & 0xffff) as usize).map(|i| at + 12 + 12 * i);
        let found = members.find(|at| word(self.types, *at).is_some_and(|name| self.is(name, member)))?;
        let bits = word(self.types, found + 8)?;
        // Where a struct has bit fields, the upper byte is their width.
        let bits = if info >> 31 == 1 { bits & 0xff_ffff } else { bits };
        Some((word(self.types, found + 4)?, bits / 8))
    }

    fn is(&self, name: u32, wanted: &str) -> bool {
        let rest = self.strings.get(name as usize..).unwrap_or_default();
        rest.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

/// Bytes that follow the first twelve of a type; `None`: of a kind that is not known.
fn trailing(info: u32) -> Option<usize> {
    let len = (info & 0xffff) as usize;
    Some(match kind(info) {
        // Int, variable, tag of a declaration.
        1 | 14 | 17 => 4,
        // Pointer, forward, typedef, volatile, const, restrict, function, float, tag of a type.
        2 | 7..=12 | 16 | 18 => 0,
        // Array.
        3 => 12,
        // Struct, union, data section, enum of 64 bits.
        4 | 5 | 15 | 19 => 12 * len,
        // Enum, prototype of a function.
        6 | 13 => 8 * len,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `int`, `struct thread_struct {int sp; int fsbase}` and `struct task_struct {int state;
    /// thread_struct thread}`, whose offsets have widths of bit fields beside them.
    fn types() -> Vec<u8> {
        let strings = b"\0int\0thread_struct\0fsbase\0task_struct\0thread\0";
        let at = |name: &str| {
            let with_end = format!("{name}\0");
            let found = strings.windows(with_end.len()).rposition(|w| w == with_end.as_bytes());
            found.expect("a name") as u32
        };
        let int = vec![at("int"), 1 << 24, 4, 32];
        let members = [0, 1, 0, at("fsbase"), 1, 32];
        let thread = [&[at("thread_struct"), 4 << 24 | 2, 8], members.as_slice()].concat();
        let members = [0, 1, 0, at("thread"), 2, 64 * 8];
        let task = [&[at("task_struct"), 1 << 31 | 4 << 24 | 2, 72], members.as_slice()].concat();
        let words = [int, thread, task].concat();
        let body: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let header = [24, 0, body.len() as u32, body.len() as u32, strings.len() as u32];
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend(header.into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(body);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_through_structs() {
        let types = types();
        assert_eq!(offset_in(&types), Some(64 + 4));
        for len in 0..types.len() {
            let _total = offset_in(&types[..len]);
        }
        assert_eq!(offset_in(&[]), None);
    }
}
