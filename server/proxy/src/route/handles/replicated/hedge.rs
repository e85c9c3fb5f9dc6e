//! Hedged gets of a pool with copies: one that waits longer than most replies of the next copy take is sent there too,
//! and the first of the two that has the key is the answer. The other reply is overlooked when it comes.
//!
//! - Only what is plainly read: not `gets`, `gat`, nor a meta get that stores or marks anything.
//! - A miss or an error of one is no answer while the other may still have the key: what a client hears is what it would
//!   hear without hedges, only sooner.
//! - How long is long is told by the server that would be asked, not by the one that is slow: a pool of three with one
//!   slow server has no percentile that is not slow. While little is known of it, by the one that was asked.
//! - A token bucket bounds second requests to a share of the gets, so that a pool that is slow as a whole does not get
//!   twice the load. It is each core's own.
//! - Times are those that turns are shown, to a millisecond.

use crate::config::{Hedge, Limit};
use crate::route::bucket::Bucket;
use crate::route::latencies::Latencies;

/// Second requests that may be sent at once by a core whose budget is unused.
const BURST: f64 = 10.0;

/// What a shard keeps of a pool with hedges.
#[derive(Debug)]
pub(in crate::route) struct HedgeState {
    settings: Hedge,
    /// By server.
    latencies: Box<[Latencies]>,
    budget: Bucket,
}

impl HedgeState {
    pub fn new(settings: Hedge, servers: usize) -> Self {
        let latencies = (0..servers).map(|_| Latencies::default()).collect();
        let budget = Bucket::full(limit(settings));
        Self { settings, latencies, budget }
    }

    /// A get goes to `asked`, and would go to `next` then: after how many milliseconds, if that can be told.
    pub fn delay_ms(&self, asked: u32, next: u32) -> Option<u64> {
        self.budget.fill(self.settings.budget, limit(self.settings));
        let of = |server: u32| self.latencies[server as usize].percentile_ms();
        // More than that many milliseconds of the turns' clock.
        let usual_ms = of(next).or_else(|| of(asked))? + 1;
        Some(usual_ms.max(u64::from(self.settings.min_delay_ms)))
    }

    /// Whether one more may be sent; then it is counted.
    pub fn may_send(&self) -> bool {
        self.budget.take()
    }

    /// `server` has answered.
    pub fn answered(&self, server: u32, waited_ms: u64) {
        self.latencies[server as usize].add(waited_ms, self.settings.percentile);
    }
}

const fn limit(settings: Hedge) -> Limit {
    Limit { rate: settings.budget, burst: BURST }
}
