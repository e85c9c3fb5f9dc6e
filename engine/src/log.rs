//! The log: the arena with its segments, and the choice of the open segment that a record is appended to.
//!
//! A lane has at most one open segment. There is a lane for each queue and TTL class, and one for uploads,
//! for which the TTL is not known yet. Whether another segment may be opened, and what is dropped for that,
//! is decided in `store::room`.

use std::sync::Arc;

use crate::arena::{Arena, DISCARD_BYTES, HUGE_PAGE_BYTES, PageWork, TakenBack};
use crate::item::{Grave, Location, Slack};
use crate::segment::{NONE, Queue, SegmentState};
use crate::segments::Segments;
use crate::ttl_class::{self, CLASSES};

/// Number of the lane of uploads; 0 to `CLASSES - 1` are those of the TTL classes.
const UPLOADS: usize = CLASSES;
const LANES: usize = CLASSES + 1;
/// In each queue one lane with expiry may be open for every so many segments of the store.
const SEGMENTS_PER_LANE: usize = 32;
/// A store with fewer segments does not close lanes by age: it would soon consist of part-filled segments.
const SEGMENTS_FOR_AGEING: usize = 64;
/// A record of at most a segment divided by this may go to a lane other than its own.
const SMALL_RECORD_FRACTION: usize = 16;
/// A lane with expiry appends to one segment for its shortest TTL divided by this. All of a segment has then
/// expired after 1.375 times the TTL at the latest.
const AGE_FRACTION: u32 = 8;

const _: () = assert!(LANES <= 128); // bits of the masks in `Log::timed`

/// A lane: records that are appended to the same open segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lane {
    pub(crate) queue: Queue,
    number: u8,
}

impl Lane {
    /// Records of uploads. Their expiry is not known while they are written.
    pub(crate) const UPLOADS: Lane = Lane { queue: Queue::Admission, number: UPLOADS as u8 };

    /// The lane of a queue for records that never expire, or are not sorted by expiry.
    pub(crate) fn unsorted(queue: Queue) -> Lane {
        Lane { queue, number: 0 }
    }
}

/// The segments of a store in their arena, and the lanes that append to them.
pub(crate) struct Log {
    pub(crate) arena: Arena,
    pub(crate) segments: Segments,
    /// Open segment of each lane, or `NONE`.
    open: [[u32; LANES]; 2],
    /// For each queue a bit for every lane with expiry that is open.
    timed: [u128; 2],
    /// Most lanes with expiry open at once in one queue.
    timed_max: u32,
    /// Whether lanes are closed by age.
    ageing: bool,
    /// Bytes from the start of the arena for which huge or small pages have been chosen.
    advised: usize,
    /// Progress of the segment that another thread gives back.
    taken_back: Option<Arc<TakenBack>>,
    /// Whether to ask for huge pages.
    huge_pages: bool,
}

impl Log {
    pub(crate) fn new(arena: Arena, segment_bytes: usize, segments_total: usize, huge_pages: bool) -> Log {
        let segments = Segments::new(arena.len() / segment_bytes, segment_bytes);
        let mut log = Log {
            arena,
            segments,
            open: [[NONE; LANES]; 2],
            timed: [0; 2],
            timed_max: 1,
            ageing: false,
            advised: 0,
            taken_back: None,
            huge_pages,
        };
        log.set_segments_total(segments_total);
        log
    }

    /// Sets the number of segments that the memory limit allows.
    pub(crate) fn set_segments_total(&mut self, total: usize) {
        self.timed_max = (total / SEGMENTS_PER_LANE).clamp(1, CLASSES) as u32;
        self.ageing = total >= SEGMENTS_FOR_AGEING;
    }

    /// The lane of an item with this expiry: that of its class, or the nearest open one when no more may be
    /// opened.
    #[inline]
    pub(crate) fn lane(&mut self, queue: Queue, expires: u32, now: u32) -> Lane {
        let class = ttl_class::class_of(expires, now);
        if class == 0 { Lane::unsorted(queue) } else { self.timed_lane(queue, class, now) }
    }

    /// The lane of an item of this class, which is not that of items without expiry.
    fn timed_lane(&mut self, queue: Queue, class: usize, now: u32) -> Lane {
        let mask = self.timed[queue as usize];
        let mut number = class;
        if mask >> class & 1 == 0 && mask.count_ones() >= self.timed_max {
            let above = (mask >> class).trailing_zeros() as usize;
            let below = (mask << (127 - class)).leading_zeros() as usize;
            number = if above <= below { class + above } else { class - below };
        }
        let lane = Lane { queue, number: number as u8 };
        if self.is_aged(lane, now) {
            self.close(lane);
        }
        lane
    }

