//! The lines of the index: a mapping of its own, used from the start, as long as the table is.

use std::io;

use super::line::Line;
use crate::arena::{Arena, DISCARD_BYTES, HUGE_PAGE_BYTES};

const LINE_BYTES: usize = size_of::<Line>();
/// Granularity in which memory becomes resident, bytes.
const PAGE_BYTES: usize = 4096;
/// Part of the store's memory that the index is expected to take in any case (items of 240 bytes): so much of
/// it lies in huge pages from the start, later growth where it fills whole ones.
const EXPECTED_FRACTION: usize = 32;

/// A table of lines, all empty at first.
pub(super) struct Lines {
    arena: Arena,
    /// Lines in use.
    count: usize,
    /// Lines that may be resident: those below this.
    top: usize,
    /// Bytes from the start in huge pages whatever the length.
    huge_bytes: usize,
    huge_pages: bool,
}

impl Lines {
    /// Room for a table of `bytes_max`.
    pub(super) fn new(bytes_max: usize, memory_bytes: usize, huge_pages: bool) -> io::Result<Lines> {
        let mut arena = Arena::new(bytes_max)?;
        let expected = if huge_pages { memory_bytes / EXPECTED_FRACTION } else { 0 };
        let huge_bytes = expected / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        arena.advise_huge(0, huge_bytes);
        Ok(Lines { arena, count: 0, top: 0, huge_bytes, huge_pages })
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

    /// Lines that may be resident: those below this.
    pub(super) fn top(&self) -> usize {
        self.top
    }

    /// Uses this many. New ones are empty; those given up must be.
    pub(super) fn set_count(&mut self, count: usize) {
        assert!(count <= self.count_max());
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

    /// Whether lines past the last in use may be resident.
    pub(super) fn has_surplus(&self) -> bool {
        self.surplus_from() < self.top * LINE_BYTES
    }

    fn surplus_from(&self) -> usize {
        self.rounded(self.count * LINE_BYTES)
    }

    /// Up to the end of the page that ends the first `bytes`.
    fn rounded(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(if bytes < self.huge_bytes { HUGE_PAGE_BYTES } else { PAGE_BYTES })
    }

    /// Gives the memory of some lines past the last in use back to the kernel; huge pages whole: to split one takes it
    /// 30 microseconds.
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

    /// Bytes that are resident when `lines` of them were touched.
    pub(super) fn bytes_of(&self, lines: usize) -> usize {
        self.rounded(lines.min(self.top.max(self.count)) * LINE_BYTES)
    }

    /// Line `number`, which is in use.
    #[inline]
    pub(super) fn get(&self, number: usize) -> &Line {
        assert!(number < self.count);
        // SAFETY: inside the mapping, since `count` is at most what it holds, and aligned, since its start is;
        // any bytes are a line, zeroes at first. Writers need `&mut self`, which the borrow excludes.
        unsafe { self.arena.start().cast::<Line>().add(number).as_ref() }
    }

    /// The same, to be changed.
    #[inline]
    pub(super) fn get_mut(&mut self, number: usize) -> &mut Line {
        assert!(number < self.count);
        // SAFETY: as in `get`; `&mut self` excludes all other borrows.
        unsafe { self.arena.start().cast::<Line>().add(number).as_mut() }
    }

    /// Starts loading a line.
    #[inline]
    pub(super) fn prefetch(&self, number: usize) {
        self.arena.prefetch(number * LINE_BYTES);
    }
}
