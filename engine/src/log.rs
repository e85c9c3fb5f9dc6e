//! Appending: the arena, its segments, and which open segment a record goes to.
//!
//! A lane is one open segment per queue and life class, plus one for uploads, whose life is not known yet.
//! Whether another segment may be taken, and what is dropped for it, is the store's business.

use std::sync::Arc;

use crate::arena::{Arena, DISCARD_BYTES, HUGE_PAGE_BYTES, PageWork, TakenBack};
use crate::item::{Grave, Location, Slack};
use crate::segment::{NONE, Place, Queue};
use crate::segments::Segments;
use crate::ttl_class::{self, CLASSES};

/// Number of the lane of uploads; 0 to `CLASSES - 1` are the life classes.
const UPLOADS: usize = CLASSES;
const LANES: usize = CLASSES + 1;
/// Segments of the store per lane with expiry that may be open in each queue.
const SEGMENTS_PER_LANE: usize = 32;
/// Stores of fewer segments do not close lanes by age: part-filled segments would take them over.
const SEGMENTS_FOR_AGEING: usize = 64;
/// A lane with expiry takes items for this fraction of its shortest life, so that its segments expire whole
/// by 1.375 times the life at the latest.
const AGE_FRACTION: u32 = 8;

const _: () = assert!(LANES <= 128); // bits of the mask of open lanes

/// Where records of a kind are appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lane {
    pub(crate) queue: Queue,
    number: u8,
}

impl Lane {
    /// Records of uploads, whose expiry is not known while they are written.
    pub(crate) const UPLOADS: Lane = Lane { queue: Queue::Admission, number: UPLOADS as u8 };

    /// Records that never expire, or whose expiry is not worth a lane.
    pub(crate) fn unsorted(queue: Queue) -> Lane {
        Lane { queue, number: 0 }
    }
}

/// The append side of a store's memory.
pub(crate) struct Log {
    pub(crate) arena: Arena,
    pub(crate) segments: Segments,
    /// Open segment of each lane, or `NONE`.
    open: [[u32; LANES]; 2],
    /// Bit per lane with expiry that is open.
    timed: [u128; 2],
    /// Most lanes with expiry open at once in one queue.
    timed_max: u32,
    ageing: bool,
    /// Bytes from the start of the arena for which the kind of page is settled.
    advised: usize,
    /// Of the segment that leaves.
    taken_back: Option<Arc<TakenBack>>,
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

    /// The memory limit allows this many segments.
    pub(crate) fn set_segments_total(&mut self, total: usize) {
        self.timed_max = (total / SEGMENTS_PER_LANE).clamp(1, CLASSES) as u32;
        self.ageing = total >= SEGMENTS_FOR_AGEING;
    }

    /// The lane of an item with this expiry: its class, or the nearest open one when no more may open.
    #[inline]
    pub(crate) fn lane(&mut self, queue: Queue, expires: u32, now: u32) -> Lane {
        let class = ttl_class::class_of(expires, now);
        if class == 0 { Lane::unsorted(queue) } else { self.timed_lane(queue, class, now) }
    }

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

    fn is_aged(&self, lane: Lane, now: u32) -> bool {
        let segment = self.open[lane.queue as usize][lane.number as usize];
        self.ageing && segment != NONE && {
            let age = now.saturating_sub(self.segments[segment].opened_s);
            age > ttl_class::shortest_s(lane.number as usize) / AGE_FRACTION
        }
    }

    /// Bytes left in the lane's open segment; 0 if none is open.
    #[inline]
    pub(crate) fn room(&self, lane: Lane) -> usize {
        let segment = self.open[lane.queue as usize][lane.number as usize];
        if segment == NONE { 0 } else { self.segments.room(segment) }
    }

    /// A lane with room for a record whose own lane has none and no segment to open. What never expires goes to
    /// its like only, or it would keep the memory of what does.
    pub(crate) fn lane_instead(&self, lane: Lane, bytes: usize) -> Option<Lane> {
        let small = bytes <= self.segments.segment_bytes() / 16;
        if !small || lane == Lane::UPLOADS {
            return None;
        }
        let timed = if lane.number == 0 { 1..1 } else { 1..UPLOADS as u8 };
        let timed = timed.map(|number| Lane { queue: lane.queue, number });
        let unsorted = [lane.queue, Queue::Admission, Queue::Main].map(Lane::unsorted);
        timed.chain(unsorted).find(|&lane| self.room(lane) >= bytes)
    }

    /// Appends a record of `bytes` (a multiple of the granule) to a lane with room for it.
    #[inline]
    pub(crate) fn append(&mut self, lane: Lane, bytes: usize, expires: u32) -> Location {
        let segment = self.open[lane.queue as usize][lane.number as usize];
        let at = self.segments.append(segment, bytes);
        if lane != Lane::UPLOADS {
            self.segments.expires(segment, expires);
        }
        Location::of(at)
    }

    /// Makes the record of `bytes` at `location` longer by `more`, a multiple of the granule, where slack follows it or
    /// the rest of an open segment. False when there is less than that.
    pub(crate) fn lengthen(&mut self, location: Location, bytes: usize, more: usize) -> bool {
        let (segment, end) = (self.segments.holding(location.at()), location.at() + bytes);
        let written = self.segments.start(segment) + self.segments[segment].written as usize;
        if end == written {
            let room = self.segments[segment].open && self.segments.room(segment) >= more;
            if room {
                self.segments.append(segment, more);
            }
            return room;
        }
        let slack = Slack::bytes(&self.arena, Location::of(end));
        if slack < more {
            return false;
        }
        self.segments.hold(segment, more);
        if slack > more {
            Slack::write(&mut self.arena, Location::of(end + more), slack - more);
        }
        true
    }

