//! Where the runtime notes what it does of single objects: `runtime.special`.

use super::At;

/// What the runtime notes of single objects, in a list of each span in the order of their
/// places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Special {
    /// `runtime.mspan`: its `specials`, the first of the list
    pub first: u64,
    /// The next one.
    pub next: u64,
    /// Of the object in the span: a word or a u16.
    pub offset: u64,
    pub is_offset_narrow: bool,
    /// A u8.
    pub kind: u64,
    /// The kind of those that the heap profiler makes for the objects that it samples.
    pub profile_kind: u8,
    /// The kind of finalizers, and of cleanups, from Go 1.24 on.
    pub finalizer_kind: u8,
    pub cleanup_kind: Option<u8>,
    /// Of a finalizer: the type of the pointer to its object.
    pub finalizer_type: u64,
}

impl Special {
    pub(super) fn from_offsets(at: &impl At) -> Result<Special, String> {
        let field = |name| at("runtime.special", name);
        let has = |name| at("runtime.mheap", name).is_ok();
        // runtime/mheap.go `_KindSpecialFinalizer` and following: 1, and 2 for the heap
        // profiler's, at first; these came before them (Go 1.25 and 1.23), and cleanups
        // behind three others.
        let tiny_blocks = u8::from(has("specialTinyBlockAlloc"));
        let profile_kind = 2 + tiny_blocks + u8::from(has("specialWeakHandleAlloc"));
        Ok(Special {
            first: at("runtime.mspan", "specials")?,
            next: field("next")?,
            offset: field("offset")?,
            is_offset_narrow: field("kind")?.wrapping_sub(field("offset")?) < 8,
            kind: field("kind")?,
            profile_kind,
            finalizer_kind: 1 + tiny_blocks,
            cleanup_kind: has("specialCleanupAlloc").then_some(profile_kind + 3),
            finalizer_type: at("runtime.specialfinalizer", "ot")?,
        })
    }
}
