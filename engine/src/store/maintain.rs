//! Upkeep between requests: expiry, flushed segments, a lowered limit.

use crate::clock::Seconds;
use crate::config::{ConfigError, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN};
use crate::index::Index;
use crate::segment::Place;

use super::Store;

/// Records per slice of upkeep, about 5 microseconds.
const SLICE_RECORDS: usize = 64;

impl<I: Index> Store<I> {
    /// Does what is due, passing at most about `budget_items` records: frees expired and flushed segments and
    /// shrinks to a lowered limit. True when there is more to do now.
    pub fn maintain(&mut self, now: Seconds, budget_items: usize) -> bool {
        self.turn(now);
        self.log.close_aged(now.0);
        let mut left = budget_items;
        while left > 0 {
            if self.scan.is_none() && !self.upkeep_start(now) {
                // What slices of the index cost is near what records do.
                let more = self.adapt_index(left.min(SLICE_RECORDS) / 8);
                return self.discard_surplus() || more;
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
        while self.flush_cursor < segments.count() {
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
        let old = |number| {
            let segment: &crate::segment::Segment = &segments[number];
            segment.place != Place::Free && segment.sequence < self.flushed_below
        };
        if !(0..segments.count()).any(old) {
            self.flushed_below = 0;
        }
        None
    }

    fn is_over_limit(&self) -> bool {
        self.log.segments.in_use() > self.segments_total()
    }

    fn is_behind(&self) -> bool {
        self.is_over_limit() || (self.flushed_below != 0 && self.flush_cursor < self.log.segments.count())
    }

    /// Gives back one free segment's memory that the limit no longer covers. True while there are more.
    pub(super) fn discard_surplus(&mut self) -> bool {
        let segments = &self.log.segments;
        let surplus = segments.in_use() + segments.resident_free() > self.segments_total();
        surplus && self.log.discard_one()
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
