//! The policy: what stays when a segment is given up.
//!
//! S3-FIFO by segments, weighed by size. New items pass a short admission queue; at its end those read often
//! enough for their size go to the main queue, the rest leave a ghost. At the end of the main queue an item
//! pays with its reads for another turn. Constants were measured on a production trace: admission at 1.5
//! times the relative size, main at 1.

mod ghosts;
mod rehearsal;

use crate::config::{EvictionWeight, PolicyConfig};
use crate::index::FREQUENCY_MAX;
use crate::segment::Queue;

pub(crate) use ghosts::Ghosts;
pub(crate) use rehearsal::Rehearsal;

/// Bytes of index per item, as far as the policy weighs them.
const INDEX_BYTES_PER_ITEM: u64 = 9;

/// Share of segments that admission has where that wins over what is configured, percent: of recent items more than of
/// often read ones come back.
const ADMISSION_PERCENT_LONG: usize = 60;

/// Decides; holds no items.
pub(crate) struct Policy {
    weight: EvictionWeight,
    /// Tries shares of admission.
    pub(crate) rehearsal: Rehearsal,
}

/// What happens to an item whose segment is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Goes to the main queue with this frequency.
    Keep { frequency: u8 },
    /// Is dropped.
    Drop,
}

/// Judges an item of `bytes`, read `frequency` times; `mean_bytes` is over all items.
fn judge(weight: EvictionWeight, queue: Queue, frequency: u8, bytes: u64, mean_bytes: u64) -> Verdict {
    let need = match weight {
        EvictionWeight::Bytes => 1,
        EvictionWeight::Requests => {
            let (bytes, mean) = (bytes + INDEX_BYTES_PER_ITEM, mean_bytes + INDEX_BYTES_PER_ITEM);
            let relative = match queue {
                Queue::Admission => (3 * bytes).div_ceil(2 * mean),
                Queue::Main => bytes.div_ceil(mean),
            };
            relative.clamp(1, u64::from(FREQUENCY_MAX)) as u8
        }
    };
    match queue {
        _ if frequency < need => Verdict::Drop,
        Queue::Admission => Verdict::Keep { frequency: 0 },
        Queue::Main => Verdict::Keep { frequency: frequency - need },
    }
}

impl Policy {
    pub(crate) fn new(config: &PolicyConfig, store_bytes: usize) -> Policy {
        let percent = usize::from(config.admission_percent);
        let percents = [percent, percent.max(ADMISSION_PERCENT_LONG)];
        Policy { weight: config.weight, rehearsal: Rehearsal::new(store_bytes, config.weight, percents) }
    }

    /// Judges an item of `bytes`, read `frequency` times; `mean_bytes` is over all items.
    pub(crate) fn judge(&self, queue: Queue, frequency: u8, bytes: u64, mean_bytes: u64) -> Verdict {
        judge(self.weight, queue, frequency, bytes, mean_bytes)
    }

    /// Share of segments meant for admission, in thousandths.
    pub(crate) fn admission_permille(&self) -> usize {
        self.rehearsal.admission_percent() * 10
    }

    /// The queue that gives up its oldest segment next.
    pub(crate) fn giving(&self, admission: usize, main: usize, total: usize) -> Queue {
        let share = (total * self.rehearsal.admission_percent() / 100).max(1);
        if admission > share || main < 2 { Queue::Admission } else { Queue::Main }
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
            assert_eq!(policy.judge(queue, frequency, bytes, 91), expected, "{queue:?} {frequency} {bytes}");
        };
        check(Queue::Admission, 0, 11, Verdict::Drop);
        check(Queue::Admission, 1, 11, Verdict::Keep { frequency: 0 });
        check(Queue::Admission, 1, 91, Verdict::Drop);
        check(Queue::Admission, 2, 91, Verdict::Keep { frequency: 0 });
        check(Queue::Main, 1, 91, Verdict::Keep { frequency: 0 });
        check(Queue::Main, 1, 92, Verdict::Drop);
        check(Queue::Main, 5, 191, Verdict::Keep { frequency: 3 });
        check(Queue::Main, 7, 1 << 30, Verdict::Keep { frequency: 0 });
    }

    #[test]
    fn by_bytes_one_read_keeps_any_size() {
        let policy = policy(EvictionWeight::Bytes);
        assert_eq!(policy.judge(Queue::Main, 1, 1 << 20, 10), Verdict::Keep { frequency: 0 });
        assert_eq!(policy.judge(Queue::Main, 0, 1, 10), Verdict::Drop);
    }

    #[test]
    fn the_admission_queue_gives_above_its_share() {
        let policy = policy(EvictionWeight::Requests);
        assert_eq!(policy.giving(11, 80, 100), Queue::Admission);
        assert_eq!(policy.giving(10, 80, 100), Queue::Main);
        assert_eq!(policy.giving(5, 1, 100), Queue::Admission);
    }
}
