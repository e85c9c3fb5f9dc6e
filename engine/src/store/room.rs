//! Making room: emptying segments so that others can be written.
//!
//! One segment is emptied at a time, a few records per step (a [`Scan`]). Dead records are skipped, living
//! ones judged by the policy, or all kept when the segment is nearly empty, expired, or nothing may be
//! dropped. Appends pay for scanning as they go, so that a call rarely empties a whole segment.

use crate::clock::Seconds;
use crate::eviction::Verdict;
use crate::index::Index;
use crate::item::{self, Location, Met, Piece, Record};
use crate::key::KEY_BYTES_MAX;
use crate::log::Lane;
use crate::segment::{Place, Queue};

use super::{CACHE_LINE_BYTES, SHRINK_SLICES, Store};

/// Records per step of a scan.
const STEP_RECORDS: usize = 16;
/// Bytes after which a step ends all the same: copying so much takes 2 microseconds.
const STEP_BYTES: usize = 16 << 10;
/// Steps of scanning a call pays at most.
const PAY_STEPS_MAX: usize = 2;
/// Cache lines of records to come that are prefetched at each step.
const READ_AHEAD_LINES: usize = 24;
/// Segments ordinary writes leave for moving items to, without which nothing could be emptied.
const MOVE_SEGMENTS: usize = 1;
/// Free segments aimed at by paying appends; below it they pay.
pub(super) const RESERVE_SEGMENTS: usize = 2;
/// Tenths of a byte scanned per byte appended, for each segment the reserve is short of.
const PACE_TENTHS: usize = 13;
/// A closed segment with less than one in this many bytes live is compacted before anything is dropped.
const SPARSE_FRACTION: usize = 4;
/// Segments among which the sparsest is looked for: 3 microseconds' worth, and all of a store as large as at start.
const SPARSE_LOOKS: u32 = 2048;
/// Memory in use, of the live bytes in it, past which sparse segments are emptied before memory is touched for the
/// first time. With values overwritten at random the sparsest are then a tenth to a quarter live: copying those costs
/// far less than the kernel takes to clear as much, and what is resident stays at this multiple however long it goes on.
const USED_OF_LIVE: u64 = 2;
/// Segments in use below which that is not looked at.
const USED_SEGMENTS_MIN: usize = 16;

/// Whether room may be made for an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A client's write: others may go for it.
    Write,
    /// Keeping an item while its segment is emptied: uses what is free, and the segment set aside.
    Move,
}

/// A segment being emptied. It is in no queue meanwhile; its items stay readable.
pub(super) struct Scan {
    pub(super) segment: u32,
    /// Where it came from.
    pub(super) queue: Queue,
    /// Bytes passed.
    at: usize,
    /// Keep whatever lives.
    keep_all: bool,
}

/// A record a scan has come to.
#[derive(Clone, Copy, Default)]
struct Passed {
    location: Location,
    bytes: usize,
    hash: u64,
    /// If it is a piece of a large item.
    piece: Option<Piece>,
    is_nothing: bool,
}

impl<I: Index> Store<I> {
    /// Segments that may still be taken within the limit.
    #[inline]
    pub(super) fn available(&self) -> usize {
        self.segments_total().saturating_sub(self.log.segments.in_use())
    }

    /// Scans for what was appended since; called before a write looks anything up, since items move.
    #[inline]
    pub(super) fn pay(&mut self, now: Seconds) {
        if self.debt == 0 || !self.config.evict {
            return;
        }
        // The next write may find nothing to open: everybody pays what a call may.
        if self.available() <= MOVE_SEGMENTS {
            self.debt = self.debt.max(self.log.segments.segment_bytes() * 10);
        }
        if self.scan.is_none() && self.available() >= RESERVE_SEGMENTS {
            self.debt = 0;
            return;
        }
        // At most a few microseconds of it: the rest is paid by the calls that follow.
        for _ in 0..PAY_STEPS_MAX {
            if self.debt == 0 {
                return;
            }
            if self.scan.is_none() && (self.available() >= RESERVE_SEGMENTS || !self.scan_start(now)) {
                self.debt = 0;
                return;
            }
            self.debt = self.debt.saturating_sub(self.scan_step(now, STEP_RECORDS) * 10);
        }
    }

    /// Appends a record of `bytes` to `lane`. `None`: no memory.
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

    /// The same, in a lane that has room for it.
    #[inline]
    pub(super) fn append(&mut self, bytes: usize, lane: Lane, expires: u32, purpose: Purpose) -> Location {
        if purpose == Purpose::Write {
            self.owe(bytes);
        }
        self.log.append(lane, bytes, expires)
    }