    /// Whether the lane has appended to its open segment for too long.
    fn is_aged(&self, lane: Lane, now: u32) -> bool {
        let segment = self.open[lane.queue as usize][lane.number as usize];
        self.ageing && segment != NONE && {
            let age = now.saturating_sub(self.segments[segment].opened_s);
            age > ttl_class::shortest_s(lane.number as usize) / AGE_FRACTION
        }
    }

    /// Bytes left in the open segment of the lane; 0 if none is open.
    #[inline]
    pub(crate) fn room(&self, lane: Lane) -> usize {
        let segment = self.open[lane.queue as usize][lane.number as usize];
        if segment == NONE { 0 } else { self.segments.room(segment) }
    }

    /// A lane with room for a record, for when `lane`, its own, has no room and cannot open a segment. A
    /// record that never expires only goes to lanes of such records: in others it would keep the memory of
    /// records that expire.
    pub(crate) fn other_lane_with_room(&self, lane: Lane, bytes: usize) -> Option<Lane> {
        let small = bytes <= self.segments.segment_bytes() / SMALL_RECORD_FRACTION;
        if !small || lane == Lane::UPLOADS {
            return None;
        }
        let timed = if lane.number == 0 { 1..1 } else { 1..UPLOADS as u8 };
        let timed = timed.map(|number| Lane { queue: lane.queue, number });
        let unsorted = [lane.queue, Queue::Admission, Queue::Main].map(Lane::unsorted);
        timed.chain(unsorted).find(|&lane| self.room(lane) >= bytes)
    }

    /// Appends a record of `bytes` bytes, a multiple of the granule, to a lane with room for it.
    #[inline]
    pub(crate) fn append(&mut self, lane: Lane, bytes: usize, expires: u32) -> Location {
        let segment = self.open[lane.queue as usize][lane.number as usize];
        let at = self.segments.append(segment, bytes);
        if lane != Lane::UPLOADS {
            self.segments.note_expiry(segment, expires);
        }
        Location::from_offset(at)
    }

    /// Makes the record of `bytes` bytes at `location` longer by `more`, a multiple of the granule. False
    /// unless as much slack, or as much of an open segment's room, follows it.
    pub(crate) fn lengthen(&mut self, location: Location, bytes: usize, more: usize) -> bool {
        let (segment, end) = (self.segments.segment_of(location.offset()), location.offset() + bytes);
        let written = self.segments.start(segment) + self.segments[segment].written as usize;
        if end == written {
            let room = self.segments[segment].open && self.segments.room(segment) >= more;
            if room {
                self.segments.append(segment, more);
            }
            return room;
        }
        let slack = Slack::bytes(&self.arena, Location::from_offset(end));
        if slack < more {
            return false;
        }
        self.segments.mark_live(segment, more);
        if slack > more {
            Slack::write(&mut self.arena, Location::from_offset(end + more), slack - more);
        }
        true
    }

    /// Leaves up to `bytes` bytes of slack, a multiple of the granule, after the record just appended to
    /// `lane`.
    pub(crate) fn leave_slack(&mut self, lane: Lane, bytes: usize) {
        let segment = self.open[lane.queue as usize][lane.number as usize];
        let bytes = bytes.min(self.segments.room(segment)).min(Slack::BYTES_MAX);
        if bytes > 0 {
            let at = self.segments.append(segment, bytes);
            Slack::write(&mut self.arena, Location::from_offset(at), bytes);
            self.segments.mark_dead(segment, bytes);
        }
    }

    /// Closes the lane's segment and opens another. False when the arena has no free segment.
    /// `segments_total` is the number of segments that the memory limit allows now.
    pub(crate) fn open_next(&mut self, lane: Lane, segments_total: usize, now: u32) -> bool {
        self.close(lane);
        let Some(segment) = self.segments.open_free(lane.queue, lane.number, now) else { return false };
        self.choose_pages(self.segments.start(segment + 1), segments_total);
        self.open[lane.queue as usize][lane.number as usize] = segment;
        if lane.number != 0 && lane != Lane::UPLOADS {
            self.timed[lane.queue as usize] |= 1 << lane.number;
        }
        true
    }

    /// Chooses the kind of page for the arena up to `end`: huge pages where they are wholly within the limit,
    /// so that no more than the limit becomes resident.
    fn choose_pages(&mut self, end: usize, segments_total: usize) {
        while self.huge_pages && self.advised < end && self.advised + HUGE_PAGE_BYTES <= self.arena.len() {
            if self.advised + HUGE_PAGE_BYTES <= segments_total * self.segments.segment_bytes() {
                self.arena.advise_huge(self.advised, HUGE_PAGE_BYTES);
            }
            self.advised += HUGE_PAGE_BYTES;
        }
    }

