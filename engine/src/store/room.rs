//! Making room: emptying segments so that they can be written again.
//!
//! One segment is emptied at a time, a few records per step (a [`SegmentScan`]). Dead records are skipped.
//! The policy decides which live ones are kept; all are kept if the segment is nearly empty or expired, or
//! the store does not evict. Appends add to a scan debt that later calls pay off in small steps, so that a
//! call rarely empties a whole segment.

use crate::clock::Seconds;
use crate::eviction::EvictionDecision;
use crate::index::Index;
use crate::item::{self, Location, Piece, Record, RecordKind};
use crate::key::KEY_BYTES_MAX;
use crate::log::Lane;
use crate::segment::{Queue, SegmentState};

use super::{CACHE_LINE_BYTES, SHRINK_SLICES, Store};

/// Records per step of a scan.
const STEP_RECORDS: usize = 16;
/// A step ends after so many bytes, which take 2 microseconds to copy, even if there were fewer records.
const STEP_BYTES: usize = 16 << 10;
/// Most steps of scanning that one call does to pay off debt: a few microseconds of work.
const PAY_STEPS_MAX: usize = 2;
/// Cache lines that each step prefetches of the records after it.
const READ_AHEAD_LINES: usize = 24;
/// Segments that writes leave free. Items are moved there; without them no segment could be emptied.
const MOVE_SEGMENTS: usize = 1;
/// Appends add to the scan debt while fewer segments than this are free.
pub(super) const RESERVE_SEGMENTS: usize = 2;
/// Scan debt is counted in this fraction of a byte: tenths.
const DEBT_UNITS_PER_BYTE: usize = 10;
/// Tenths of a byte to be scanned for each byte appended and each segment missing in the reserve.
const PACE_TENTHS: usize = 13;
/// A closed segment with fewer live bytes than its size divided by this is compacted before anything is
/// dropped.
const SPARSE_FRACTION: usize = 4;
/// Without eviction a segment is compacted if that gains at least its size divided by this.
const COMPACTION_GAIN_FRACTION: usize = 8;
/// A piece is kept in a segment of its own if it leaves at most the segment divided by this without use. With
/// all pieces kept there, values of 50,000 bytes used 60 % of a store of 32 MiB, and 77 % with this bound.
const WASTE_FRACTION: usize = 8;
/// Segments that one search for the sparsest looks at. It takes 3 microseconds, and covers all segments of a
/// store that was not made larger since it started.
const SPARSE_LOOKS: u32 = 2048;
/// If the segments in use take this many times the live bytes in them, sparse ones are emptied before memory
/// is touched for the first time. When values are overwritten at random, a tenth to a quarter of the sparsest
/// is live then. To copy that takes much less time than the kernel needs to clear new memory, and resident
/// memory does not exceed this multiple.
const USED_OF_LIVE: u64 = 2;
/// A store with fewer segments in use does not do so.
const USED_SEGMENTS_MIN: usize = 16;

/// The purpose of an append, which decides how room may be made for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A client's write. Items may be dropped for it.
    Write,
    /// Moving an item that is kept while its segment is emptied. It may use all free segments, and drops
    /// nothing.
    Move,
}

/// The segment that is being emptied. It is in no queue meanwhile; its items can be read.
pub(super) struct SegmentScan {
    pub(super) segment: u32,
    /// The queue it was in.
    pub(super) queue: Queue,
    /// Bytes of it that were scanned.
    at: usize,
    /// Whether all live items are kept.
    keep_all: bool,
}

/// A record of the segment that is being emptied.
#[derive(Clone, Copy, Default)]
struct ScannedRecord {
    location: Location,
    bytes: usize,
    hash: u64,
    /// Its header, if it is a piece of a large item.
    piece: Option<Piece>,
    /// Whether it is slack or a grave.
    is_dead: bool,
}

impl<I: Index> Store<I> {
    /// Segments that may still be opened within the memory limit.
    #[inline]
    pub(super) fn available(&self) -> usize {
        self.segments_total().saturating_sub(self.log.segments.in_use())
    }

