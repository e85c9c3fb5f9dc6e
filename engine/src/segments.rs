//! All segments of a store: the free list, the two queues, the order of expiry, pins.
//!
//! Knows sizes and places, never contents.

use std::collections::BTreeSet;
use std::ops::Index;

use crate::clock::NEVER;
use crate::segment::{NONE, Place, Queue, Segment};

#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
    len: usize,
}

/// Every segment, by number; segment `n` lies at `n << shift` in the arena.
pub(crate) struct Segments {
    all: Vec<Segment>,
    /// Most segments the arena has room for.
    capacity: usize,
    shift: u32,
    /// Free ones with resident memory, and those whose memory was given back: the first are taken first.
    free: Vec<u32>,
    bare: Vec<u32>,
    /// A free one whose memory is being given back by another thread.
    leaving: Option<u32>,
    queues: [Ends; 2],
    /// (due, segment): who expires next. One entry per segment at most, touched once per segment, not per item.
    due: BTreeSet<(u32, u32)>,
    sequence_next: u64,
    pinned: usize,
}

impl Index<u32> for Segments {
    type Output = Segment;
    #[inline]
    fn index(&self, number: u32) -> &Segment {
        &self.all[number as usize]
    }
}

impl Segments {
    pub(crate) fn new(capacity: usize, segment_bytes: usize) -> Segments {
        assert!(segment_bytes.is_power_of_two());
        let empty = Ends { first: NONE, last: NONE, len: 0 };
        Segments {
            all: Vec::new(),
            capacity,
            shift: segment_bytes.ilog2(),
            free: Vec::new(),
            bare: Vec::new(),
            leaving: None,
            queues: [empty; 2],
            due: BTreeSet::new(),
            sequence_next: 1,
            pinned: 0,
        }
    }

    /// Bytes of one segment.
    #[inline]
    pub(crate) fn segment_bytes(&self) -> usize {
        1 << self.shift
    }

    /// The segment that arena offset `at` lies in.
    #[inline]
    pub(crate) fn holding(&self, at: usize) -> u32 {
        (at >> self.shift) as u32
    }

    /// Arena offset of a segment's first byte.
    #[inline]
    pub(crate) fn start(&self, number: u32) -> usize {
        (number as usize) << self.shift
    }

    /// Segments that are not free.
    #[inline]
    pub(crate) fn in_use(&self) -> usize {
        self.all.len() - self.free.len() - self.bare.len() - usize::from(self.leaving.is_some())
    }

    /// Free segments whose memory was touched and not given back.
    pub(crate) fn resident_free(&self) -> usize {
        self.free.len()
    }

    /// Segments with at least one pin.
    pub(crate) fn pinned(&self) -> usize {
        self.pinned
    }

    /// Numbers handed out so far; segments are `0..count`.
    pub(crate) fn count(&self) -> u32 {
        self.all.len() as u32
    }

    /// The number the next segment taken will get.
    pub(crate) fn sequence_next(&self) -> u64 {
        self.sequence_next
    }

    /// Length of a queue.
    #[inline]
    pub(crate) fn queue_len(&self, queue: Queue) -> usize {
        self.queues[queue as usize].len
    }

    /// Oldest segment of a queue, or `NONE`.
    #[inline]
    pub(crate) fn oldest(&self, queue: Queue) -> u32 {
        self.queues[queue as usize].first
    }

    /// Takes a free segment, opens it and puts it at the end of `queue`. `None` when the arena is used up;
    /// the memory limit is the caller's business.
    pub(crate) fn take(&mut self, queue: Queue, lane: u8, now: u32) -> Option<u32> {
        let number = match self.free.pop().or_else(|| self.bare.pop()) {
            Some(number) => number,
            None if self.all.len() < self.capacity => {
                self.all.push(Segment::new());
                self.all.len() as u32 - 1
            }
            None => return None,
        };
        let segment = &mut self.all[number as usize];
        assert!(segment.place == Place::Free && segment.pins == 0 && segment.live == 0);
        *segment = Segment::new();
        segment.sequence = self.sequence_next;
        segment.opened_s = now;
        segment.open = true;
        segment.lane = lane;
        segment.resident_bytes = 1 << self.shift;
        self.sequence_next += 1;
        self.push(queue, number);
        Some(number)
    }

