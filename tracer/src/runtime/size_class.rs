//! How many bytes of heap an allocation of a given size takes.

/// Slot sizes by size class, in bytes; class 0 is for large objects
/// (runtime/sizeclasses.go, internal/runtime/gc/sizeclasses.go from 1.25; the same in
/// Go 1.19 to 1.27).
pub(crate) const CLASS_TO_SIZE: [u64; 68] = [
    0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384,
    416, 448, 480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072,
    3200, 3456, 4096, 4864, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568,
    14336, 16384, 18432, 19072, 20480, 21760, 24576, 27264, 28672, 32768,
];

/// Pages are 8 KiB on every platform (runtime/malloc.go `pageSize`).
pub(crate) const PAGE_SIZE: u64 = 8192;
/// Pointer-free objects smaller than this share 16-byte blocks (`maxTinySize`).
const TINY_SIZE: u64 = 16;
/// The `*_type` kept in front of an object with pointers (`mallocHeaderSize`, Go 1.22).
const HEADER_SIZE: u64 = 8;
/// Up to this size the pointer bitmap lies at the span's end and there is no header
/// (`minSizeForMallocHeader`).
const MIN_SIZE_FOR_HEADER: u64 = 512;

/// The bytes of heap that an allocation of `size` bytes takes, as `MemStats.TotalAlloc`
/// counts them: the size class, or whole pages for a large object (`mallocgc`).
///
/// A tiny object that opens a new block takes 16 bytes; one that fits an existing block
/// takes none, which only the allocator knows. Size 0 takes nothing. `malloc_headers` is
/// as in the target's `Layout`.
pub fn slot_size(size: u64, pointerful: bool, malloc_headers: bool) -> u64 {
    if size == 0 {
        return 0;
    }
    if !pointerful && size < TINY_SIZE {
        return TINY_SIZE;
    }
    let mut needed = size;
    let mut small_limit = CLASS_TO_SIZE[CLASS_TO_SIZE.len() - 1];
    if malloc_headers {
        small_limit -= HEADER_SIZE;
        if pointerful && size > MIN_SIZE_FOR_HEADER {
            needed = size.saturating_add(HEADER_SIZE);
        }
    }
    if size > small_limit {
        return size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(size);
    }
    let class = CLASS_TO_SIZE.partition_point(|slot| *slot < needed);
    CLASS_TO_SIZE.get(class).copied().unwrap_or(needed)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Layout;
    use super::*;

    /// (size, without pointers, with pointers): growth of TotalAlloc by one allocation,
    /// measured with each release.
    const MEASURED: [(u64, u64, u64); 14] = [
        (8, 16, 8),
        (16, 16, 16),
        (24, 24, 24),
        (80, 80, 80),
        (496, 512, 512),
        (504, 512, 512),
        (512, 512, 512),
        (520, 576, 576),
        (568, 576, 576),
        (1016, 1024, 1024),
        (28664, 28672, 28672),
        (32752, 32768, 32768),
        (32760, 32768, 32768),
        (40960, 40960, 40960),
    ];

    fn slots(go: &str, size: u64) -> (u64, u64) {
        let headers = Layout::measured(go).expect(go).malloc_headers;
        (slot_size(size, false, headers), slot_size(size, true, headers))
    }

    #[test]
    fn slots_are_as_measured() {
        for go in ["go1.19.8", "go1.21.13", "go1.22.10", "go1.24.11", "go1.27.3"] {
            for (size, noscan, scan) in MEASURED {
                assert_eq!(slots(go, size), (noscan, scan), "{go} {size}");
            }
            for (size, noscan) in [(1, 16), (9, 16), (15, 16), (17, 24), (25, 32), (33, 48), (81, 96)] {
                assert_eq!(slots(go, size).0, noscan, "{go} {size}");
            }
            for (size, noscan) in [(505, 512), (513, 576), (1025, 1152), (28665, 28672), (28673, 32768)] {
                assert_eq!(slots(go, size).0, noscan, "{go} {size}");
            }
            for (size, noscan) in [(32753, 32768), (32761, 32768), (32767, 32768), (32769, 40960)] {
                assert_eq!(slots(go, size).0, noscan, "{go} {size}");
            }
            assert_eq!(slots(go, 0), (0, 0));
            assert_eq!(slots(go, u64::MAX), (u64::MAX, u64::MAX));
        }
    }

    #[test]
    fn a_header_takes_the_next_class_from_go_1_22() {
        for (size, before, since) in [(512, 512, 512), (1024, 1024, 1152), (28672, 28672, 32768)] {
            assert_eq!(slots("go1.19.8", size).1, before, "{size}");
            assert_eq!(slots("go1.21.13", size).1, before, "{size}");
            assert_eq!(slots("go1.22.10", size).1, since, "{size}");
            assert_eq!(slots("go1.27.3", size).1, since, "{size}");
        }
    }
}