    /// Pays off some of the scan debt. Items move, so a write calls this before it looks anything up.
    #[inline]
    pub(super) fn pay_scan_debt(&mut self, now: Seconds) {
        if self.debt == 0 || !self.config.evict {
            return;
        }
        // The next write may find no segment to open: each call scans as much as it may.
        if self.available() <= MOVE_SEGMENTS {
            self.debt = self.debt.max(self.log.segments.segment_bytes() * DEBT_UNITS_PER_BYTE);
        }
        if self.scan.is_none() && self.available() >= RESERVE_SEGMENTS {
            self.debt = 0;
            return;
        }
        for _ in 0..PAY_STEPS_MAX {
            if self.debt == 0 {
                return;
            }
            if self.scan.is_none() && (self.available() >= RESERVE_SEGMENTS || !self.scan_start(now)) {
                self.debt = 0;
                return;
            }
            self.debt = self.debt.saturating_sub(self.scan_step(now, STEP_RECORDS) * DEBT_UNITS_PER_BYTE);
        }
    }

    /// Appends a record of `bytes` bytes to `lane`, or to another one if that has no room. `None` if there is
    /// no memory.
    #[inline]
    pub(super) fn reserve(
        &mut self,
        bytes: usize,
        lane: Lane,
        expires: u32,
        purpose: Purpose,
        now: Seconds,
    ) -> Option<Location> {
        let mut lane = lane;
        if self.log.room(lane) < bytes {
            lane = self.open_next(bytes, lane, purpose, now)?;
        }
        Some(self.append(bytes, lane, expires, purpose))
    }

    /// Appends a record of `bytes` bytes to a lane that has room for it.
    #[inline]
    pub(super) fn append(&mut self, bytes: usize, lane: Lane, expires: u32, purpose: Purpose) -> Location {
        if purpose == Purpose::Write {
            self.add_scan_debt(bytes);
        }
        self.log.append(lane, bytes, expires)
    }

    /// Adds the scan debt of an append of `bytes` bytes.
    #[inline]
    pub(super) fn add_scan_debt(&mut self, bytes: usize) {
        if self.config.evict {
            let short = RESERVE_SEGMENTS.saturating_sub(self.available());
            self.debt += bytes * PACE_TENTHS * (short + usize::from(self.scan.is_some()));
        }
    }

    /// Opens another segment for `lane`, or finds another lane with room for a record of `bytes` bytes.
    /// Returns the lane that has room; `None` if there is no memory.
    #[cold]
    fn open_next(&mut self, bytes: usize, lane: Lane, purpose: Purpose, now: Seconds) -> Option<Lane> {
        if bytes > self.log.segments.segment_bytes() {
            return None;
        }
        match purpose {
            Purpose::Write => {
                if self.available() <= MOVE_SEGMENTS {
                    // To empty a segment takes a tenth of a millisecond: better to put a small record
                    // elsewhere.
                    let elsewhere =
                        if self.config.evict { self.log.other_lane_with_room(lane, bytes) } else { None };
                    if elsewhere.is_some() {
                        return elsewhere;
                    }
                    if !self.make_room(now) {
                        return None;
                    }
                }
                // Making room may have opened a segment for this lane.
                if self.log.room(lane) >= bytes {
                    return Some(lane);
                }
            }
            // Without eviction a move may exceed the limit by one segment: it is about to free another.
            Purpose::Move if !self.config.evict => {
                if self.log.segments.in_use() > self.segments_total() {
                    return None;
                }
            }
            Purpose::Move => {
                if self.available() == 0 {
                    return self.log.other_lane_with_room(lane, bytes);
                }
            }
        }
        let segments_total = self.segments_total();
        let opened = self.log.open_next(lane, segments_total, now.0);
        if purpose == Purpose::Write {
            self.reuse_sparse();
        }
        // A larger index leaves fewer segments. Memory of the others that no other thread has given back is
        // given back here.
        self.discard_surplus();
        opened.then_some(lane)
    }

    /// If the next segment would be memory that was never touched, while most bytes of the segments in use
    /// are dead, starts to empty the sparsest segment. It is emptied at the pace of appends to the segment
    /// just opened.
    fn reuse_sparse(&mut self) {
        let segments = &self.log.segments;
        let used_bytes = segments.in_use() as u64 * segments.segment_bytes() as u64;
        let wanted = self.config.evict
            && self.scan.is_none()
            && segments.resident_free() == 0
            && segments.in_use() >= USED_SEGMENTS_MIN
            && used_bytes > USED_OF_LIVE * self.counts.bytes;
        if wanted && let Some(segment) = self.sparse_segment() {
            self.scan_segment(segment, true);
        }
    }

