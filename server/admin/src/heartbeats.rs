//! Whether every shard still takes turns. Even an idle shard takes one a second. A shard that takes none is
//! stuck, which the listening socket would not show.

use std::time::{Duration, Instant};

use corecached_shard::counters::Cells;

/// Time without a turn after which a shard counts as stuck: ten times the longest wait of an idle shard.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The turns of every shard as last seen.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    /// For each shard its count of turns, and the time at which that count was first seen.
    seen: Vec<(u64, Instant)>,
}

impl Heartbeats {
    /// No shard is stuck at `now`.
    #[must_use]
    pub(crate) fn new(shards: usize, now: Instant) -> Self {
        Self { seen: vec![(0, now); shards] }
    }

    /// Takes note of the turns that the shards have published. To be called about once a second.
    pub(crate) fn look(&mut self, cells: &[Cells], now: Instant) {
        for ((turns, since), cells) in self.seen.iter_mut().zip(cells) {
            let (counters, _) = cells.read();
            if counters.turns != *turns {
                (*turns, *since) = (counters.turns, now);
            }
        }
    }

    /// The numbers of the shards that are stuck.
    #[must_use]
    pub(crate) fn stuck(&self, now: Instant) -> Vec<usize> {
        let is_stuck = |since: Instant| now.saturating_duration_since(since) > STUCK_AFTER;
        self.seen
            .iter()
            .enumerate()
            .filter(|(_, (_, since))| is_stuck(*since))
            .map(|(shard, _)| shard)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corecached_shard::counters::Counters;

    #[test]
    fn a_shard_without_turns_is_stuck_and_recovers() {
        let cells = [Cells::default(), Cells::default()];
        let turn = |shard: usize, turns| cells[shard].publish(&Counters { turns, ..Counters::default() });
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut beats = Heartbeats::new(2, start);
        for second in 1..=20 {
            turn(0, second);
            beats.look(&cells, at(second));
        }
        assert_eq!(beats.stuck(at(20)), [1]);
        // It recovers also after `stats reset`, which sets the counter to 0.
        turn(0, 0);
        turn(1, 7);
        beats.look(&cells, at(21));
        assert_eq!(beats.stuck(at(22)), [] as [usize; 0]);
    }
}