    /// Leaves up to `bytes` of slack, a multiple of the granule, behind the record just appended to `lane`.
    pub(crate) fn leave_slack(&mut self, lane: Lane, bytes: usize) {
        let segment = self.open[lane.queue as usize][lane.number as usize];
        let bytes = bytes.min(self.segments.room(segment)).min(Slack::BYTES_MAX);
        if bytes > 0 {
            let at = self.segments.append(segment, bytes);
            Slack::write(&mut self.arena, Location::of(at), bytes);
            self.segments.forget(segment, bytes);
        }
    }

    /// Closes the lane's segment and opens another. False when the arena is used up. The memory limit allows
    /// `segments_total` now.
    pub(crate) fn open_next(&mut self, lane: Lane, segments_total: usize, now: u32) -> bool {
        self.close(lane);
        let Some(segment) = self.segments.take(lane.queue, lane.number, now) else { return false };
        self.choose_pages(self.segments.start(segment + 1), segments_total);
        self.open[lane.queue as usize][lane.number as usize] = segment;
        if lane.number != 0 && lane != Lane::UPLOADS {
            self.timed[lane.queue as usize] |= 1 << lane.number;
        }
        true
    }

    /// Settles the kind of page for the arena up to `end`: huge where all of it is within the limit, so that no
    /// more becomes resident than that.
    fn choose_pages(&mut self, end: usize, segments_total: usize) {
        while self.huge_pages && self.advised < end && self.advised + HUGE_PAGE_BYTES <= self.arena.len() {
            if self.advised + HUGE_PAGE_BYTES <= segments_total * self.segments.segment_bytes() {
                self.arena.advise_huge(self.advised, HUGE_PAGE_BYTES);
            }
            self.advised += HUGE_PAGE_BYTES;
        }
    }

    /// The next huge page to be written, when what was provided so far is nearly used up. None before the first write.
    pub(crate) fn next_cold(&mut self, segments_total: usize) -> Option<PageWork> {
        let used = self.segments.start(self.segments.count());
        let (at, end) = (self.advised, self.advised + HUGE_PAGE_BYTES);
        let within = end <= self.arena.len().min(segments_total * self.segments.segment_bytes());
        if !self.huge_pages || used == 0 || used + HUGE_PAGE_BYTES < at || !within {
            return None;
        }
        self.choose_pages(end, segments_total);
        Some(self.arena.provide(at, HUGE_PAGE_BYTES))
    }

    fn close(&mut self, lane: Lane) {
        let slot = &mut self.open[lane.queue as usize][lane.number as usize];
        let segment = std::mem::replace(slot, NONE);
        self.timed[lane.queue as usize] &= !(1 << lane.number);
        if segment != NONE {
            self.segments.close(segment);
            self.free_if_empty(segment);
        }
    }

    /// Closes a segment, if it is open. It may be free afterwards.
    pub(crate) fn close_segment(&mut self, segment: u32) {
        if let Place::Queued(queue) = self.segments[segment].place
            && self.segments[segment].open
        {
            self.close(Lane { queue, number: self.segments[segment].lane });
        }
    }

    /// Closes every open segment: what is stored from now on lies in later ones.
    pub(crate) fn close_all(&mut self) {
        for queue in [Queue::Admission, Queue::Main] {
            for number in 0..LANES as u8 {
                self.close(Lane { queue, number });
            }
        }
    }

    /// Closes lanes that were open too long to expire in time.
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

    /// `bytes` of record at `location` are no longer held; a closed segment without any is free.
    #[inline]
    pub(crate) fn forget(&mut self, location: Location, bytes: usize) {
        let segment = self.segments.holding(location.at());
        self.segments.forget(segment, bytes);
        self.free_if_empty(segment);
    }

    /// The same of an item with its value inline, which nobody looks at any more, unless a pin keeps it readable.
    pub(crate) fn bury(&mut self, location: Location, bytes: usize) {
        if self.segments[self.segments.holding(location.at())].pins == 0 {
            Grave::write(&mut self.arena, location, bytes);
        }
        self.forget(location, bytes);
    }

    #[inline]
    fn free_if_empty(&mut self, segment: u32) {
        if self.segments.is_empty(segment) {
            self.segments.release(segment);
        }
    }

    /// Keeps the bytes at `location` where they are.
    #[inline]
    pub(crate) fn pin(&mut self, location: Location) {
        self.segments.pin(self.segments.holding(location.at()));
    }

    /// Takes one pin back.
    #[inline]
    pub(crate) fn unpin(&mut self, location: Location) {
        let segment = self.segments.holding(location.at());
        self.segments.unpin(segment);
        self.free_if_empty(segment);
    }

    /// Gives some memory of a free segment back to the kernel. False when none has any.
    pub(crate) fn discard_some(&mut self) -> bool {
        let Some((at, len)) = self.segments.take_resident_free(DISCARD_BYTES) else { return false };
        self.arena.discard(at, len);
        true
    }

    /// A free segment's memory, to be given back by another thread; one at a time.
    pub(crate) fn next_surplus(&mut self) -> Option<PageWork> {
        if self.taken_back.is_some() {
            return None;
        }
        let (at, len) = self.segments.leave()?;
        let (work, taken_back) = self.arena.take_back(at, len);
        self.taken_back = Some(taken_back);
        Some(work)
    }

    /// Notices that another thread is done with what `next_surplus` gave it.
    pub(crate) fn settle_surplus(&mut self) {
        if let Some(given_back) = self.taken_back.as_ref().and_then(|taken_back| taken_back.outcome()) {
            self.taken_back = None;
            self.segments.left(given_back);
        }
    }
}