    /// Empties segments until a write may open one. False if it cannot, because all are pinned or nothing may
    /// be dropped.
    fn make_room(&mut self, now: Seconds) -> bool {
        // Each segment once, and once more for those opened by moves: after that nothing more can be gained.
        for _ in 0..2 * self.log.segments.in_use() {
            if self.scan.is_none() && !self.scan_start(now) {
                return false;
            }
            while self.scan.is_some() {
                self.scan_step(now, STEP_RECORDS);
            }
            if self.available() > MOVE_SEGMENTS {
                return true;
            }
        }
        false
    }

    /// Chooses a segment and starts to empty it. False if there is none that may be emptied.
    pub(super) fn scan_start(&mut self, now: Seconds) -> bool {
        if let Some(segment) = self.log.segments.pop_due(now.0) {
            return self.scan_segment(segment, true);
        }
        if let Some(segment) = self.sparse_segment() {
            return self.scan_segment(segment, true);
        }
        if !self.config.evict {
            return false;
        }
        let segments = &self.log.segments;
        let (admission, main) = (segments.queue_len(Queue::Admission), segments.queue_len(Queue::Main));
        self.policy.rehearsal.set_store_size(self.counts.items, self.counts.bytes);
        let first = self.policy.queue_to_evict(admission, main, self.segments_total());
        let second = if first == Queue::Admission { Queue::Main } else { Queue::Admission };
        for queue in [first, second] {
            for _ in 0..self.log.segments.queue_len(queue) {
                let segment = self.log.segments.oldest(queue);
                if self.log.segments[segment].pins == 0 {
                    return self.scan_segment(segment, false);
                }
                // A pinned one goes to the end of its queue.
                self.log.segments.detach(segment);
                self.log.segments.push(queue, segment);
            }
        }
        false
    }

    /// The segment with the fewest live bytes, if these are few enough to compact it. Looks at some segments,
    /// or at all if nothing may be dropped. Called once per emptied segment.
    fn sparse_segment(&mut self) -> Option<u32> {
        let segments = &self.log.segments;
        let count = segments.count();
        let looks = if self.config.evict { count.min(SPARSE_LOOKS) } else { count };
        let first = if self.sparse_cursor < count { self.sparse_cursor } else { 0 };
        self.sparse_cursor = (first + looks) % count.max(1);
        let segment_bytes = segments.segment_bytes();
        let live_max = match self.config.evict {
            true => segment_bytes / SPARSE_FRACTION, // above that, dropping items is cheaper
            false => segment_bytes - segment_bytes / COMPACTION_GAIN_FRACTION,
        };
        let mut best = None;
        for number in
            (first..first + looks).map(|number| if number < count { number } else { number - count })
        {
            let segment = &segments[number];
            if !matches!(segment.state, SegmentState::Queued(_)) || segment.open || segment.pins > 0 {
                continue;
            }
            let live = if segment.sequence < self.flushed_below { 0 } else { segment.live as usize };
            if live < best.map_or(live_max, |(live, _)| live) {
                best = Some((live, number));
            }
        }
        best.map(|(_, number)| number)
    }

    /// Starts to empty this segment. Returns true, also if the segment was empty and is free now.
    pub(super) fn scan_segment(&mut self, segment: u32, keep_all: bool) -> bool {
        assert!(self.scan.is_none());
        self.log.close_segment(segment);
        // Closing frees a segment without live bytes.
        if let SegmentState::Queued(queue) = self.log.segments[segment].state {
            self.log.segments.detach(segment);
            self.scan = Some(SegmentScan { segment, queue, at: 0, keep_all });
        }
        true
    }

