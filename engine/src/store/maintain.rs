//! Upkeep between requests: expiry, flushed segments, a lowered limit.

use crate::arena::PageWork;
use crate::clock::Seconds;
use crate::config::{ConfigError, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN};
use crate::index::Index;
use crate::segment::Place;

use super::Store;

/// Records per slice of upkeep, about 5 microseconds.
const SLICE_RECORDS: usize = 64;
/// Records that cost what a slice of growing or shrinking the index does, about a microsecond.
const RECORDS_PER_INDEX_SLICE: usize = 8;
/// Memory past the limit that waits for another thread to give it back, as a part of the limit. To give it back takes a
/// call up to 30 microseconds: a huge page of which a part is in use has to be split first.
const SURPLUS_FRACTION: usize = 256;
/// Segments looked at per call for what a flush left: 2 microseconds' worth.
const FLUSH_LOOKS: u32 = 1024;

impl<I: Index> Store<I> {
    /// Does what is due, passing at most about `budget_items` records: frees expired and flushed segments and
    /// shrinks to a lowered limit. True when there is more to do now.
    pub fn maintain(&mut self, now: Seconds, budget_items: usize) -> bool {
        self.turn(now);
        self.log.close_aged(now.0);
        let mut left = budget_items;
        while left > 0 {
            if self.scan.is_none() && !self.upkeep_start(now) {
                let more = self.adapt_index(left.min(SLICE_RECORDS) / RECORDS_PER_INDEX_SLICE);
                return self.discard_surplus() || more || self.is_flushing();
            }
            let records = left.min(SLICE_RECORDS);
            self.scan_step(now, records);
            left -= records;
        }
        self.scan.is_some()
            || self.log.segments.due_next().is_some_and(|due| due <= now.0)
            || self.is_behind()
    }

    /// Chooses a segment that has to go. False when none has.
    fn upkeep_start(&mut self, now: Seconds) -> bool {
        if let Some(segment) = self.log.segments.pop_due(now.0) {
            return self.scan_segment(segment, true);
        }
        if let Some(segment) = self.next_flushed() {
            return self.scan_segment(segment, true);
        }
        self.is_over_limit() && self.scan_start(now)
    }

    /// The next segment from before the last flush. Once there is none left, the flush is history.
    fn next_flushed(&mut self) -> Option<u32> {
        if self.flushed_below == 0 {
            return None;
        }
        let segments = &self.log.segments;
        let looks_end = segments.count().min(self.flush_cursor.saturating_add(FLUSH_LOOKS));
        while self.flush_cursor < looks_end {
            let number = self.flush_cursor;
            self.flush_cursor += 1;
            let segment = &segments[number];
            if segment.sequence < self.flushed_below
                && matches!(segment.place, Place::Queued(_))
                && segment.pins == 0
            {
                return Some(number);
            }
        }
        if self.is_flushing() {
            return None;
        }
        // Some could not be emptied, being pinned: they go when they are let go of.
        let looks_end = segments.count().min(self.flush_gone.saturating_add(FLUSH_LOOKS));
        while self.flush_gone < looks_end {
            let segment = &segments[self.flush_gone];
            if segment.place != Place::Free && segment.sequence < self.flushed_below {
                return None;
            }
            self.flush_gone += 1;
        }
        if self.flush_gone == segments.count() {
            self.flushed_below = 0;
        }
        None
    }

    fn is_over_limit(&self) -> bool {
        self.log.segments.in_use() > self.segments_total()
    }

    /// Whether there are segments that were not looked at since the last flush.
    fn is_flushing(&self) -> bool {
        self.flushed_below != 0 && self.flush_cursor < self.log.segments.count()
    }

    fn is_behind(&self) -> bool {
        self.is_over_limit() || self.is_flushing()
    }

    /// Gives back some of a free segment's memory that the limit no longer covers, where more is to be given back than a
    /// thread that carries out `next_page_work` would leave waiting. True while there is.
    pub(super) fn discard_surplus(&mut self) -> bool {
        let total = self.segments_total();
        self.resident_segments() > total + total / SURPLUS_FRACTION && self.log.discard_some()
    }

    /// Segments in use, and those that may still be resident.
    fn resident_segments(&self) -> usize {
        self.log.segments.in_use() + self.log.segments.resident_free()
    }

    /// What the kernel should do next to the memory of this store: provide a huge page ahead of what is about to be used
    /// for the first time, or take back a segment that the limit no longer covers. For another thread to `carry_out`; to be
    /// asked between batches. `None`: nothing now. Writes that come before the memory wait for the kernel themselves.
    pub fn next_page_work(&mut self) -> Option<PageWork> {
        let segments_total = self.segments_total();
        if let Some(work) = self.log.next_cold(segments_total) {
            return Some(work);
        }
        self.log.settle_surplus();
        if self.resident_segments() > segments_total { self.log.next_surplus() } else { None }
    }

    /// The earliest second in which a segment may be wholly expired: `maintain` is worth calling then.
    pub fn next_expiry(&self) -> Option<Seconds> {
        self.log.segments.due_next().map(Seconds)
    }

    /// Changes the memory limit. Raising is immediate, up to eight times the limit at start (16 GiB at most);
    /// lowering is done by `maintain` and by writes.
    pub fn set_memory_bytes(&mut self, bytes: usize, now: Seconds) -> Result<(), ConfigError> {
        self.turn(now);
        let bad = |remedy| Err(ConfigError { key: "memory_bytes", value: bytes as u64, remedy });
        if bytes < MEMORY_BYTES_MIN || bytes / 2 < self.config.value_bytes_max {
            return bad("keep at least 1 MiB and twice value_bytes_max");
        }
        if bytes > self.log.arena.len().min(MEMORY_BYTES_MAX) {
            return bad("restart with this limit: it is past the address space reserved at start");
        }
        self.config.memory_bytes = bytes;
        self.index.set_memory_bytes(bytes);
        self.log.set_segments_total(bytes / self.log.segments.segment_bytes());
        Ok(())
    }
}