    /// Puts a segment that is in no queue at the end of one.
    pub(crate) fn push(&mut self, queue: Queue, number: u32) {
        let ends = &mut self.queues[queue as usize];
        let last = ends.last;
        ends.last = number;
        ends.len += 1;
        if last == NONE {
            ends.first = number;
        } else {
            self.all[last as usize].next = number;
        }
        let segment = &mut self.all[number as usize];
        assert!(!matches!(segment.place, Place::Queued(_)));
        segment.place = Place::Queued(queue);
        segment.previous = last;
        segment.next = NONE;
    }

    /// Takes a segment out of its queue, to be scanned.
    pub(crate) fn detach(&mut self, number: u32) {
        let segment = &mut self.all[number as usize];
        let Place::Queued(queue) = segment.place else { panic!("segment is in no queue") };
        let (previous, next) = (segment.previous, segment.next);
        segment.place = Place::Scanned;
        segment.previous = NONE;
        segment.next = NONE;
        let ends = &mut self.queues[queue as usize];
        ends.len -= 1;
        if previous == NONE {
            ends.first = next
        } else {
            self.all[previous as usize].next = next
        }
        if next == NONE { ends.last = previous } else { self.all[next as usize].previous = previous }
    }

    /// Frees a segment without live bytes and pins, wherever it is.
    pub(crate) fn release(&mut self, number: u32) {
        assert!(self[number].pins == 0 && self[number].live == 0);
        if matches!(self[number].place, Place::Queued(_)) {
            self.detach(number);
        }
        let segment = &mut self.all[number as usize];
        assert!(segment.place == Place::Scanned);
        segment.place = Place::Free;
        segment.open = false;
        if segment.due != 0 {
            self.due.remove(&(segment.due, number));
            segment.due = 0;
        }
        self.free.push(number);
    }

    /// Arena offset and length of at most `bytes_max` of a free segment that may be resident, now counted as given
    /// back.
    pub(crate) fn take_resident_free(&mut self, bytes_max: usize) -> Option<(usize, usize)> {
        let &number = self.free.last()?;
        let resident = &mut self.all[number as usize].resident_bytes;
        let len = (*resident as usize).min(bytes_max);
        *resident -= len as u32;
        let left = *resident as usize;
        if left == 0 {
            self.free.pop();
            self.bare.push(number);
        }
        Some((self.start(number) + left, len))
    }

    /// Arena offset and length of what may be resident of a free segment, which is out of all lists until `left`. `None`: there
    /// is none, or one is leaving already.
    pub(crate) fn leave(&mut self) -> Option<(usize, usize)> {
        if self.leaving.is_some() {
            return None;
        }
        let number = self.free.pop()?;
        self.leaving = Some(number);
        Some((self.start(number), self[number].resident_bytes as usize))
    }

    /// The leaving segment is free again, its memory `given_back` or not.
    pub(crate) fn left(&mut self, given_back: bool) {
        let number = self.leaving.take().expect("a segment that leaves");
        if given_back {
            self.all[number as usize].resident_bytes = 0;
            self.bare.push(number);
        } else {
            self.free.push(number);
        }
    }

    /// No more appends go to this segment.
    pub(crate) fn close(&mut self, number: u32) {
        self.all[number as usize].open = false;
    }

    /// Bytes left in an open segment.
    #[inline]
    pub(crate) fn room(&self, number: u32) -> usize {
        self.segment_bytes() - self[number].written as usize
    }

    /// Appends `bytes` of live record; the arena offset of the first.
    #[inline]
    pub(crate) fn append(&mut self, number: u32, bytes: usize) -> usize {
        let start = self.start(number);
        let room = self.room(number);
        let segment = &mut self.all[number as usize];
        assert!(segment.open && bytes <= room); // past the end lie another segment's items
        let at = start + segment.written as usize;
        segment.written += bytes as u32;
        segment.live += bytes as u32;
        at
    }

