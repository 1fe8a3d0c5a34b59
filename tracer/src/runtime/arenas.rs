//! Which spans have specials: from the bitmaps of the heap's arenas.
//!
//! Source: runtime/mheap.go `heapArena`, `spanHasSpecials`, `mheap.arenas`, and runtime/malloc.go
//! `arenaBaseOffset`, `heapArenaBytes`, Go 1.19 to 1.27 on linux/amd64: the bit of a span's first page is
//! set when the first special has come into its list, and cleared when the last one has gone.

use super::layout::Arenas;
use super::size_class::PAGE_SIZE;
use super::spans::{MAX_SPANS, read_words};
use crate::base::{Error, Result, set_bits};
use crate::memory::{ProcessMemory, gather, words};

/// Of one arena, in bytes.
const ARENA: u64 = 64 << 20;
/// The address of arena 0, modulo 2^64.
const ARENA_0: u64 = 0xffff_8000_0000_0000;
/// Arenas in 48 bits of address space.
const MAX_ARENAS: u64 = 1 << 22;
/// Bytes of a bitmap.
const BITMAP: usize = (ARENA / PAGE_SIZE / 8) as usize;
/// Arenas that are looked at together, so that what is known of their pages has some 32 MiB at most.
const BATCH: usize = 256;

/// The address of a span's struct, and that of the span.
pub(super) type Addresses = (u64, u64);

/// Reads the bitmaps of one process, again and again.
#[derive(Debug, Clone)]
pub(super) struct ArenaReader {
    layout: Arenas,
    /// Run-time address of `mheap_`.
    mheap: u64,
}

impl ArenaReader {
    pub(super) fn new(layout: &Arenas, mheap: u64) -> ArenaReader {
        ArenaReader { layout: layout.clone(), mheap }
    }

    /// Hands over the spans with specials, each batch in the order of their structs' addresses. What became
    /// of one meanwhile, its struct tells.
    ///
    /// # Errors
    /// Failed when the process is gone or its memory makes no sense; those of `visit`.
    pub(super) fn special(
        &self,
        memory: &impl ProcessMemory,
        mut visit: impl FnMut(&[Addresses]) -> Result<()>,
    ) -> Result<()> {
        let table = memory.read_u64(self.mheap.wrapping_add(self.layout.table))?;
        let mut left = MAX_SPANS;
        for numbers in self.numbers(memory)?.chunks(BATCH) {
            let spans = self.batch(memory, table, numbers)?;
            left = left.checked_sub(spans.len() as u64).ok_or_else(|| {
                Error::failed("the bitmaps of the heap's arenas make no sense: too many bits")
            })?;
            visit(&spans)?;
        }
        Ok(())
    }

