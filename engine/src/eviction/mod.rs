//! The eviction policy: which items are kept when a segment is emptied.
//!
//! It is S3-FIFO with segments in its queues, weighted by item size. New items go through a short admission
//! queue. At its end an item that was read often enough for its size goes to the main queue; any other is
//! dropped and leaves a ghost. At the end of the main queue an item that was read often enough goes through
//! it again, and the reads needed for that are subtracted from its count. The constants were measured on a
//! production trace.

mod ghosts;
mod rehearsal;

use crate::config::{EvictionWeight, PolicyConfig};
use crate::index::FREQUENCY_MAX;
use crate::segment::Queue;

pub(crate) use ghosts::Ghosts;
pub(crate) use rehearsal::Rehearsal;

/// Bytes of index that the policy adds to the size of each item.
const INDEX_BYTES_PER_ITEM: u64 = 9;

/// 2^64 divided by the golden ratio: multiplying by it spreads the bits of a number.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// Percent of segments in the admission queue while a rehearsal shows that this misses less than the
/// configured share. That is so when recent items are read again more than items that were read often.
const ADMISSION_PERCENT_LONG: usize = 60;

/// At the end of the admission queue an item is kept if it was read this many times its relative size,
/// rounded up. The relative size is that of an item divided by the mean of all items.
const ADMISSION_READS_PER_SIZE: Ratio = Ratio { numerator: 3, denominator: 2 };
/// At the end of the main queue an item is kept if it was read this many times its relative size, rounded up.
const MAIN_READS_PER_SIZE: Ratio = Ratio { numerator: 1, denominator: 1 };

/// The main queue is not emptied while it has fewer segments than this.
const MAIN_SEGMENTS_MIN: usize = 2;

/// A factor, as two integers.
struct Ratio {
    numerator: u64,
    denominator: u64,
}

/// Decides what eviction keeps. Holds no items.
pub(crate) struct Policy {
    weight: EvictionWeight,
    /// Compares two shares of the admission queue.
    pub(crate) rehearsal: Rehearsal,
}

/// What happens to an item when its segment is emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EvictionDecision {
    /// It goes to the end of the main queue with this access count.
    Keep { frequency: u8 },
    /// It is dropped.
    Drop,
}

/// Decides about an item of `bytes` bytes at the end of `queue`, which was read `frequency` times.
/// `mean_bytes` is the mean size of all items.
fn decide(
    weight: EvictionWeight,
    queue: Queue,
    frequency: u8,
    bytes: u64,
    mean_bytes: u64,
) -> EvictionDecision {
    debug_assert!(frequency <= FREQUENCY_MAX);
    let need = match weight {
        EvictionWeight::Bytes => 1,
        EvictionWeight::Requests => {
            let (bytes, mean) = (bytes + INDEX_BYTES_PER_ITEM, mean_bytes + INDEX_BYTES_PER_ITEM);
            let reads_per_size = match queue {
                Queue::Admission => ADMISSION_READS_PER_SIZE,
                Queue::Main => MAIN_READS_PER_SIZE,
            };
            let reads = (reads_per_size.numerator * bytes).div_ceil(reads_per_size.denominator * mean);
            reads.clamp(1, u64::from(FREQUENCY_MAX)) as u8
        }
    };
    match queue {
        _ if frequency < need => EvictionDecision::Drop,
        Queue::Admission => EvictionDecision::Keep { frequency: 0 },
        Queue::Main => EvictionDecision::Keep { frequency: frequency - need },
    }
}

impl Policy {
    pub(crate) fn new(config: &PolicyConfig, store_bytes: usize) -> Policy {
        let percent = usize::from(config.admission_percent);
        let percents = [percent, percent.max(ADMISSION_PERCENT_LONG)];
        Policy { weight: config.weight, rehearsal: Rehearsal::new(store_bytes, config.weight, percents) }
    }

    /// Decides about an item of `bytes` bytes at the end of `queue`, which was read `frequency` times.
    /// `mean_bytes` is the mean size of all items.
    pub(crate) fn decide(
        &self,
        queue: Queue,
        frequency: u8,
        bytes: u64,
        mean_bytes: u64,
    ) -> EvictionDecision {
        decide(self.weight, queue, frequency, bytes, mean_bytes)
    }

    /// Share of segments that the admission queue should have, in thousandths.
    pub(crate) fn admission_permille(&self) -> usize {
        self.rehearsal.admission_percent() * 10
    }

    /// The queue of which the oldest segment is emptied next, from the lengths of both queues and the
    /// segments of the store.
    pub(crate) fn queue_to_evict(&self, admission: usize, main: usize, total: usize) -> Queue {
        let share = (total * self.rehearsal.admission_percent() / 100).max(1);
        if admission > share || main < MAIN_SEGMENTS_MIN { Queue::Admission } else { Queue::Main }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(weight: EvictionWeight) -> Policy {
        Policy::new(&PolicyConfig { weight, ..PolicyConfig::default() }, 64 << 20)
    }

    #[test]
    fn a_large_item_has_to_be_read_more_often_to_stay() {
        let policy = policy(EvictionWeight::Requests);
        let check = |queue, frequency, bytes, expected| {
            assert_eq!(policy.decide(queue, frequency, bytes, 91), expected, "{queue:?} {frequency} {bytes}");
        };
        check(Queue::Admission, 0, 11, EvictionDecision::Drop);
        check(Queue::Admission, 1, 11, EvictionDecision::Keep { frequency: 0 });
        check(Queue::Admission, 1, 91, EvictionDecision::Drop);
        check(Queue::Admission, 2, 91, EvictionDecision::Keep { frequency: 0 });
        check(Queue::Main, 1, 91, EvictionDecision::Keep { frequency: 0 });
        check(Queue::Main, 1, 92, EvictionDecision::Drop);
        check(Queue::Main, 5, 191, EvictionDecision::Keep { frequency: 3 });
        check(Queue::Main, 7, 1 << 30, EvictionDecision::Keep { frequency: 0 });
    }

    #[test]
    fn by_bytes_one_read_keeps_any_size() {
        let policy = policy(EvictionWeight::Bytes);
        assert_eq!(policy.decide(Queue::Main, 1, 1 << 20, 10), EvictionDecision::Keep { frequency: 0 });
        assert_eq!(policy.decide(Queue::Main, 0, 1, 10), EvictionDecision::Drop);
    }

    #[test]
    fn the_admission_queue_gives_above_its_share() {
        let policy = policy(EvictionWeight::Requests);
        assert_eq!(policy.queue_to_evict(11, 80, 100), Queue::Admission);
        assert_eq!(policy.queue_to_evict(10, 80, 100), Queue::Main);
        assert_eq!(policy.queue_to_evict(5, 1, 100), Queue::Admission);
    }
}
