//! All segments of a store: the free lists, the two queues, the order of expiry, and pins.
//!
//! Knows sizes and lists, never what the bytes of a segment mean.

use std::collections::BTreeSet;
use std::ops::Index;

use crate::clock::NEVER;
use crate::segment::{NONE, Queue, Segment, SegmentState};

/// A queue: a list linked through the segments.
#[derive(Clone, Copy)]
struct QueueEnds {
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
    /// Free segments with resident memory, which are opened first.
    free_resident: Vec<u32>,
    /// Free segments without memory: it was given back to the kernel.
    free_discarded: Vec<u32>,
    /// A free segment that another thread is giving back to the kernel; it is in neither list meanwhile.
    taking_back: Option<u32>,
    queues: [QueueEnds; 2],
    /// The order of expiry, of (second, segment number): at most one entry per segment, so that storing an
    /// item into a segment that has one costs nothing.
    due: BTreeSet<(u32, u32)>,
    sequence_next: u64,
    /// Segments with at least one pin.
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
        let empty = QueueEnds { first: NONE, last: NONE, len: 0 };
        Segments {
            all: Vec::new(),
            capacity,
            shift: segment_bytes.ilog2(),
            free_resident: Vec::new(),
            free_discarded: Vec::new(),
            taking_back: None,
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

    /// Number of the segment that contains arena offset `at`.
    #[inline]
    pub(crate) fn segment_of(&self, at: usize) -> u32 {
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
        self.all.len()
            - self.free_resident.len()
            - self.free_discarded.len()
            - usize::from(self.taking_back.is_some())
    }

    /// Free segments with memory that was not given back to the kernel.
    pub(crate) fn resident_free(&self) -> usize {
        self.free_resident.len()
    }

    /// Segments with at least one pin.
    pub(crate) fn pinned(&self) -> usize {
        self.pinned
    }

    /// Segments that were ever opened; their numbers are `0..count`.
    pub(crate) fn count(&self) -> u32 {
        self.all.len() as u32
    }

    /// The sequence number of the next segment to be opened.
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

    /// Opens a free segment and puts it at the end of `queue`. `None` when the arena has no free segment; the
    /// memory limit is checked by the caller.
    pub(crate) fn open_free(&mut self, queue: Queue, lane: u8, now: u32) -> Option<u32> {
        let number = match self.free_resident.pop().or_else(|| self.free_discarded.pop()) {
            Some(number) => number,
            None if self.all.len() < self.capacity => {
                self.all.push(Segment::new());
                self.all.len() as u32 - 1
            }
            None => return None,
        };
        let segment = &mut self.all[number as usize];
        assert!(segment.state == SegmentState::Free && segment.pins == 0 && segment.live == 0);
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
        assert!(!matches!(segment.state, SegmentState::Queued(_)));
        segment.state = SegmentState::Queued(queue);
        segment.previous = last;
        segment.next = NONE;
    }

    /// Takes a segment out of its queue, to be scanned. Panics if it is in none.
    pub(crate) fn detach(&mut self, number: u32) {
        let segment = &mut self.all[number as usize];
        let SegmentState::Queued(queue) = segment.state else { panic!("segment {number} is in no queue") };
        let (previous, next) = (segment.previous, segment.next);
        segment.state = SegmentState::Scanned;
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

    /// Frees a segment that is in a queue or being scanned and has neither live bytes nor pins.
    pub(crate) fn release(&mut self, number: u32) {
        assert!(self[number].pins == 0 && self[number].live == 0);
        if matches!(self[number].state, SegmentState::Queued(_)) {
            self.detach(number);
        }
        let segment = &mut self.all[number as usize];
        assert!(segment.state == SegmentState::Scanned);
        segment.state = SegmentState::Free;
        segment.open = false;
        if segment.due != 0 {
            self.due.remove(&(segment.due, number));
            segment.due = 0;
        }
        self.free_resident.push(number);
    }

    /// Arena offset and length of at most `bytes_max` bytes of a free segment that may be resident. They
    /// count as given back from now on; the caller does so.
    pub(crate) fn take_resident_free(&mut self, bytes_max: usize) -> Option<(usize, usize)> {
        let &number = self.free_resident.last()?;
        let resident = &mut self.all[number as usize].resident_bytes;
        let len = (*resident as usize).min(bytes_max);
        *resident -= len as u32;
        let left = *resident as usize;
        if left == 0 {
            self.free_resident.pop();
            self.free_discarded.push(number);
        }
        Some((self.start(number) + left, len))
    }

    /// Arena offset and length of the memory of a free segment, for another thread to give back. The segment
    /// is in no list until [`finish_take_back`](Self::finish_take_back). `None` if there is none, or one is
    /// being given back already.
    pub(crate) fn begin_take_back(&mut self) -> Option<(usize, usize)> {
        if self.taking_back.is_some() {
            return None;
        }
        let number = self.free_resident.pop()?;
        self.taking_back = Some(number);
        Some((self.start(number), self[number].resident_bytes as usize))
    }

    /// The segment of the last `begin_take_back` is free again; `given_back` says whether its memory is gone.
    pub(crate) fn finish_take_back(&mut self, given_back: bool) {
        let number = self.taking_back.take().expect("begin_take_back was called before");
        if given_back {
            self.all[number as usize].resident_bytes = 0;
            self.free_discarded.push(number);
        } else {
            self.free_resident.push(number);
        }
    }

    /// Allows no more appends to this segment.
    pub(crate) fn close(&mut self, number: u32) {
        self.all[number as usize].open = false;
    }

    /// Bytes left in an open segment.
    #[inline]
    pub(crate) fn room(&self, number: u32) -> usize {
        self.segment_bytes() - self[number].written as usize
    }

    /// Appends a live record of `bytes` bytes to an open segment with room for it; returns its arena offset.
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

    /// Counts `bytes` dead bytes of this segment as live again.
    #[inline]
    pub(crate) fn mark_live(&mut self, number: u32, bytes: usize) {
        let segment = &mut self.all[number as usize];
        assert!(segment.live as usize + bytes <= segment.written as usize);
        segment.live += bytes as u32;
    }

    /// Counts `bytes` live bytes of this segment as dead.
    #[inline]
    pub(crate) fn mark_dead(&mut self, number: u32, bytes: usize) {
        let segment = &mut self.all[number as usize];
        assert!(segment.live as usize >= bytes);
        segment.live -= bytes as u32;
    }

    /// Whether this segment can be freed: it is closed, in a queue, and has neither live bytes nor pins.
    #[inline]
    pub(crate) fn is_empty(&self, number: u32) -> bool {
        let segment = &self[number];
        segment.live == 0
            && segment.pins == 0
            && !segment.open
            && matches!(segment.state, SegmentState::Queued(_))
    }

    /// Keeps the bytes of this segment as they are until `unpin` was called as often as `pin`.
    #[inline]
    pub(crate) fn pin(&mut self, number: u32) {
        let segment = &mut self.all[number as usize];
        assert!(segment.state != SegmentState::Free);
        self.pinned += usize::from(segment.pins == 0);
        // Pinned values may be leaked any number of times: a count that wrapped to 0 would free what they
        // still show.
        segment.pins = segment.pins.checked_add(1).expect("fewer than 2^32 pins of a segment");
    }

    /// Takes one `pin` back. The caller frees the segment if it is empty then.
    #[inline]
    pub(crate) fn unpin(&mut self, number: u32) {
        let segment = &mut self.all[number as usize];
        assert!(segment.pins > 0);
        segment.pins -= 1;
        self.pinned -= usize::from(segment.pins == 0);
    }

    /// Notes that this segment contains a record that expires at `expires`, which may be [`NEVER`].
    #[inline]
    pub(crate) fn note_expiry(&mut self, number: u32, expires: u32) {
        let segment = &mut self.all[number as usize];
        if expires > segment.expires_max {
            segment.expires_max = expires;
        }
        // An entry that is too early is corrected when it comes up, not at every append.
        if segment.due == 0 && segment.expires_max != NEVER {
            segment.due = segment.expires_max.max(1);
            self.due.insert((segment.due, number));
        }
    }

    /// The earliest second in which all of a segment may have expired.
    pub(crate) fn due_next(&self) -> Option<u32> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Takes a segment of which all has expired out of the order of expiry. The caller has to release it, or
    /// to put it back with `note_expiry`. A pinned one comes up again in the next second.
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
            } else if segment.expires_max != NEVER && segment.state != SegmentState::Scanned {
                return Some(number);
            }
        }
    }

    /// Panics unless queues, free lists and counters agree. Walks all segments.
    pub(crate) fn check_invariants(&self) {
        let mut seen = vec![false; self.all.len()];
        for &number in self.free_resident.iter().chain(&self.free_discarded).chain(&self.taking_back) {
            assert!(
                self[number].state == SegmentState::Free && self[number].live == 0 && self[number].pins == 0
            );
            assert!(!std::mem::replace(&mut seen[number as usize], true), "free twice");
        }
        for queue in [Queue::Admission, Queue::Main] {
            let (mut number, mut previous, mut len) = (self.oldest(queue), NONE, 0);
            while number != NONE {
                assert!(
                    self[number].state == SegmentState::Queued(queue) && self[number].previous == previous
                );
                assert!(!std::mem::replace(&mut seen[number as usize], true), "queued twice");
                (previous, number, len) = (number, self[number].next, len + 1);
            }
            assert_eq!(len, self.queue_len(queue));
        }
        for (number, seen) in seen.into_iter().enumerate() {
            assert!(
                seen || self.all[number].state == SegmentState::Scanned,
                "segment {number} is in no list"
            );
        }
        assert_eq!(self.pinned, self.all.iter().filter(|s| s.pins > 0).count());
        assert!(self.free_resident.iter().all(|&number| self[number].resident_bytes > 0));
        assert!(self.free_discarded.iter().all(|&number| self[number].resident_bytes == 0));
    }
}
