//! Which runtime functions complete allocations, by name, and what their names say.
//!
//! Names from runtime/malloc.go and runtime/malloc_generated.go of Go 1.19 to 1.27.

/// Functions that end an allocation and are probed themselves.
///
/// `runtime.mallocgc` exists in every version and ends whatever it does not hand on. The
/// size-specialised functions of Go 1.27 (`mallocgcSmallScanNoHeaderSC3`,
/// `mallocgcTinySC2`; 1.26 under an experiment: `mallocgcTinySize4`) are also called by
/// compiled code directly, and hand on to the `…SlowPath` ones while the GC is marking.
/// All other `mallocgc…` functions are called by `mallocgc` alone, which sees their result.
pub(super) fn is_probed(function: &str) -> bool {
    let Some(rest) = function.strip_prefix("runtime.mallocgc") else { return false };
    rest.is_empty()
        || rest.ends_with("SlowPath")
        || class_digits(rest).is_some()
        || tiny_digits(rest).is_some()
}

/// Functions whose results `mallocgc` passes on and that it reports itself.
pub(super) fn is_inner(function: &str) -> bool {
    function.starts_with("runtime.mallocgc") && !is_probed(function)
}

/// Functions whose results are memory, but not heap objects.
pub(super) fn is_off_heap(function: &str) -> bool {
    matches!(function, "runtime.persistentalloc" | "runtime.preMallocgcDebug")
}

/// Functions that never return to their caller. `panicCheck1` and `panicCheck2` only
/// panic when called from the wrong place.
pub(super) fn is_no_return(function: &str) -> bool {
    let Some(name) = function.strip_prefix("runtime.") else { return false };
    !name.starts_with("panicCheck")
        && ["throw", "fatal", "gopanic", "panic", "goPanic", "morestack"].iter().any(|p| name.starts_with(p))
}

/// The slot size every new slot of this function has, where it serves only one.
pub(super) fn slot_size(function: &str) -> Option<u64> {
    let rest = function.strip_prefix("runtime.mallocgc")?;
    if rest.starts_with("Tiny") {
        return Some(TINY_BLOCK);
    }
    let class: usize = class_digits(rest)?.parse().ok()?;
    SPECIALISED.get(class).copied()
}

/// runtime/malloc.go `maxTinySize`.
const TINY_BLOCK: u64 = 16;

/// Bytes of the size classes that have functions of their own: up to 512
/// (runtime/sizeclasses.go `class_to_size`, the same from Go 1.19 to 1.27).
const SPECIALISED: [u64; 27] = [
    0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384,
    416, 448, 480, 512,
];

fn class_digits(rest: &str) -> Option<&str> {
    digits(rest.rsplit_once("SC")?.1)
}

fn tiny_digits(rest: &str) -> Option<&str> {
    digits(rest.strip_prefix("TinySize")?)
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_leaves_apart() {
        for (name, probed, inner, slot) in [
            ("runtime.mallocgc", true, false, None),
            ("runtime.mallocgcSmallScanNoHeaderSC7", true, false, Some(80)),
            ("runtime.mallocgcTinySC2", true, false, Some(16)),
            ("runtime.mallocgcTinySize15", true, false, Some(16)),
            ("runtime.mallocgcTinySlowPath", true, false, Some(16)),
            ("runtime.mallocgcSmallScanSlowPath", true, false, None),
            ("runtime.mallocgcSmallScanNoHeader", false, true, None),
            ("runtime.mallocgcLarge", false, true, None),
            ("runtime.mallocgcSmallNoScanSC99", true, false, None),
            ("main.mallocgc", false, false, None),
        ] {
            assert_eq!((is_probed(name), is_inner(name), slot_size(name)), (probed, inner, slot), "{name}");
        }
    }
}