    /// Scans up to `records` records of the segment that is being emptied, and returns their bytes. Ends the
    /// scan at the end of the segment.
    pub(super) fn scan_step(&mut self, now: Seconds, records: usize) -> usize {
        let Some(&SegmentScan { segment, queue, at: from, keep_all }) = self.scan.as_ref() else { return 0 };
        if self.log.segments[segment].pins > 0 {
            self.scan_end(segment, queue);
            return 0;
        }
        let start = self.log.segments.start(segment);
        let end = self.log.segments[segment].written as usize;
        let mut at = from;
        let (mut left, bytes_max) = (records, records.div_ceil(STEP_RECORDS) * STEP_BYTES);
        while at < end && left > 0 && at - from < bytes_max && self.log.segments[segment].live > 0 {
            let mut batch = [ScannedRecord::default(); STEP_RECORDS];
            let count = self.read_ahead(&mut batch[..left.min(STEP_RECORDS)], start + at, start + end);
            for record in &batch[..count] {
                let done = match record.piece {
                    _ if record.is_dead => true,
                    None => self.scan_item(record.location, record.hash, queue, keep_all, now),
                    Some(piece) => self.scan_piece(record.location, piece, queue, keep_all, now),
                };
                if !done {
                    // There is no room to move an item that has to be kept: the rest of the segment stays as
                    // it is.
                    self.scan_end(segment, queue);
                    return at - from;
                }
                at += record.bytes;
                if self.log.segments[segment].live == 0 {
                    break;
                }
            }
            left -= count;
        }
        self.adapt_index(SHRINK_SLICES);
        if at >= end || self.log.segments[segment].live == 0 {
            self.scan_end(segment, queue);
        } else if let Some(scan) = &mut self.scan {
            scan.at = at;
        }
        (at - from).max(item::GRANULE)
    }

    /// Reads the records from arena offset `at` on into `batch`, and returns their number. Starts loading
    /// what deciding about them will read: their index lines, and the records after them.
    fn read_ahead(&self, batch: &mut [ScannedRecord], mut at: usize, end: usize) -> usize {
        let arena = &self.log.arena;
        let mut count = 0;
        let end = end.min(at + STEP_BYTES);
        for record in batch {
            if at >= end {
                break;
            }
            let location = Location::from_offset(at);
            let (kind, bytes) = item::kind_and_bytes(arena, location);
            let (hash, piece) = match kind {
                RecordKind::Dead => {
                    *record = ScannedRecord { location, bytes, is_dead: true, ..ScannedRecord::default() };
                    at += bytes;
                    count += 1;
                    continue;
                }
                RecordKind::Item => (self.config.hasher.hash(self.record(location).key()), None),
                RecordKind::Piece(piece) => (piece.hash, Some(piece)),
            };
            self.index.prefetch(hash);
            *record = ScannedRecord { location, bytes, hash, piece, is_dead: false };
            at += bytes;
            count += 1;
        }
        for line in 0..READ_AHEAD_LINES {
            arena.prefetch(at + line * CACHE_LINE_BYTES);
        }
        count
    }

    /// Ends the scan: frees the segment, or puts it back into a queue if something in it has to stay.
    fn scan_end(&mut self, segment: u32, queue: Queue) {
        self.scan = None;
        let segments = &mut self.log.segments;
        if segments[segment].live == 0 && segments[segment].pins == 0 {
            segments.release(segment);
            return;
        }
        let back = if segments[segment].pins > 0 { queue } else { Queue::Main };
        segments.push(back, segment);
        let expires_max = segments[segment].expires_max;
        segments.note_expiry(segment, expires_max);
    }

    /// Drops or moves the item at `at`. False if it has to be kept and there is no room to move it.
    ///
    /// The record of a large item is moved within its queue: whether the item is dropped is decided at its
    /// pieces. One segment holds the records of hundreds of large items, and to drop them all would empty most
    /// of the store to free one segment.
    fn scan_item(&mut self, at: Location, hash: u64, queue: Queue, keep_all: bool, now: Seconds) -> bool {
        let Some(slot) = self.index.find(hash, |other| other == at) else { return true };
        if self.is_dead(at, now) {
            self.reclaim(hash, at);
            return true;
        }
        if keep_all || self.record(at).is_large() {
            let fields = self.record(at).fields();
            let moved = self.rewrite_to(hash, at, fields, queue, Some(slot.frequency), Purpose::Move, now);
            return moved.is_some() || self.drop_if_allowed(hash, at);
        }
        self.keep_or_drop(hash, at, slot.frequency, queue, now);
        true
    }

