//! Work that waits for its time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A bounded queue of work, the earliest first.
#[derive(Debug)]
pub(super) struct Delayed<W> {
    heap: BinaryHeap<DelayedWork<W>>,
    /// Tells entries of one millisecond apart: they are done in the order they came.
    next: u64,
    max: usize,
}

#[derive(Debug)]
struct DelayedWork<W> {
    at_ms: u64,
    number: u64,
    work: W,
}

impl<W> Ord for DelayedWork<W> {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.number).cmp(&(self.at_ms, self.number))
    }
}

impl<W> PartialOrd for DelayedWork<W> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<W> PartialEq for DelayedWork<W> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<W> Eq for DelayedWork<W> {}

impl<W> Delayed<W> {
    pub(super) const fn new(max: usize) -> Self {
        Self { heap: BinaryHeap::new(), next: 0, max }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// When the earliest is due, unix milliseconds.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at_ms)
    }

    /// Drops the earliest for as long as `is_over` holds for it.
    pub(super) fn drop_while(&mut self, is_over: impl Fn(&W) -> bool) {
        while self.heap.peek().is_some_and(|entry| is_over(&entry.work)) {
            self.heap.pop();
        }
    }

    /// Takes the earliest that is due.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<W> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.heap.pop().map(|entry| entry.work)
    }

    /// Gives `work` back when there is no room.
    pub(super) fn push(&mut self, at_ms: u64, work: W) -> Result<(), W> {
        if self.heap.len() >= self.max {
            return Err(work);
        }
        self.heap.push(DelayedWork { at_ms, number: self.next, work });
        self.next += 1;
        Ok(())
    }
}
