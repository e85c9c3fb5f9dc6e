//! How many pending gets a destination may have, by how fast it answers: fewer when its replies take longer
//! than its fastest ones did, more when they do not.
//!
//! After the gradient of Netflix's concurrency-limits (`Gradient2Limit`), with the long-term average replaced
//! by the minimum that Vegas uses. A window of replies whose mean is above [`TOLERANCE`] times the
//! destination's own best multiplies the limit by best over mean; another window adds the square root of the
//! limit. When a server has been slower for 5 to 10 minutes, its best is forgotten, and the limit rises
//! again.
//!
//! Only decides whether a get is beyond the limit. Such a get is refused if another server may answer it: see
//! `route::refused`.

use crate::config::AdaptiveConcurrency;

/// A mean of up to this many times the best is not slow. `rttTolerance` is 1.5 there, with a finer clock.
const TOLERANCE: f64 = 2.0;
/// Milliseconds on top of that, which the clock of the turns and a busy core may add.
const SLACK_MS: f64 = 5.0;
/// Slow windows in a row before the limit falls: after a stall of the core, all destinations look slow for a
/// few windows.
const SLOW_WINDOWS: u32 = 3;
/// The smallest factor that one window multiplies the limit by, as there.
const GRADIENT_MIN: f64 = 0.5;
/// The shortest window in milliseconds, and the fewest replies in it (`minWindowTime` is 1 s and
/// `minRttThreshold` 10 there).
const WINDOW_MS: u64 = 100;
const WINDOW_REPLIES: u32 = 10;
/// The longest window in milliseconds, in which one reply is enough.
const WINDOW_MS_MAX: u64 = 1000;
/// The best is taken over a period of this many milliseconds and the period before it.
const BEST_OF_MS: u64 = 300_000;

/// The limit of one destination.
#[derive(Clone, Debug)]
pub(crate) struct Concurrency {
    bounds: AdaptiveConcurrency,
    limit: f64,
    /// The smallest means of windows, milliseconds: of this period and of the one before.
    best_ms: [f64; 2],
    period_since_ms: u64,
    window_since_ms: u64,
    replies: u32,
    waited_ms: u64,
    /// Most pending requests in the window, a refused one included.
    peak: usize,
    /// Slow windows in a row, the last one included.
    slow_windows: u32,
}