    /// Drops or moves the item of the piece at `at`. False if it has to be kept and there is no room to move
    /// it.
    fn scan_piece(&mut self, at: Location, piece: Piece, queue: Queue, keep_all: bool, now: Seconds) -> bool {
        let arena = &self.log.arena;
        let owner = self.index.find(piece.hash, |head| Record::read(arena, head).owns(piece.ordinal, at));
        let Some(slot) = owner else { return true };
        let head = slot.location;
        if self.is_dead(head, now) {
            self.reclaim(piece.hash, head);
            return true;
        }
        if keep_all {
            let moved = self.move_piece(head, piece.ordinal, queue, now);
            return moved || self.drop_if_allowed(piece.hash, head);
        }
        self.keep_or_drop(piece.hash, head, slot.frequency, queue, now);
        true
    }

    /// Lets the policy decide about a live item, and keeps or drops it with all its pieces.
    fn keep_or_drop(&mut self, hash: u64, at: Location, frequency: u8, queue: Queue, now: Seconds) {
        let bytes = self.stored_bytes(at) as u64;
        let mean = self.counts.bytes / self.counts.items.max(1);
        let kept = match self.policy.decide(queue, frequency, bytes, mean) {
            EvictionDecision::Keep { frequency } => self.keep(hash, at, frequency, now),
            EvictionDecision::Drop => Err(at),
        };
        if let Err(at) = kept {
            if queue == Queue::Admission {
                self.ghosts.add(hash);
            }
            self.drop_item(hash, at);
        }
    }

    /// Moves an item to the main queue. A piece that fills a segment of its own is moved with it and not
    /// copied, so that of a large item only the record and the pieces in a few part-filled segments are
    /// copied.
    ///
    /// # Errors
    /// The location of the item, if there was not enough room.
    fn keep(&mut self, hash: u64, at: Location, frequency: u8, now: Seconds) -> Result<(), Location> {
        let fields = self.record(at).fields();
        let head = self.rewrite_to(hash, at, fields, Queue::Main, Some(frequency), Purpose::Move, now);
        let head = head.ok_or(at)?;
        let segment_bytes = self.log.segments.segment_bytes();
        for ordinal in 0..self.record(head).piece_count() {
            let piece = self.record(head).piece(ordinal);
            let number = self.log.segments.segment_of(piece.offset());
            let bytes = Piece::bytes(Piece::read(&self.log.arena, piece).len);
            let segment = &self.log.segments[number];
            if segment.live as usize == bytes
                && !segment.open
                && segment_bytes - bytes <= segment_bytes / WASTE_FRACTION
            {
                // If it is being scanned, it goes to the main queue when the scan ends.
                if segment.state != SegmentState::Scanned {
                    self.log.segments.detach(number);
                    self.log.segments.push(Queue::Main, number);
                }
            } else if segment.pins == 0 && !self.move_piece(head, ordinal, Queue::Main, now) {
                return Err(head);
            }
        }
        Ok(())
    }

    /// Drops an item that there is no room to move. False if nothing may be dropped.
    fn drop_if_allowed(&mut self, hash: u64, at: Location) -> bool {
        if self.config.evict {
            self.drop_item(hash, at);
        }
        self.config.evict
    }

    /// Drops a live item to make room.
    fn drop_item(&mut self, hash: u64, at: Location) {
        self.count_eviction(at);
        self.unlink(hash, at);
    }

    /// Writes the record again with other fields, and returns its location; pieces stay where they are.
    /// `None` if there is no memory; the item is as it was then.
    pub(super) fn rewrite(
        &mut self,
        hash: u64,
        at: Location,
        fields: item::Fields,
        now: Seconds,
    ) -> Option<Location> {
        self.pin_item(at);
        let new = self.rewrite_to(hash, at, fields, self.queue_of(at), None, Purpose::Write, now);
        match new {
            // The old segment of the record, and those of the pieces, which have not moved.
            Some(new) => {
                self.log.unpin(at);
                self.unpin_pieces(new);
            }
            None => {
                self.count_out_of_memory();
                self.unpin_item(at);
            }
        }
        if let Some(new) = new {
            self.raise_expiry(new, fields.expires);
        }
        new
    }

