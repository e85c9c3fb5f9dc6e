//! The policy: what stays when a segment is given up.
//!
//! S3-FIFO by segments, weighed by size. New items pass a short admission queue; at its end those read often
//! enough for their size go to the main queue, the rest leave a ghost. At the end of the main queue an item
//! pays with its reads for another turn. Constants were measured on a production trace: admission at 1.5
//! times the relative size, main at 1.

mod ghosts;

use crate::config::{EvictionWeight, PolicyConfig};
use crate::index::FREQUENCY_MAX;
use crate::segment::Queue;

pub(crate) use ghosts::{Ghosts, is_sampled};

/// Bytes of index per item, as far as the policy weighs them.
const INDEX_BYTES_PER_ITEM: u64 = 9;

/// Most of the segments that admission may come to have, percent.
const ADMISSION_PERCENT_MAX: usize = 40;
/// Sampled drops after which the share is reconsidered.
const TRIAL_DROPS: usize = 256;
/// The main queue has to drop at least one in this many of them to be compared with.
const MAIN_DROPS_FRACTION: usize = 8;
/// Percent by which the share then rises, or falls back to what is configured.
const SHARE_STEP: usize = 1;
/// Admission is too short where more than one in this many of its drops come back, and more than of the main
/// queue's. A careful bound: at one in 4 the share rises on a production trace on which that loses.
const RETURNS_FRACTION: usize = 3;

/// Decides; holds no items.
pub(crate) struct Policy {
    weight: EvictionWeight,
    /// Share of segments for admission: as configured, and now.
    admission_percent_min: usize,
    admission_percent: usize,
    /// Of sampled items since the share was last considered: drops, and returns of dropped ones, by queue.
    drops: [usize; 2],
    returns: [usize; 2],
}

/// What happens to an item whose segment is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Goes to the main queue with this frequency.
    Keep { frequency: u8 },
    /// Is dropped.
    Drop,
}

impl Policy {
    pub(crate) fn new(config: &PolicyConfig) -> Policy {
        let percent = usize::from(config.admission_percent);
        Policy {
            weight: config.weight,
            admission_percent_min: percent,
            admission_percent: percent,
            drops: [0; 2],
            returns: [0; 2],
        }
    }

    /// Judges an item of `bytes`, read `frequency` times; `mean_bytes` is over all items.
    pub(crate) fn judge(&self, queue: Queue, frequency: u8, bytes: u64, mean_bytes: u64) -> Verdict {
        let need = match self.weight {
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

    /// A sampled item was dropped from this queue.
    pub(crate) fn dropped(&mut self, queue: Queue) {
        self.drops[queue as usize] += 1;
        if self.drops[0] + self.drops[1] >= TRIAL_DROPS {
            self.reconsider();
        }
    }

    /// A sampled item came back that had lately been dropped from this queue.
    pub(crate) fn came_back(&mut self, queue: Queue) {
        self.returns[queue as usize] += 1;
    }

    /// Climbs towards the queue whose drops come back more often, a step at a time.
    fn reconsider(&mut self) {
        let [admission, main] = self.returns;
        let [admission_drops, main_drops] = self.drops;
        let short = admission * RETURNS_FRACTION > admission_drops
            && main_drops * MAIN_DROPS_FRACTION > TRIAL_DROPS
            && admission * main_drops > main * admission_drops;
        let highest = ADMISSION_PERCENT_MAX.max(self.admission_percent_min);
        self.admission_percent = match short {
            true => (self.admission_percent + SHARE_STEP).min(highest),
            false => self.admission_percent.saturating_sub(SHARE_STEP).max(self.admission_percent_min),
        };
        self.drops = [0; 2];
        self.returns = [0; 2];
    }

    /// Share of segments meant for admission, in thousandths.
    pub(crate) fn admission_permille(&self) -> usize {
        self.admission_percent * 10
    }

    /// The queue that gives up its oldest segment next.
    pub(crate) fn giving(&self, admission: usize, main: usize, total: usize) -> Queue {
        let share = (total * self.admission_percent / 100).max(1);
        if admission > share || main < 2 { Queue::Admission } else { Queue::Main }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(weight: EvictionWeight) -> Policy {
        Policy::new(&PolicyConfig { weight, ..PolicyConfig::default() })
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
    fn the_admission_share_rises_while_what_it_drops_comes_back_and_falls_back_after() {
        let mut policy = policy(EvictionWeight::Requests);
        let mut turns = |back: [usize; 2], rounds: usize| {
            for _ in 0..rounds {
                for queue in [Queue::Admission, Queue::Main] {
                    (0..back[queue as usize]).for_each(|_| policy.came_back(queue));
                }
                (0..TRIAL_DROPS / 2).for_each(|_| policy.dropped(Queue::Admission));
                (0..TRIAL_DROPS / 2).for_each(|_| policy.dropped(Queue::Main));
            }
            policy.admission_permille()
        };
        assert_eq!(turns([20, 10], 50), 100); // comes back, but too seldom
        assert_eq!(turns([70, 80], 50), 100); // not more often than from the main queue
        assert_eq!(turns([70, 50], 5), 150);
        assert_eq!(turns([70, 50], 50), 400);
        assert_eq!(turns([0, 0], 50), 100);
    }

    #[test]
    fn the_admission_queue_gives_above_its_share() {
        let policy = policy(EvictionWeight::Requests);
        assert_eq!(policy.giving(11, 80, 100), Queue::Admission);
        assert_eq!(policy.giving(10, 80, 100), Queue::Main);
        assert_eq!(policy.giving(5, 1, 100), Queue::Admission);
    }
}