impl Concurrency {
    /// The limit begins at its maximum.
    #[must_use]
    pub(crate) fn new(bounds: AdaptiveConcurrency) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.max),
            best_ms: [f64::INFINITY; 2],
            period_since_ms: 0,
            window_since_ms: 0,
            replies: 0,
            waited_ms: 0,
            peak: 0,
            slow_windows: 0,
        }
    }

    /// The bounds of the limit.
    #[must_use]
    pub(crate) const fn bounds(&self) -> AdaptiveConcurrency {
        self.bounds
    }

    /// How many requests may be pending now.
    #[must_use]
    pub(crate) const fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Whether one more request may be sent while `pending` are.
    pub(crate) fn admits(&mut self, pending: usize) -> bool {
        self.peak = self.peak.max(pending + 1);
        pending < self.limit as usize
    }

    /// A reply came after `waited_ms`, or the request timed out after that.
    pub(crate) fn answered(&mut self, waited_ms: u64, now_ms: u64) {
        if self.replies == 0 && self.waited_ms == 0 && self.window_since_ms == 0 {
            (self.window_since_ms, self.period_since_ms) = (now_ms, now_ms);
        }
        self.replies += 1;
        self.waited_ms += waited_ms;
        let lasted_ms = now_ms.saturating_sub(self.window_since_ms);
        if lasted_ms >= WINDOW_MS && self.replies >= WINDOW_REPLIES || lasted_ms >= WINDOW_MS_MAX {
            self.end_window(now_ms);
        }
    }

    fn end_window(&mut self, now_ms: u64) {
        let mean_ms = self.waited_ms as f64 / f64::from(self.replies);
        if now_ms.saturating_sub(self.period_since_ms) >= BEST_OF_MS {
            self.best_ms = [f64::INFINITY, self.best_ms[0]];
            self.period_since_ms = now_ms;
        }
        self.best_ms[0] = self.best_ms[0].min(mean_ms);
        let usual_ms = self.best_ms[0].min(self.best_ms[1]) * TOLERANCE + SLACK_MS;
        let (peak, limit) = (self.peak as f64, self.limit);
        let slow = mean_ms > usual_ms;
        self.slow_windows = if slow { self.slow_windows + 1 } else { 0 };
        if slow && self.slow_windows < SLOW_WINDOWS {
            // The core may have stalled.
        } else if slow {
            // The part of the limit that was not used did not make it slow.
            self.limit = limit.min(peak.max(1.0)) * (usual_ms / mean_ms).max(GRADIENT_MIN);
        } else if peak >= limit / 2.0 {
            self.limit = limit + limit.sqrt();
        }
        self.limit = self.limit.clamp(f64::from(self.bounds.min), f64::from(self.bounds.max));
        (self.replies, self.waited_ms, self.peak, self.window_since_ms) = (0, 0, 0, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One destination and those who ask it, by the millisecond.
    struct Model {
        concurrency: Concurrency,
        random: fastrand::Rng,
        now_ms: u64,
        /// When those under way were asked, and will be answered.
        under_way: Vec<(u64, u64)>,
        /// Beyond the limit.
        beyond: u64,
        /// Those go through all the same, for want of another.
        only: bool,
    }

    impl Model {
        fn new(seed: u64, only: bool) -> Self {
            let bounds = AdaptiveConcurrency { min: 1, max: 1000 };
            let random = fastrand::Rng::with_seed(seed);
            let concurrency = Concurrency::new(bounds);
            Self { concurrency, random, now_ms: 1_000_000, under_way: Vec::new(), beyond: 0, only }
        }

        /// So many milliseconds with up to 4 requests in each, that take `took_ms` or one more.
        fn pass(&mut self, ms: u64, took_ms: u64) {
            self.beyond = 0;
            for _ in 0..ms {
                self.now_ms += 1;
                let now_ms = self.now_ms;
                let concurrency = &mut self.concurrency;
                self.under_way.retain(|&(asked_ms, at_ms)| {
                    if at_ms <= now_ms {
                        concurrency.answered(now_ms - asked_ms, now_ms);
                    }
                    at_ms > now_ms
                });
                for _ in 0..self.random.u32(0..=4) {
                    let beyond = !concurrency.admits(self.under_way.len());
                    self.beyond += u64::from(beyond);
                    if !beyond || self.only {
                        let took_ms = took_ms + self.random.u64(0..=1);
                        self.under_way.push((now_ms, now_ms + took_ms));
                    }
                }
            }
        }
    }

    #[test]
    fn the_limit_falls_when_a_destination_slows_and_recovers_after() {
        for (seed, only) in (0..50).flat_map(|seed| [(seed, false), (seed, true)]) {
            let mut model = Model::new(seed, only);
            model.pass(5_000, 1);
            assert_eq!((model.beyond, model.concurrency.limit()), (0, 1000), "seed {seed} {only}");
            model.pass(3_000, 50);
            model.pass(5_000, 50);
            assert!(model.concurrency.limit() <= 2, "seed {seed} {only}: {}", model.concurrency.limit());
            assert!(model.beyond > 9_000, "seed {seed} {only}: {}", model.beyond);
            model.pass(5_000, 1);
            model.pass(5_000, 1);
            assert_eq!(model.beyond, 0, "seed {seed} {only}: {}", model.concurrency.limit());
        }
    }

    #[test]
    fn what_is_slow_for_long_becomes_the_usual() {
        let mut model = Model::new(7, false);
        model.pass(5_000, 1);
        model.pass(2 * BEST_OF_MS + 60_000, 20);
        model.pass(5_000, 20);
        assert_eq!(model.beyond, 0, "{}", model.concurrency.limit());
    }

    #[test]
    fn the_limit_keeps_within_its_bounds() {
        let mut concurrency = Concurrency::new(AdaptiveConcurrency { min: 3, max: 5 });
        for (from_ms, waited_ms, limit) in [(0, 1, 5), (10_000, 500, 3), (20_000, 1, 5)] {
            for at in 1..1000 {
                concurrency.admits(5);
                concurrency.answered(waited_ms, from_ms + at * 10);
            }
            assert_eq!(concurrency.limit(), limit);
            assert!(concurrency.admits(limit as usize - 1) && !concurrency.admits(limit as usize));
        }
    }
}