    /// Writes the record again, as it is for a move or with other `fields` for a write, and returns its
    /// location. `None` if there is no memory.
    #[allow(clippy::too_many_arguments)] // private, and the common part of rewrites and moves
    fn rewrite_to(
        &mut self,
        hash: u64,
        at: Location,
        fields: item::Fields,
        queue: Queue,
        frequency: Option<u8>,
        purpose: Purpose,
        now: Seconds,
    ) -> Option<Location> {
        let record = self.record(at);
        let (old_bytes, key_len, pieces) = (record.bytes(), record.key().len(), record.piece_count());
        let (large, value_len) = (record.is_large(), record.value_len());
        let bytes = match purpose {
            Purpose::Move => old_bytes,
            Purpose::Write if large => fields.large_bytes(key_len, pieces),
            Purpose::Write => fields.inline_bytes(key_len, value_len),
        };
        let lane = self.lane_for(queue, fields.expires, purpose, now);
        let new = self.reserve(bytes, lane, fields.expires, purpose, now)?;
        if purpose == Purpose::Move {
            self.log.arena.copy(at.offset(), new.offset(), bytes);
            self.counts.moved_items += 1;
            self.counts.moved_bytes += bytes as u64;
        } else {
            let mut key = [0; KEY_BYTES_MAX];
            let key = &mut key[..key_len];
            key.copy_from_slice(self.record(at).key());
            if large {
                let list: Vec<Location> = self.record(at).pieces().collect();
                fields.write_large(&mut self.log.arena, new, (key, hash), value_len, &list);
            } else {
                let from = at.offset() + self.record(at).value_at();
                let to = fields.write_inline(&mut self.log.arena, new, key, value_len);
                self.log.arena.copy(from, to, value_len);
            }
        }
        let found = self.index.relocate(hash, at, new, frequency);
        assert!(found); // `at` was found by this hash, and nothing was dropped since
        self.counts.bytes += bytes as u64;
        self.counts.bytes -= old_bytes as u64;
        self.log.mark_dead(at, old_bytes);
        Some(new)
    }

    /// The lane for an append. Without eviction all moves go to one lane, so that the live bytes of a segment
    /// always fit into what is left of the lane's segment and one more.
    fn lane_for(&mut self, queue: Queue, expires: u32, purpose: Purpose, now: Seconds) -> Lane {
        if purpose == Purpose::Move && !self.config.evict {
            return Lane::unsorted(Queue::Main);
        }
        self.log.lane(queue, expires, now.0)
    }

    /// Copies one piece of the item at `head` to another segment. False if there is no room; nothing is
    /// changed then.
    fn move_piece(&mut self, head: Location, ordinal: usize, queue: Queue, now: Seconds) -> bool {
        let record = self.record(head);
        let (from, expires) = (record.piece(ordinal), record.expires());
        let bytes = Piece::bytes(Piece::read(&self.log.arena, from).len);
        let lane = self.lane_for(queue, expires, Purpose::Move, now);
        let Some(to) = self.reserve(bytes, lane, expires, Purpose::Move, now) else { return false };
        self.log.arena.copy(from.offset(), to.offset(), bytes);
        item::relink_piece(&mut self.log.arena, head, ordinal, to);
        self.log.mark_dead(from, bytes);
        self.counts.moved_bytes += bytes as u64;
        true
    }

    /// Pins all segments of the item, so that its bytes stay as they are until `unpin_item`.
    #[inline]
    pub(super) fn pin_item(&mut self, at: Location) {
        self.log.pin(at);
        for ordinal in 0..self.record(at).piece_count() {
            let piece = self.record(at).piece(ordinal);
            self.log.pin(piece);
        }
    }

    /// Takes `pin_item` back. The item may have been removed meanwhile; its bytes are still there.
    #[inline]
    pub(super) fn unpin_item(&mut self, at: Location) {
        self.unpin_pieces(at);
        self.log.unpin(at);
    }

    fn unpin_pieces(&mut self, at: Location) {
        for ordinal in 0..self.record(at).piece_count() {
            let piece = self.record(at).piece(ordinal);
            self.log.unpin(piece);
        }
    }

    /// Counts a write that was refused because there is no memory.
    pub(super) fn count_out_of_memory(&mut self) {
        self.counts.out_of_memory += 1;
    }
}
