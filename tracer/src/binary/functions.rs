//! Functions by name and by address.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::OnceLock;

use bytes::Bytes;

/// Longer names are damage: the longest generic instantiations have some kilobytes.
pub(crate) const MAX_NAME: usize = 16 << 10;

/// One function: where its code lies, by link-time address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function<'a> {
    /// As the linker wrote it: `net/http.(*conn).serve`, `main.g[go.shape.int]`.
    pub name: &'a str,
    pub start: u64,
    /// Exclusive. From gopclntab it is the start of the next function, so padding
    /// (`int3`) may stand before it.
    pub end: u64,
}

/// The functions of a program, sorted by address.
#[derive(Debug)]
pub struct Functions {
    /// What the names are slices of.
    bytes: Bytes,
    entries: Vec<Entry>,
    /// (hash of name, index), built on the first look-up by name.
    by_name: OnceLock<Vec<(u64, u32)>>,
}

/// A function as the table keeps it: 24 bytes, its name a slice of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    start: u64,
    end: u64,
    name_start: u32,
    name_len: u32,
}

impl Entry {
    /// `None` when `name`, a slice of `bytes`, is empty or not a name.
    pub(crate) fn new(bytes: &Bytes, name: &[u8], start: u64, end: u64) -> Option<Entry> {
        if name.is_empty() || name.len() > MAX_NAME || std::str::from_utf8(name).is_err() {
            return None;
        }
        let offset = (name.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
        let name_start = u32::try_from(offset).ok()?;
        Some(Entry { start, end, name_start, name_len: name.len() as u32 })
    }
}

impl Functions {
    /// Sorts: of several at one address the longest comes last, and is what
    /// `containing` finds; linkers mark places with symbols of no length.
    pub(crate) fn new(bytes: Bytes, mut entries: Vec<Entry>) -> Functions {
        entries.sort_by_key(|e| (e.start, e.end));
        Functions { bytes, entries, by_name: OnceLock::new() }
    }

    /// The function of exactly this name; of several the one at the lowest address.
    pub fn by_name(&self, name: &str) -> Option<Function<'_>> {
        let wanted = hash(name);
        let index = self.by_name.get_or_init(|| {
            let mut index: Vec<_> = self.iter().zip(0..).map(|(f, i)| (hash(f.name), i)).collect();
            index.sort_unstable();
            index
        });
        let from = index.partition_point(|&(h, _)| h < wanted);
        let same_hash = index[from..].iter().take_while(|&&(h, _)| h == wanted);
        same_hash.map(|&(_, i)| self.function(&self.entries[i as usize])).find(|f| f.name == name)
    }

    /// The function whose code holds `addr`.
    pub fn containing(&self, addr: u64) -> Option<Function<'_>> {
        let after = self.entries.partition_point(|e| e.start <= addr);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        (addr < entry.end).then(|| self.function(entry))
    }

    /// All functions, by address.
    pub fn iter(&self) -> impl Iterator<Item = Function<'_>> {
        self.entries.iter().map(|e| self.function(e))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn function(&self, entry: &Entry) -> Function<'_> {
        let start = entry.name_start as usize;
        let name = self.bytes.get(start..start + entry.name_len as usize).unwrap_or(&[]);
        Function { name: std::str::from_utf8(name).unwrap_or(""), start: entry.start, end: entry.end }
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(functions: &[(&str, u64, u64)]) -> Functions {
        let names: String = functions.iter().map(|f| f.0).collect();
        let bytes = Bytes::from(names);
        let mut at = 0;
        let entries = functions.iter().map(|(name, start, end)| {
            at += name.len();
            Entry::new(&bytes, &bytes[at - name.len()..at], *start, *end)
        });
        let entries = entries.collect::<Option<_>>().expect("names");
        Functions::new(bytes, entries)
    }

    #[test]
    fn functions_are_found_by_name_and_by_any_address_inside() {
        let functions =
            table(&[("main.b", 30, 40), ("main.a", 10, 20), ("main.c", 40, 41), ("mark", 10, 10)]);
        let names: Vec<_> = functions.iter().map(|f| f.name).collect();
        assert_eq!(names, ["mark", "main.a", "main.b", "main.c"]);
        assert_eq!(functions.by_name("main.b").map(|f| f.start), Some(30));
        assert_eq!(functions.by_name("main."), None);
        let at = |addr| functions.containing(addr).map(|f| f.name);
        assert_eq!(
            [at(9), at(10), at(19), at(20), at(39), at(40), at(41)],
            [None, Some("main.a"), Some("main.a"), None, Some("main.b"), Some("main.c"), None]
        );
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        let bytes = Bytes::from_static(b"\xff\xfe");
        assert!(Entry::new(&bytes, &bytes, 0, 1).is_none());
        assert!(Entry::new(&bytes, &bytes[..0], 0, 1).is_none());
    }
}
