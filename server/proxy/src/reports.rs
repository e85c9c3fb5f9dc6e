//! What each shard of a proxy says of itself, for whoever asks from outside the shards: too much to be published every
//! turn, so a shard describes itself in its next turn once it was asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::shard::mesh::Presence;

/// How long a shard has to answer: it does so within a turn. After that what it said last stands.
const ANSWER_TIME: Duration = Duration::from_millis(250);
/// Pause between two looks for the answer.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// See the head of the file.
#[derive(Debug)]
pub struct Descriptions {
    /// How often it was asked for.
    asked: AtomicU64,
    answers: Box<[Mutex<Answer>]>,
}

#[derive(Debug, Default)]
struct Answer {
    /// The question it answers.
    asked: u64,
    text: Vec<u8>,
}

impl Descriptions {
    /// Of so many shards, none of which has said anything.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { asked: AtomicU64::new(0), answers: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// Number of the question last asked; the data path compares it with the one it answered.
    #[inline]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Answer for `shard`. False when somebody is reading just now: to be tried again next turn.
    pub fn answer(&self, shard: usize, asked: u64, text: impl FnOnce() -> Vec<u8>) -> bool {
        let Ok(mut answer) = self.answers[shard].try_lock() else { return false };
        *answer = Answer { asked, text: text() };
        true
    }

    /// Ask all shards, and wait until they have answered or time is up.
    pub async fn refresh(&self, presence: &[Presence]) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        presence.iter().for_each(Presence::wake);
        let start = Instant::now();
        let is_answered =
            |answer: &Mutex<Answer>| answer.lock().unwrap_or_else(PoisonError::into_inner).asked >= asked;
        while !self.answers.iter().all(is_answered) && start.elapsed() < ANSWER_TIME {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What each shard said last.
    #[must_use]
    pub fn read(&self) -> Vec<Vec<u8>> {
        self.answers
            .iter()
            .map(|answer| answer.lock().unwrap_or_else(PoisonError::into_inner).text.clone())
            .collect()
    }
}