    /// `bytes` are appended: scanning has to keep up.
    #[inline]
    pub(super) fn owe(&mut self, bytes: usize) {
        if self.config.evict {
            let short = RESERVE_SEGMENTS.saturating_sub(self.available());
            self.debt += bytes * PACE_TENTHS * (short + usize::from(self.scan.is_some()));
        }
    }

    /// Makes `bytes` of room in `lane` by opening another segment, or says in which lane there is some.
    #[cold]
    fn open_next(&mut self, bytes: usize, lane: Lane, purpose: Purpose, now: Seconds) -> Option<Lane> {
        if bytes > self.log.segments.segment_bytes() {
            return None;
        }
        match purpose {
            Purpose::Write => {
                if self.available() <= MOVE_SEGMENTS {
                    // Emptying a segment takes a tenth of a millisecond: a small record rather goes elsewhere.
                    let elsewhere = if self.config.evict { self.log.lane_instead(lane, bytes) } else { None };
                    if elsewhere.is_some() {
                        return elsewhere;
                    }
                    if !self.make_room(now) {
                        return None;
                    }
                }
                // Making room may have opened this very lane.
                if self.log.room(lane) >= bytes {
                    return Some(lane);
                }
            }
            // Where nothing may be dropped, a move may pass the limit by the segment it is about to free.
            Purpose::Move if !self.config.evict => {
                if self.log.segments.in_use() > self.segments_total() {
                    return None;
                }
            }
            Purpose::Move => {
                if self.available() == 0 {
                    return self.log.lane_instead(lane, bytes);
                }
            }
        }
        let segments_total = self.segments_total();
        let opened = self.log.open_next(lane, segments_total, now.0);
        if purpose == Purpose::Write {
            self.reuse_sparse();
        }
        // A grown index takes segments away for good. What no other thread has given back of them goes here.
        self.discard_surplus();
        opened.then_some(lane)
    }

    /// Where the next segment would be memory nobody touched yet, while most of what is in use is dead: starts emptying
    /// the sparsest of it, at the pace of what is appended to the one just opened.
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

    /// Empties segments until a write may take one. False: everything is pinned, or nothing may be dropped.
    fn make_room(&mut self, now: Seconds) -> bool {
        // Each segment once, and once more for those opened by moves: past that nothing is gained.
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

    /// Chooses a segment to empty. False when there is none.
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
        self.policy.rehearsal.fit(self.counts.items, self.counts.bytes);
        let first = self.policy.giving(admission, main, self.segments_total());
        let second = if first == Queue::Admission { Queue::Main } else { Queue::Admission };
        for queue in [first, second] {
            for _ in 0..self.log.segments.queue_len(queue) {
                let segment = self.log.segments.oldest(queue);
                if self.log.segments[segment].pins == 0 {
                    return self.scan_segment(segment, false);
                }
                // Pinned ones go round: they will be asked again.
                self.log.segments.detach(segment);
                self.log.segments.push(queue, segment);
            }
        }
        false
    }

    /// The segment worth compacting most: the one with the fewest live bytes, if few enough. Looks at the numbers
    /// of some segments, once per segment emptied; where nothing may be dropped, of all.
    fn sparse_segment(&mut self) -> Option<u32> {
        let segments = &self.log.segments;
        let count = segments.count();
        let looks = if self.config.evict { count.min(SPARSE_LOOKS) } else { count };
        let first = if self.sparse_cursor < count { self.sparse_cursor } else { 0 };
        self.sparse_cursor = (first + looks) % count.max(1);
        let segment_bytes = segments.segment_bytes();
        // Without eviction anything that gains an eighth is worth it; with it, dropping is cheaper.
        let live_max =
            if self.config.evict { segment_bytes / SPARSE_FRACTION } else { segment_bytes / 8 * 7 };
        let mut best = None;
        for number in
            (first..first + looks).map(|number| if number < count { number } else { number - count })
        {
            let segment = &segments[number];
            if !matches!(segment.place, Place::Queued(_)) || segment.open || segment.pins > 0 {
                continue;
            }
            let live = if segment.sequence < self.flushed_below { 0 } else { segment.live as usize };
            if live < best.map_or(live_max, |(live, _)| live) {
                best = Some((live, number));
            }
        }
        best.map(|(_, number)| number)
    }