    /// `bytes` of this segment that were written and forgotten are held again.
    #[inline]
    pub(crate) fn hold(&mut self, number: u32, bytes: usize) {
        let segment = &mut self.all[number as usize];
        assert!(segment.live as usize + bytes <= segment.written as usize);
        segment.live += bytes as u32;
    }

    /// `bytes` of record in this segment are no longer held.
    #[inline]
    pub(crate) fn forget(&mut self, number: u32, bytes: usize) {
        let segment = &mut self.all[number as usize];
        assert!(segment.live as usize >= bytes);
        segment.live -= bytes as u32;
    }

    /// Whether nothing keeps this segment from being free.
    #[inline]
    pub(crate) fn is_empty(&self, number: u32) -> bool {
        let segment = &self[number];
        segment.live == 0 && segment.pins == 0 && !segment.open && matches!(segment.place, Place::Queued(_))
    }

    /// Keeps the segment's bytes in place until as many `unpin`s.
    #[inline]
    pub(crate) fn pin(&mut self, number: u32) {
        let segment = &mut self.all[number as usize];
        assert!(segment.place != Place::Free);
        self.pinned += usize::from(segment.pins == 0);
        segment.pins += 1;
    }

    #[inline]
    pub(crate) fn unpin(&mut self, number: u32) {
        let segment = &mut self.all[number as usize];
        assert!(segment.pins > 0);
        segment.pins -= 1;
        self.pinned -= usize::from(segment.pins == 0);
    }

    /// The segment holds a record that expires then.
    #[inline]
    pub(crate) fn expires(&mut self, number: u32, expires: u32) {
        let segment = &mut self.all[number as usize];
        if expires > segment.expires_max {
            segment.expires_max = expires;
        }
        // The order of expiry is corrected when the early key comes up, not at every append.
        if segment.due == 0 && segment.expires_max != NEVER {
            segment.due = segment.expires_max.max(1);
            self.due.insert((segment.due, number));
        }
    }

    /// Second at which the next segment may be wholly expired.
    pub(crate) fn due_next(&self) -> Option<u32> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Takes a wholly expired segment off the order of expiry; it has to be released or re-queued by `expires`.
    /// Pinned ones are asked again in the next second.
    pub(crate) fn pop_due(&mut self, now: u32) -> Option<u32> {
        loop {
            let &(due, number) = self.due.first()?;
            if due > now {
                return None;
            }
            self.due.remove(&(due, number));
            let segment = &mut self.all[number as usize];
            segment.due = match segment.expires_max {
                NEVER => 0,
                later if later > now => later,
                _ if segment.pins > 0 => now.saturating_add(1),
                _ => 0,
            };
            if segment.due != 0 {
                let again = (segment.due, number);
                self.due.insert(again);
            } else if segment.expires_max != NEVER && segment.place != Place::Scanned {
                return Some(number);
            }
        }
    }

    /// Panics unless queues, free list and counters agree; walks everything.
    pub(crate) fn check_invariants(&self) {
        let mut seen = vec![false; self.all.len()];
        for &number in self.free.iter().chain(&self.bare).chain(&self.leaving) {
            assert!(self[number].place == Place::Free && self[number].live == 0 && self[number].pins == 0);
            assert!(!std::mem::replace(&mut seen[number as usize], true), "free twice");
        }
        for queue in [Queue::Admission, Queue::Main] {
            let (mut number, mut previous, mut len) = (self.oldest(queue), NONE, 0);
            while number != NONE {
                assert!(self[number].place == Place::Queued(queue) && self[number].previous == previous);
                assert!(!std::mem::replace(&mut seen[number as usize], true), "queued twice");
                (previous, number, len) = (number, self[number].next, len + 1);
            }
            assert_eq!(len, self.queue_len(queue));
        }
        for (number, seen) in seen.into_iter().enumerate() {
            assert!(seen || self.all[number].place == Place::Scanned, "segment {number} is nowhere");
        }
        assert_eq!(self.pinned, self.all.iter().filter(|s| s.pins > 0).count());
        assert!(self.free.iter().all(|&number| self[number].resident_bytes > 0));
        assert!(self.bare.iter().all(|&number| self[number].resident_bytes == 0));
    }
}
