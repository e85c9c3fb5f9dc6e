//! Hedged gets of a pool with copies: one that waits longer than most replies of the next copy take is sent
//! there too, and the first of the two that has the key is the answer. The other reply is overlooked when it
//! comes.
//!
//! - Only what is plainly read: not `gets`, `gat`, nor a meta get that stores or marks anything.
//! - A miss or an error of one is no answer while the other may still have the key: a client gets the answer
//!   that it would get without hedges, only sooner.
//! - The time that a get waits follows from the replies of the next server, not of the slow one: in a pool of
//!   three with one slow server, a percentile over all of them would be slow too. While too few replies of
//!   the next server are known, it follows from those of the first.
//! - A token bucket bounds second requests to a share of the gets, so that a pool that is slow as a whole
//!   does not get twice the load. It is each core's own.
//! - Times are those that turns are shown, to a millisecond.

use serde_json::{Value, json};

use crate::config::{Builder, Checked, Json, Limit};
use crate::route::bucket::Bucket;
use crate::route::latencies::Latencies;

/// Gets that wait longer than most are sent to a second copy.
#[derive(Clone, Copy, Debug)]
pub(in crate::route) struct Hedge {
    /// A get waits for as long as this many in a hundred replies of the next server take at most.
    percentile: f64,
    /// Second requests for each get, at most.
    budget: f64,
    /// A get waits so long at least, ms.
    min_delay_ms: u32,
}

impl Hedge {
    /// `percentile` where none is given: that of "The Tail at Scale" (Dean, Barroso 2013), which bounds what
    /// is sent more to about 5 %.
    const PERCENTILE: f64 = 95.0;
    /// `budget_percent` where none is given: as many as a healthy pool needs at [`Hedge::PERCENTILE`].
    const BUDGET_PERCENT: f64 = 5.0;

    /// Reads `hedge` of a `PoolRoute` with so many copies of each key.
    pub(crate) fn parse(builder: &Builder, json: &Json, replicas: u32) -> Checked<Option<Self>> {
        let Some(written) = json.get("hedge") else { return Ok(None) };
        builder.known(written, "hedge", &["percentile", "budget_percent", "min_delay_ms"])?;
        if replicas < 2 {
            let remedy = "needs a second copy to ask: give \"replicas\": 2 or more";
            return Err(builder.wrong(written, "hedge", remedy));
        }
        Ok(Some(Self {
            percentile: builder.number_at(written, "percentile", Self::PERCENTILE, 50.0, 99.9)?,
            budget: builder.number_at(written, "budget_percent", Self::BUDGET_PERCENT, 0.1, 100.0)? / 100.0,
            min_delay_ms: builder.int_at(written, "min_delay_ms", 1, 60_000)?.unwrap_or(1) as u32,
        }))
    }

    /// As JSON, for `check-config`.
    pub(crate) fn show(&self) -> Value {
        json!({
            "percentile": self.percentile,
            "budget_percent": self.budget * 100.0,
            "min_delay_ms": self.min_delay_ms,
        })
    }
}

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
    pub(crate) fn new(settings: Hedge, servers: usize) -> Self {
        let latencies = (0..servers).map(|_| Latencies::default()).collect();
        let budget = Bucket::full(limit(settings));
        Self { settings, latencies, budget }
    }

    /// A get goes to server `asked`, and would go to `next` after this many milliseconds; `None` while too
    /// little is known.
    pub(crate) fn delay_ms(&self, asked: u32, next: u32) -> Option<u64> {
        self.budget.fill(self.settings.budget, limit(self.settings));
        let of = |server: u32| self.latencies[server as usize].percentile_ms();
        // More than that many milliseconds of the turns' clock.
        let usual_ms = of(next).or_else(|| of(asked))? + 1;
        Some(usual_ms.max(u64::from(self.settings.min_delay_ms)))
    }

    /// Whether one more may be sent; then it is counted.
    pub(crate) fn may_send(&self) -> bool {
        self.budget.take()
    }

    /// `server` has answered.
    pub(crate) fn answered(&self, server: u32, waited_ms: u64) {
        self.latencies[server as usize].add(waited_ms, self.settings.percentile);
    }
}

const fn limit(settings: Hedge) -> Limit {
    Limit { rate: settings.budget, burst: BURST }
}
