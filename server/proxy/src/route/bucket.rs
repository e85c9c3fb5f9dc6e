//! Token buckets.

use std::cell::Cell;

use crate::config::Limit;

/// Tokens that come with time, or with requests.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: Cell<f64>,
    filled_at_ms: Cell<u64>,
}

impl Bucket {
    /// Full.
    pub(super) const fn full(limit: Limit) -> Self {
        Self { tokens: Cell::new(limit.burst), filled_at_ms: Cell::new(0) }
    }

    /// Adds what came since the last call.
    pub(super) fn fill_by_time(&self, limit: Limit, now_ms: u64) {
        let passed_s = now_ms.saturating_sub(self.filled_at_ms.replace(now_ms)) as f64 / 1000.0;
        self.fill(passed_s * limit.rate, limit);
    }

    /// Adds so many.
    pub(super) fn fill(&self, tokens: f64, limit: Limit) {
        self.tokens.set((self.tokens.get() + tokens).min(limit.burst));
    }

    /// Takes one, if there is one.
    pub(super) fn take(&self) -> bool {
        let left = self.tokens.get() - 1.0;
        if left < 0.0 {
            return false;
        }
        self.tokens.set(left);
        true
    }
}
