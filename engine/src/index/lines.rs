//! The lines of the index, in a mapping of their own. The table uses as much of its start as it is long.

use std::io;

use super::line::IndexLine;
use crate::arena::{Arena, DISCARD_BYTES, HUGE_PAGE_BYTES};

const LINE_BYTES: usize = size_of::<IndexLine>();
/// Granularity in which memory becomes resident, bytes.
const PAGE_BYTES: usize = 4096;
/// The index is expected to take the store's memory divided by this in any case (with items of 240 bytes). So
/// much of it is in huge pages from the start; what it takes in addition, where it fills whole huge pages.
const EXPECTED_FRACTION: usize = 32;

/// A table of lines. All are empty at first.
pub(super) struct IndexLines {
    arena: Arena,
    /// Lines in use.
    count: usize,
    /// Lines below this may be resident.
    top: usize,
    /// Bytes from the start that are in huge pages whatever the length of the table.
    huge_bytes: usize,
    huge_pages: bool,
}

impl IndexLines {
    /// Address space for a table of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// The kernel's, when it refuses the address space.
    pub(super) fn new(bytes_max: usize, memory_bytes: usize, huge_pages: bool) -> io::Result<IndexLines> {
        let mut arena = Arena::new(bytes_max)?;
        let expected = if huge_pages { memory_bytes / EXPECTED_FRACTION } else { 0 };
        let huge_bytes = expected / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        arena.advise_huge(0, huge_bytes);
        Ok(IndexLines { arena, count: 0, top: 0, huge_bytes, huge_pages })
    }

    /// Most lines there can be.
    pub(super) fn count_max(&self) -> usize {
        self.arena.len() / LINE_BYTES
    }

    /// Lines in use.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Lines below this may be resident.
    pub(super) fn top(&self) -> usize {
        self.top
    }

    /// Uses this many lines. New ones are empty; those no longer used must be.
    pub(super) fn set_count(&mut self, count: usize) {
        assert!(count <= self.count_max()); // past it `get` would leave the mapping
        debug_assert!((count..self.count).all(|number| self.get(number).is_empty()));
        self.count = count;
        if count <= self.top {
            return;
        }
        if self.huge_pages {
            let from = (self.top * LINE_BYTES).next_multiple_of(HUGE_PAGE_BYTES).max(self.huge_bytes);
            let to = count * LINE_BYTES / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            self.arena.advise_huge(from, to.saturating_sub(from));
        }
        self.top = count;
    }

    /// Whether memory after the lines in use may be resident.
    pub(super) fn has_surplus(&self) -> bool {
        self.surplus_from() < self.top * LINE_BYTES
    }

    /// Where the memory after the lines in use begins.
    fn surplus_from(&self) -> usize {
        self.rounded(self.count * LINE_BYTES)
    }

    /// `bytes` rounded up to whole pages.
    fn rounded(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(if bytes < self.huge_bytes { HUGE_PAGE_BYTES } else { PAGE_BYTES })
    }

    /// Gives some of the memory after the lines in use back to the kernel. Gives back huge pages as a whole,
    /// since the kernel takes 30 microseconds to split one.
    pub(super) fn discard_some(&mut self) {
        let end = self.rounded(self.top * LINE_BYTES);
        let from = match end <= self.huge_bytes {
            true => end.saturating_sub(HUGE_PAGE_BYTES),
            false => end.saturating_sub(DISCARD_BYTES).max(self.huge_bytes),
        };
        let from = from.max(self.surplus_from());
        if from < end {
            self.arena.discard(from, (end - from).min(self.arena.len() - from));
        }
        self.top = from / LINE_BYTES;
    }

    /// Bytes that are resident once the first `lines` lines were touched.
    pub(super) fn bytes_of(&self, lines: usize) -> usize {
        self.rounded(lines.min(self.top.max(self.count)) * LINE_BYTES)
    }

    /// Line `number`, which must be in use.
    #[inline]
    pub(super) fn get(&self, number: usize) -> &IndexLine {
        assert!(number < self.count);
        // SAFETY: inside the mapping, since `count` is at most what it holds, and aligned, since its start
        // is; every content is a valid line, and it is zeroes at first. Writers need `&mut self`, which the
        // borrow excludes.
        unsafe { self.arena.start().cast::<IndexLine>().add(number).as_ref() }
    }

    /// Line `number`, which must be in use, to be changed.
    #[inline]
    pub(super) fn get_mut(&mut self, number: usize) -> &mut IndexLine {
        assert!(number < self.count);
        // SAFETY: as in `get`; `&mut self` excludes all other borrows.
        unsafe { self.arena.start().cast::<IndexLine>().add(number).as_mut() }
    }

    /// Starts loading a line.
    #[inline]
    pub(super) fn prefetch(&self, number: usize) {
        self.arena.prefetch(number * LINE_BYTES);
    }
}