    /// Work to provide the next huge page, once the segments in use come near to it. `None` before the first
    /// write.
    pub(crate) fn next_untouched(&mut self, segments_total: usize) -> Option<PageWork> {
        let used = self.segments.start(self.segments.count());
        let (at, end) = (self.advised, self.advised + HUGE_PAGE_BYTES);
        let within = end <= self.arena.len().min(segments_total * self.segments.segment_bytes());
        if !self.huge_pages || used == 0 || used + HUGE_PAGE_BYTES < at || !within {
            return None;
        }
        self.choose_pages(end, segments_total);
        Some(self.arena.provide(at, HUGE_PAGE_BYTES))
    }

    /// Closes the lane's open segment, if it has one, and frees it if it is empty.
    fn close(&mut self, lane: Lane) {
        let slot = &mut self.open[lane.queue as usize][lane.number as usize];
        let segment = std::mem::replace(slot, NONE);
        self.timed[lane.queue as usize] &= !(1 << lane.number);
        if segment != NONE {
            self.segments.close(segment);
            self.free_if_empty(segment);
        }
    }

    /// Closes a segment, if it is open. It is free afterwards if it is empty.
    pub(crate) fn close_segment(&mut self, segment: u32) {
        if let SegmentState::Queued(queue) = self.segments[segment].state
            && self.segments[segment].open
        {
            self.close(Lane { queue, number: self.segments[segment].lane });
        }
    }

    /// Closes every open segment, so that what is stored from now on is in segments with higher sequence
    /// numbers.
    pub(crate) fn close_all(&mut self) {
        for queue in [Queue::Admission, Queue::Main] {
            for number in 0..LANES as u8 {
                self.close(Lane { queue, number });
            }
        }
    }

    /// Closes lanes that have appended to one segment for too long.
    pub(crate) fn close_aged(&mut self, now: u32) {
        for queue in [Queue::Admission, Queue::Main] {
            let mut mask = self.timed[queue as usize];
            while mask != 0 {
                let lane = Lane { queue, number: mask.trailing_zeros() as u8 };
                mask &= mask - 1;
                if self.is_aged(lane, now) {
                    self.close(lane);
                }
            }
        }
    }

    /// Counts the record of `bytes` bytes at `location` as dead. Frees its segment if that is empty then.
    #[inline]
    pub(crate) fn mark_dead(&mut self, location: Location, bytes: usize) {
        let segment = self.segments.segment_of(location.offset());
        self.segments.mark_dead(segment, bytes);
        self.free_if_empty(segment);
    }

    /// Counts an item with its value in the record as dead, and writes a grave over it unless its segment
    /// is pinned: the record may still be read then.
    pub(crate) fn bury(&mut self, location: Location, bytes: usize) {
        if self.segments[self.segments.segment_of(location.offset())].pins == 0 {
            Grave::write(&mut self.arena, location, bytes);
        }
        self.mark_dead(location, bytes);
    }

    #[inline]
    fn free_if_empty(&mut self, segment: u32) {
        if self.segments.is_empty(segment) {
            self.segments.release(segment);
        }
    }

    /// Whether the bytes `at..at + len` are in one segment and were written since it was opened.
    pub(crate) fn is_written(&self, at: usize, len: usize) -> bool {
        let segment = self.segments.segment_of(at);
        at + len <= self.segments.start(segment) + self.segments[segment].written as usize
    }

    /// Pins the segment that contains `location`.
    #[inline]
    pub(crate) fn pin(&mut self, location: Location) {
        self.segments.pin(self.segments.segment_of(location.offset()));
    }

    /// Takes one pin of the segment that contains `location` back. Frees the segment if it is empty then.
    #[inline]
    pub(crate) fn unpin(&mut self, location: Location) {
        let segment = self.segments.segment_of(location.offset());
        self.segments.unpin(segment);
        self.free_if_empty(segment);
    }

    /// Gives some memory of a free segment back to the kernel. False when no free segment has any.
    pub(crate) fn discard_some(&mut self) -> bool {
        let Some((at, len)) = self.segments.take_resident_free(DISCARD_BYTES) else { return false };
        self.arena.discard(at, len);
        true
    }

    /// Work to give the memory of a free segment back. `None` if there is none, or the last such work has not
    /// ended.
    pub(crate) fn next_take_back(&mut self) -> Option<PageWork> {
        if self.taken_back.is_some() {
            return None;
        }
        let (at, len) = self.segments.begin_take_back()?;
        let (work, taken_back) = self.arena.take_back(at, len);
        self.taken_back = Some(taken_back);
        Some(work)
    }

    /// Makes the segment of the last `next_take_back` usable again, if another thread has ended that work.
    pub(crate) fn finish_take_back(&mut self) {
        if let Some(given_back) = self.taken_back.as_ref().and_then(|taken_back| taken_back.outcome()) {
            self.taken_back = None;
            self.segments.finish_take_back(given_back);
        }
    }
}
