//! The reports of the shards of a proxy to other threads. A report is too large to be published every turn,
//! so a shard makes one in the turn after it was asked for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use corecached_shard::mesh::Presence;

use crate::stats::ShardReport;

/// How long a shard has to report, which it does within a turn. After that its last report is used.
const ANSWER_TIME: Duration = Duration::from_millis(250);
/// The pause between two checks whether all shards have reported.
const CHECK_EVERY: Duration = Duration::from_millis(2);

/// The last report of each shard.
#[derive(Debug)]
pub struct Reports {
    /// How many times reports have been asked for: the number of the last round.
    rounds: AtomicU64,
    slots: Box<[Mutex<ReportSlot>]>,
}

#[derive(Debug, Default)]
struct ReportSlot {
    /// The round in which the report was made.
    round: u64,
    report: ShardReport,
}

impl Reports {
    /// Empty reports of `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { rounds: AtomicU64::new(0), slots: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// The number of the last round. The data path compares it with the one in which it reported.
    #[inline]
    pub(crate) fn round(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Stores the report of `shard` for `round`. Returns false if another thread reads the report at this
    /// moment: then it is to be tried again in the next turn.
    pub(crate) fn store(&self, shard: usize, round: u64, report: impl FnOnce() -> ShardReport) -> bool {
        debug_assert!(round <= self.rounds.load(Ordering::Relaxed), "nobody has asked for round {round}");
        let Ok(mut slot) = self.slots[shard].try_lock() else { return false };
        *slot = ReportSlot { round, report: report() };
        true
    }

    /// Asks all shards for a new report, and waits until they have made it, for a quarter of a second at
    /// most.
    pub async fn refresh(&self, presence: &[Presence]) {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
        presence.iter().for_each(Presence::wake);
        let start = Instant::now();
        let has_reported =
            |slot: &Mutex<ReportSlot>| slot.lock().unwrap_or_else(PoisonError::into_inner).round >= round;
        while !self.slots.iter().all(has_reported) && start.elapsed() < ANSWER_TIME {
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    /// The last report of each shard.
    #[must_use]
    pub fn read(&self) -> Vec<ShardReport> {
        let read =
            |slot: &Mutex<ReportSlot>| slot.lock().unwrap_or_else(PoisonError::into_inner).report.clone();
        self.slots.iter().map(read).collect()
    }
}
