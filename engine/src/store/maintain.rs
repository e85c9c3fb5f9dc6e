//! Upkeep between requests: frees expired and flushed segments, and shrinks the store to a lowered limit.

use crate::arena::PageWork;
use crate::clock::Seconds;
use crate::config::{ConfigError, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN};
use crate::index::Index;
use crate::segment::SegmentState;

use super::Store;

/// Records per slice of upkeep, which takes about 5 microseconds.
const SLICE_RECORDS: usize = 64;
/// A slice of index growth or shrinking takes as long as so many records, about a microsecond.
const RECORDS_PER_INDEX_SLICE: usize = 8;
/// Memory over the limit is left for another thread to give back, up to the limit divided by this. It would
/// take a call here up to 30 microseconds, since the kernel has to split a huge page of which a part is in
/// use.
const SURPLUS_FRACTION: usize = 256;
/// Segments that one call looks at for flushed items, in 2 microseconds.
const FLUSH_LOOKS: u32 = 1024;

impl<I: Index> Store<I> {
    /// Does upkeep on about `budget_items` records at most: frees expired and flushed segments, and shrinks
    /// the store to a lowered limit. True if there is more to do now.
    pub fn maintain(&mut self, now: Seconds, budget_items: usize) -> bool {
        self.apply_due_flush(now);
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
            || self.is_upkeep_due()
    }

    /// Chooses a segment that has to be emptied and starts to do so. False if there is none.
    fn upkeep_start(&mut self, now: Seconds) -> bool {
        if let Some(segment) = self.log.segments.pop_due(now.0) {
            return self.scan_segment(segment, true);
        }
        if let Some(segment) = self.next_flushed() {
            return self.scan_segment(segment, true);
        }
        self.is_over_limit() && self.scan_start(now)
    }

    /// The next segment that was written before the last flush. When there is none left, the flush is
    /// complete.
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
                && matches!(segment.state, SegmentState::Queued(_))
                && segment.pins == 0
            {
                return Some(number);
            }
        }
        if self.is_flushing() {
            return None;
        }
        // Some could not be emptied because they are pinned; they are freed when they are unpinned.
        let looks_end = segments.count().min(self.flush_gone.saturating_add(FLUSH_LOOKS));
        while self.flush_gone < looks_end {
            let segment = &segments[self.flush_gone];
            if segment.state != SegmentState::Free && segment.sequence < self.flushed_below {
                return None;
            }
            self.flush_gone += 1;
        }
        if self.flush_gone == segments.count() {
            self.flushed_below = 0;
        }
        None
    }

    /// Whether more segments are in use than the memory limit allows.
    fn is_over_limit(&self) -> bool {
        self.log.segments.in_use() > self.segments_total()
    }

    /// Whether there are segments that upkeep has not looked at since the last flush.
    fn is_flushing(&self) -> bool {
        self.flushed_below != 0 && self.flush_cursor < self.log.segments.count()
    }

    /// Whether upkeep has more to do, other than expiry.
    fn is_upkeep_due(&self) -> bool {
        self.is_over_limit() || self.is_flushing()
    }

    /// Gives some memory of a free segment over the limit back to the kernel, if there is more of it than a
    /// thread that carries out `next_page_work` would leave. True if there may be more.
    pub(super) fn discard_surplus(&mut self) -> bool {
        let total = self.segments_total();
        self.resident_segments() > total + total / SURPLUS_FRACTION && self.log.discard_some()
    }

    /// Segments that may be resident: those in use, and free ones with memory.
    fn resident_segments(&self) -> usize {
        self.log.segments.in_use() + self.log.segments.resident_free()
    }

    /// The next work of the kernel on the memory of this store, for another thread to carry out: provide a
    /// huge page before it is used for the first time, or take back the memory of a segment over the limit.
    /// `None` if there is nothing to do now. To be called between batches. Writes to memory that is not
    /// provided yet wait for the kernel.
    pub fn next_page_work(&mut self) -> Option<PageWork> {
        let segments_total = self.segments_total();
        if let Some(work) = self.log.next_untouched(segments_total) {
            return Some(work);
        }
        self.log.finish_take_back();
        if self.resident_segments() > segments_total { self.log.next_take_back() } else { None }
    }

    /// The earliest second in which all of a segment may have expired, and `maintain` should be called.
    pub fn next_expiry(&self) -> Option<Seconds> {
        self.log.segments.due_next().map(Seconds)
    }

    /// The highest memory limit, bytes, that [`Store::set_memory_bytes`] takes.
    pub fn memory_bytes_max(&self) -> usize {
        self.log.arena.len().min(MEMORY_BYTES_MAX)
    }

    /// Changes the memory limit. A higher limit, up to eight times the limit at start and 16 GiB, has effect
    /// at once. To a lower one the store shrinks gradually, in `maintain` and writes.
    ///
    /// # Errors
    /// `memory_bytes`, if the limit is too low or too high; it is not changed then.
    pub fn set_memory_bytes(&mut self, bytes: usize, now: Seconds) -> Result<(), ConfigError> {
        self.apply_due_flush(now);
        let bad = |remedy| Err(ConfigError { key: "memory_bytes", value: bytes as u64, remedy });
        if bytes < MEMORY_BYTES_MIN || bytes / 2 < self.config.value_bytes_max {
            return bad("keep at least 1 MiB and twice value_bytes_max");
        }
        if bytes > self.memory_bytes_max() {
            return bad("restart with this limit: it is past the address space reserved at start");
        }
        self.config.memory_bytes = bytes;
        self.index.set_memory_bytes(bytes);
        self.log.set_segments_total(bytes / self.log.segments.segment_bytes());
        Ok(())
    }
}
