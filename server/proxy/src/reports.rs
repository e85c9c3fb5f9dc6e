//! What each shard of a proxy reports of itself to threads outside the shards. It is too much to be published every turn, so a
//! shard makes its report in the turn after it was asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use corecached_shard::mesh::Presence;

use crate::stats::ShardReport;

/// How long a shard has to answer; it does so within a turn. After that its last report stands.
const ANSWER_TIME: Duration = Duration::from_millis(250);
/// Pause between two looks for the answers.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The last report of each shard.
#[derive(Debug)]
pub struct Reports {
    /// How many times reports have been asked for.
    asked: AtomicU64,
    answers: Box<[Mutex<ReportSlot>]>,
}

#[derive(Debug, Default)]
struct ReportSlot {
    /// Number of the question that the report answers.
    asked: u64,
    report: ShardReport,
}

impl Reports {
    /// Empty reports of `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { asked: AtomicU64::new(0), answers: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// Number of the question that was asked last. The data path compares it with the one it answered.
    #[inline]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Answers question `asked` for `shard`. False when somebody reads the report just now: to be tried again next turn.
    pub fn answer(&self, shard: usize, asked: u64, report: impl FnOnce() -> ShardReport) -> bool {
        let Ok(mut slot) = self.answers[shard].try_lock() else { return false };
        *slot = ReportSlot { asked, report: report() };
        true
    }

    /// Asks all shards, and waits until they have answered or [`ANSWER_TIME`] is over.
    pub async fn refresh(&self, presence: &[Presence]) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        presence.iter().for_each(Presence::wake);
        let start = Instant::now();
        let is_answered =
            |slot: &Mutex<ReportSlot>| slot.lock().unwrap_or_else(PoisonError::into_inner).asked >= asked;
        while !self.answers.iter().all(is_answered) && start.elapsed() < ANSWER_TIME {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The last report of each shard.
    #[must_use]
    pub fn read(&self) -> Vec<ShardReport> {
        let read =
            |slot: &Mutex<ReportSlot>| slot.lock().unwrap_or_else(PoisonError::into_inner).report.clone();
        self.answers.iter().map(read).collect()
    }
}
