//! Where maps and channels keep what heaptap reads: part of the layout.

use super::layout::At;

/// The header of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maps {
    /// `runtime.hmap`, up to Go 1.23
    Buckets(Buckets),
    /// `internal/runtime/maps.Map`, with its directory of tables
    Swiss(Swiss),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    pub size: u64,
    pub count: u64,
    /// A u8: there are 2 to this power of buckets, of 8 entries each.
    pub log_buckets: u64,
    pub buckets: u64,
    pub old_buckets: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swiss {
    pub size: u64,
    pub used: u64,
    /// An array of pointers to tables; to a group of 8 entries if its length is 0.
    pub directory: u64,
    pub directory_len: u64,
    /// A u8: the length's logarithm.
    pub depth: u64,
    pub table: SwissTable,
}

/// `internal/runtime/maps.table`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwissTable {
    pub size: u64,
    /// A u16.
    pub used: u64,
    /// A u16.
    pub capacity: u64,
    /// An array of groups of 8 entries, and one less than their number.
    pub groups: u64,
    pub groups_mask: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hchan {
    pub size: u64,
    /// Elements in the buffer, and for how many there is room.
    pub count: u64,
    pub capacity: u64,
    pub buffer: u64,
    /// A u16.
    pub elem_size: u64,
    pub elem_type: u64,
}

impl Maps {
    pub(super) fn from_offsets(at: &impl At) -> Result<Maps, String> {
        let field = |name| at("internal/runtime/maps.Map", name);
        let Ok(size) = field("_size") else { return Ok(Maps::Buckets(Buckets::from_offsets(at)?)) };
        let of_table = |name| at("internal/runtime/maps.table", name);
        let of_groups = |name| at("internal/runtime/maps.groupsReference", name);
        Ok(Maps::Swiss(Swiss {
            size,
            used: field("used")?,
            directory: field("dirPtr")?,
            directory_len: field("dirLen")?,
            depth: field("globalDepth")?,
            table: SwissTable {
                size: of_table("_size")?,
                used: of_table("used")?,
                capacity: of_table("capacity")?,
                groups: of_table("groups")? + of_groups("data")?,
                groups_mask: of_table("groups")? + of_groups("lengthMask")?,
            },
        }))
    }
}

impl Buckets {
    fn from_offsets(at: &impl At) -> Result<Buckets, String> {
        let field = |name| at("runtime.hmap", name);
        Ok(Buckets {
            size: field("_size")?,
            count: field("count")?,
            log_buckets: field("B")?,
            buckets: field("buckets")?,
            old_buckets: field("oldbuckets")?,
        })
    }
}

impl Hchan {
    pub(super) fn from_offsets(at: &impl At) -> Result<Hchan, String> {
        let field = |name| at("runtime.hchan", name);
        Ok(Hchan {
            size: field("_size")?,
            count: field("qcount")?,
            capacity: field("dataqsiz")?,
            buffer: field("buf")?,
            elem_size: field("elemsize")?,
            elem_type: field("elemtype")?,
        })
    }
}
