//! Who holds objects: what a look at the target's memory has found.

use serde::{Deserialize, Serialize};

use super::{SiteId, StackId};

/// Who holds some objects of calls whose live bytes have grown, and the maps and channels with most
/// room. Found by a conservative scan of a running process: an integer may have been taken for a
/// pointer, and what moved meanwhile may have been missed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holders {
    /// When the look began, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Nanoseconds of processor time that it took.
    pub took_ns: u64,
    /// Bytes of heap that may hold pointers, and bytes scanned, global variables and stacks
    /// included; less where that would have been too much.
    pub heap_bytes: u64,
    pub scanned_bytes: u64,
    pub held: Vec<Held>,
    /// Those with most room, largest first, and others that hold these objects.
    pub maps: Vec<MapHeader>,
    pub channels: Vec<ChannelHeader>,
}

/// Who holds some objects of one call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// The call, as in its [`super::Alloc`]s.
    pub site: SiteId,
    pub stack: StackId,
    pub type_addr: u64,
    /// How many objects were looked at, and the bytes of their slots.
    pub objects: u64,
    pub bytes: u64,
    /// To how many of them any reference was found.
    pub referenced: u64,
    /// To how many of them all references are slices and strings (as far as these can be told from
    /// a pointer before a small number), and the bytes that these reach of each: the median.
    pub sliced: u64,
    pub sliced_bytes: u64,
    pub reach: u64,
    /// To how many of them all references point behind the start.
    pub interior: u64,
    /// Where they are the tables of maps: how many maps, their entries, and the room for entries.
    pub maps: u64,
    pub map_count: u64,
    pub map_capacity: u64,
    /// The ways up from them, those of most objects first; not all of them if there are many.
    pub ways: Vec<Way>,
}

/// A way up from some objects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Way {
    pub objects: u64,
    /// From what points to the objects up to a global variable or a stack, if that was found.
    pub holders: Vec<Holder>,
}

/// One step of a way up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    pub kind: HolderKind,
    /// Of one of them: where the object or header is; of a root, where the word stands.
    pub addr: u64,
    /// The name of a global variable, where there are symbols.
    pub name: String,
    /// The `*_type` of an object, 0 where it is not known.
    pub type_addr: u64,
    /// Of an object's slot.
    pub size: u64,
    /// Whether a map holds what is below by its keys; `None`: it is not known.
    pub is_key: Option<bool>,
    /// Who allocated the object, where that was seen.
    pub call: Option<(SiteId, StackId)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderKind {
    #[default]
    Object,
    /// A map, with its tables.
    Map,
    /// A channel, with its buffer.
    Channel,
    /// The objects of a `sync.Pool`.
    Pool,
    /// A global variable.
    Global,
    /// A goroutine's stack.
    Stack,
}

/// A map as its header says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MapHeader {
    pub addr: u64,
    pub count: u64,
    /// Entries that there is room for.
    pub capacity: u64,
    /// Bytes of its tables.
    pub bytes: u64,
    /// The `*_type` of keys and elements; 0 where it is not known.
    pub key: u64,
    pub elem: u64,
    /// Who allocated its largest table, where that was seen.
    pub call: Option<(SiteId, StackId)>,
}

/// A channel as its header says; its elements hold pointers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelHeader {
    pub addr: u64,
    /// Elements in the buffer, and how many it has room for.
    pub count: u64,
    pub capacity: u64,
    pub elem_size: u64,
    pub elem_type: u64,
}