    /// Starts emptying this segment. False if it turned out to hold nothing, which also makes room.
    pub(super) fn scan_segment(&mut self, segment: u32, keep_all: bool) -> bool {
        assert!(self.scan.is_none());
        self.log.close_segment(segment);
        // Closing frees a segment without live bytes.
        if let Place::Queued(queue) = self.log.segments[segment].place {
            self.log.segments.detach(segment);
            self.scan = Some(Scan { segment, queue, at: 0, keep_all });
        }
        true
    }

    /// Passes up to `records` records of the segment being emptied; the bytes passed. Ends the scan at the
    /// segment's end.
    pub(super) fn scan_step(&mut self, now: Seconds, records: usize) -> usize {
        let Some(&Scan { segment, queue, at: from, keep_all }) = self.scan.as_ref() else { return 0 };
        if self.log.segments[segment].pins > 0 {
            self.scan_end(segment, queue);
            return 0;
        }
        let start = self.log.segments.start(segment);
        let end = self.log.segments[segment].written as usize;
        let mut at = from;
        let (mut left, bytes_max) = (records, records.div_ceil(STEP_RECORDS) * STEP_BYTES);
        while at < end && left > 0 && at - from < bytes_max && self.log.segments[segment].live > 0 {
            let mut batch = [Passed::default(); STEP_RECORDS];
            let passed = self.read_ahead(&mut batch[..left.min(STEP_RECORDS)], start + at, start + end);
            for passed in &batch[..passed] {
                let kept = match passed.piece {
                    _ if passed.is_nothing => true,
                    None => self.scan_item(passed.location, passed.hash, queue, keep_all, now),
                    Some(piece) => self.scan_piece(passed.location, piece, queue, keep_all, now),
                };
                if !kept {
                    // No room to keep what must be kept: the segment stays as it is.
                    self.scan_end(segment, queue);
                    return at - from;
                }
                at += passed.bytes;
                if self.log.segments[segment].live == 0 {
                    break;
                }
            }
            left -= passed;
        }
        self.adapt_index(SHRINK_SLICES);
        if at >= end || self.log.segments[segment].live == 0 {
            self.scan_end(segment, queue);
        } else if let Some(scan) = &mut self.scan {
            scan.at = at;
        }
        (at - from).max(item::GRANULE)
    }

    /// Reads the records from arena offset `at` on, and starts loading what judging them will need: their index
    /// lines, and the records after them. How many there were.
    fn read_ahead(&self, batch: &mut [Passed], mut at: usize, end: usize) -> usize {
        let arena = &self.log.arena;
        let mut count = 0;
        let end = end.min(at + STEP_BYTES);
        for passed in batch {
            if at >= end {
                break;
            }
            let location = Location::of(at);
            let (met, bytes) = item::meet(arena, location);
            let (hash, piece) = match met {
                Met::Nothing => {
                    *passed = Passed { location, bytes, is_nothing: true, ..Passed::default() };
                    at += bytes;
                    count += 1;
                    continue;
                }
                Met::Item => (self.config.hasher.hash(self.record(location).key()), None),
                Met::Piece(piece) => (piece.hash, Some(piece)),
            };
            self.index.prefetch(hash);
            *passed = Passed { location, bytes, hash, piece, is_nothing: false };
            at += bytes;
            count += 1;
        }
        for line in 0..READ_AHEAD_LINES {
            arena.prefetch(at + line * CACHE_LINE_BYTES);
        }
        count
    }