    /// The numbers of all arenas, ascending.
    fn numbers(&self, memory: &impl ProcessMemory) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for list in &self.layout.lists {
            let list = self.mheap.wrapping_add(*list);
            // The list grows at its end; when it moves, the old one stays.
            let (array, count) = (memory.read_u64(list)?, memory.read_u64(list.wrapping_add(8))?);
            if count > MAX_ARENAS {
                return Err(Error::failed(format!("the heap's list of arenas makes no sense: {count}")));
            }
            numbers.extend(read_words(memory, array, count)?);
        }
        numbers.sort_unstable();
        numbers.dedup();
        match numbers.last() {
            Some(&last) if last >= MAX_ARENAS => {
                Err(Error::failed(format!("the heap's list of arenas makes no sense: number {last}")))
            }
            _ => Ok(numbers),
        }
    }

    fn batch(&self, memory: &impl ProcessMemory, table: u64, numbers: &[u64]) -> Result<Vec<Addresses>> {
        let entries: Vec<_> = numbers.iter().map(|number| (table.wrapping_add(8 * number), 8)).collect();
        let arenas = gather(memory, &entries)?;
        // An arena is listed a moment before it is in the table.
        let arenas: Vec<(u64, u64)> =
            numbers.iter().copied().zip(arenas.words()).filter(|&(_, arena)| arena != 0).collect();
        let bitmaps: Vec<_> =
            arenas.iter().map(|(_, arena)| (arena.wrapping_add(self.layout.page_specials), BITMAP)).collect();
        let (mut entries, mut bases) = (Vec::new(), Vec::new());
        for ((number, arena), bits) in arenas.into_iter().zip(gather(memory, &bitmaps)?.iter()) {
            let base = ARENA_0.wrapping_add(number * ARENA);
            for page in set_bits(words(bits)).map(|page| page as u64) {
                entries.push((arena.wrapping_add(self.layout.spans + 8 * page), 8));
                bases.push(base.wrapping_add(page * PAGE_SIZE));
            }
        }
        let addrs = gather(memory, &entries)?;
        let mut spans: Vec<Addresses> = addrs.words().zip(bases).filter(|&(addr, _)| addr != 0).collect();
        spans.sort_unstable();
        Ok(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Layout;
    use super::*;
    use crate::memory::FakeMemory;

    const MHEAP: u64 = 0x10_0000;
    const LIST: u64 = 0x20_0000;
    const TABLE: u64 = 0x1000_0000;
    const STRUCTS: u64 = 0x4000_0000;

    impl ArenaReader {
        /// Writes what the runtime notes of spans with specials.
        pub(in super::super) fn fake(&self, memory: &mut FakeMemory, spans: &[Addresses]) {
            let number_of = |base: u64| base.wrapping_sub(ARENA_0) / ARENA;
            let mut numbers: Vec<u64> = spans.iter().map(|&(_, base)| number_of(base)).collect();
            numbers.dedup();
            memory.write_u64(self.mheap + self.layout.table, TABLE);
            for list in &self.layout.lists[1..] {
                memory.write(self.mheap + list, &[0; 16]);
            }
            let list = self.mheap + self.layout.lists[0];
            memory.write_u64(list, LIST).write_u64(list + 8, numbers.len() as u64);
            for (i, number) in (0..).zip(numbers) {
                let arena = STRUCTS + 0x100_0000 * i;
                memory.write_u64(LIST + 8 * i, number).write_u64(TABLE + 8 * number, arena);
                memory.write(arena + self.layout.spans, &[0; 64 << 10]);
                let mut bits = [0_u8; BITMAP];
                for &(addr, base) in spans.iter().filter(|&&(_, base)| number_of(base) == number) {
                    let page = base % ARENA / PAGE_SIZE;
                    bits[page as usize / 8] |= 1 << (page % 8);
                    memory.write_u64(arena + self.layout.spans + 8 * page, addr);
                }
                memory.write(arena + self.layout.page_specials, &bits);
            }
        }
    }

    fn reader(go: &str) -> ArenaReader {
        ArenaReader::new(&Layout::measured(go).expect(go).arenas, MHEAP)
    }

    fn special(reader: &ArenaReader, memory: &FakeMemory) -> Result<Vec<Addresses>> {
        let mut spans = Vec::new();
        reader.special(memory, |batch| {
            spans.extend_from_slice(batch);
            Ok(())
        })?;
        Ok(spans)
    }

    /// The first and the last page of an arena, and one of the next.
    const SPANS: [Addresses; 3] =
        [(0x5000, 0xc0_0000_0000), (0x5200, 0xc0_03ff_e000), (0x5100, 0xc0_0400_4000)];

    #[test]
    fn spans_with_specials_are_found_in_every_arena() {
        for go in ["go1.19.8", "go1.21.13", "go1.22.10", "go1.24.11", "go1.25.5", "go1.27.3"] {
            let reader = reader(go);
            let mut memory = FakeMemory::new();
            reader.fake(&mut memory, &SPANS);
            let sorted = [SPANS[0], SPANS[2], SPANS[1]];
            assert_eq!(special(&reader, &memory).expect(go), sorted, "{go}");
            // The spans stay listed when their last special has gone, or until there is one.
            let first = STRUCTS + reader.layout.page_specials;
            memory.write(first, &[0]);
            assert_eq!(special(&reader, &memory).expect(go), sorted[1..], "{go}");
            memory.write(first, &[0b10]);
            assert_eq!(special(&reader, &memory).expect(go), sorted[1..], "{go}: a page without a span");
            memory.write_u64(TABLE + 8 * (SPANS[2].1.wrapping_sub(ARENA_0) / ARENA), 0);
            assert_eq!(special(&reader, &memory).expect(go), SPANS[1..2], "{go}: an arena not yet there");
        }
    }

    #[test]
    fn those_of_user_arenas_are_found_in_their_own_list() {
        let reader = reader("go1.27.3");
        let mut memory = FakeMemory::new();
        reader.fake(&mut memory, &SPANS[..2]);
        let user = MHEAP + reader.layout.lists[1];
        memory.write_u64(user, LIST).write_u64(user + 8, 1);
        memory.write_u64(MHEAP + reader.layout.lists[0] + 8, 0);
        assert_eq!(special(&reader, &memory).expect("readable"), SPANS[..2]);
    }

    #[test]
    fn absurd_lists_are_errors() {
        let reader = reader("go1.26.6");
        for (at, absurd) in [(MHEAP + reader.layout.lists[0] + 8, MAX_ARENAS + 1), (LIST, MAX_ARENAS)] {
            let mut memory = FakeMemory::new();
            reader.fake(&mut memory, &SPANS);
            memory.write_u64(at, absurd);
            let error = special(&reader, &memory).expect_err("absurd").to_string();
            assert!(error.contains("list of arenas makes no sense"), "{error}");
        }
    }
}
