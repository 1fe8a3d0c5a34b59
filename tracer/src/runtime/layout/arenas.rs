//! What the runtime notes of the heap's arenas of 64 MiB: `runtime.heapArena`.

use super::At;

/// Where to find it, and of what is in it, what is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arenas {
    /// `runtime.mheap`: slices of the numbers of all arenas, a word each. From Go 1.25 on those of user
    /// arenas have a list of their own.
    pub lists: Vec<u64>,
    /// `runtime.mheap`: the address of the table of `*heapArena` by number.
    pub table: u64,
    /// `runtime.heapArena`: its `spans`, an array of `*mspan` by page
    pub spans: u64,
    /// `runtime.heapArena`: its `pageSpecials`, a bit for each page
    pub page_specials: u64,
}

impl Arenas {
    pub(super) fn from_offsets(at: &impl At) -> Result<Arenas, String> {
        let list = |name| at("runtime.mheap", name);
        Ok(Arenas {
            lists: match list("userArenaArenas") {
                Ok(user) => vec![list("heapArenas")?, user],
                Err(_) => vec![list("allArenas")?],
            },
            table: list("arenas")?,
            spans: at("runtime.heapArena", "spans")?,
            page_specials: at("runtime.heapArena", "pageSpecials")?,
        })
    }
}