    /// Frees the segment, or puts it back when something in it has to stay.
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
        segments.expires(segment, expires_max);
    }

    /// Judges the record at `at`. False if it had to be kept and could not.
    fn scan_item(&mut self, at: Location, hash: u64, queue: Queue, keep_all: bool, now: Seconds) -> bool {
        let Some(slot) = self.index.find(hash, |other| other == at) else { return true };
        if self.is_dead(at, now) {
            self.reclaim(hash, at);
            return true;
        }
        if keep_all {
            let fields = self.record(at).fields();
            let moved = self.rewrite_to(hash, at, fields, queue, Some(slot.frequency), Purpose::Move, now);
            return moved.is_some() || self.drop_if_allowed(hash, at);
        }
        self.judge(hash, at, slot.frequency, queue, now);
        true
    }

    /// Judges the item a piece belongs to. False if it had to be kept and could not.
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
        self.judge(piece.hash, head, slot.frequency, queue, now);
        true
    }

    /// Lets the policy decide on a living item, all its pieces together.
    fn judge(&mut self, hash: u64, at: Location, frequency: u8, queue: Queue, now: Seconds) {
        let bytes = self.stored_bytes(at) as u64;
        let mean = self.counts.bytes / self.counts.items.max(1);
        let kept = match self.policy.judge(queue, frequency, bytes, mean) {
            Verdict::Keep { frequency } => self.keep(hash, at, frequency, now),
            Verdict::Drop => Err(at),
        };
        if let Err(at) = kept {
            if queue == Queue::Admission {
                self.ghosts.add(hash);
            }
            self.drop_item(hash, at);
        }
    }

    /// Moves an item to the main queue. Pieces that have a segment of their own move with it, uncopied, so
    /// that a large item costs its list and at most a few part-filled segments. The error is where the item
    /// is when room ran out on the way.
    fn keep(&mut self, hash: u64, at: Location, frequency: u8, now: Seconds) -> Result<(), Location> {
        let fields = self.record(at).fields();
        let head = self.rewrite_to(hash, at, fields, Queue::Main, Some(frequency), Purpose::Move, now);
        let head = head.ok_or(at)?;
        for ordinal in 0..self.record(head).piece_count() {
            let piece = self.record(head).piece(ordinal);
            let segment = self.log.segments.holding(piece.at());
            let bytes = Piece::bytes(Piece::read(&self.log.arena, piece).len);
            let state = &self.log.segments[segment];
            if state.live as usize == bytes && !state.open {
                // A scanned one goes to the main queue when its scan ends.
                if state.place != Place::Scanned {
                    self.log.segments.detach(segment);
                    self.log.segments.push(Queue::Main, segment);
                }
            } else if state.pins == 0 && !self.move_piece(head, ordinal, Queue::Main, now) {
                return Err(head);
            }
        }
        Ok(())
    }

    /// Drops an item that could not be kept; false where nothing may be dropped.
    fn drop_if_allowed(&mut self, hash: u64, at: Location) -> bool {
        if self.config.evict {
            self.drop_item(hash, at);
        }
        self.config.evict
    }

    /// Drops a living item to make room.
    fn drop_item(&mut self, hash: u64, at: Location) {
        self.count_eviction(at);
        self.unlink(hash, at);
    }

    /// Writes the record again with other fields; pieces stay where they are. `None`: no memory, and the item
    /// is as it was.
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
            // The head's old segment, and the pieces', which are the same as before.
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

    #[allow(clippy::too_many_arguments)] // one private function where the two ways of rewriting meet
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
            self.log.arena.copy(at.at(), new.at(), bytes);
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
                let from = at.at() + self.record(at).value_at();
                let to = fields.write_inline(&mut self.log.arena, new, key, value_len);
                self.log.arena.copy(from, to, value_len);
            }
        }
        let found = self.index.relocate(hash, at, new, frequency);
        assert!(found); // `at` came from the index under this hash and nothing was dropped since
        self.counts.bytes += bytes as u64;
        self.counts.bytes -= old_bytes as u64;
        self.log.forget(at, old_bytes);
        Some(new)
    }

    /// Where nothing may be dropped moves share one lane: a segment's live bytes then always fit into what is
    /// left of it and one more segment.
    fn lane_for(&mut self, queue: Queue, expires: u32, purpose: Purpose, now: Seconds) -> Lane {
        if purpose == Purpose::Move && !self.config.evict {
            return Lane::unsorted(Queue::Main);
        }
        self.log.lane(queue, expires, now.0)
    }

    /// Copies one piece to another place. False: no room, and nothing changed.
    fn move_piece(&mut self, head: Location, ordinal: usize, queue: Queue, now: Seconds) -> bool {
        let record = self.record(head);
        let (from, expires) = (record.piece(ordinal), record.expires());
        let bytes = Piece::bytes(Piece::read(&self.log.arena, from).len);
        let lane = self.lane_for(queue, expires, Purpose::Move, now);
        let Some(to) = self.reserve(bytes, lane, expires, Purpose::Move, now) else { return false };
        self.log.arena.copy(from.at(), to.at(), bytes);
        item::relink_piece(&mut self.log.arena, head, ordinal, to);
        self.log.forget(from, bytes);
        self.counts.moved_bytes += bytes as u64;
        true
    }

    /// Keeps every byte of the item in place until `unpin_item`.
    #[inline]
    pub(super) fn pin_item(&mut self, at: Location) {
        self.log.pin(at);
        for ordinal in 0..self.record(at).piece_count() {
            let piece = self.record(at).piece(ordinal);
            self.log.pin(piece);
        }
    }

    /// Takes `pin_item` back. The item may have been released meanwhile; its bytes were not reused.
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

    /// A write was refused.
    pub(super) fn count_out_of_memory(&mut self) {
        self.counts.out_of_memory += 1;
    }
}
