//! Whether a destination gets traffic: ejection after failures, and the probes that end it.
//!
//! A destination that leaves [`HealthOptions::timeouts_max`] requests in a row without a reply is ejected
//! softly. One that takes no connection, or answers that it is shutting down, is ejected hard, by the first
//! such failure. Its requests then fail at once, until a probe is answered, or a request that was in flight.

use std::cell::Cell;
use std::rc::Rc;

use super::failure::EjectionReason;

/// When a destination is ejected, and how often it is probed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthOptions {
    /// Whether destinations are ejected at all; `--disable-tko-tracking` unsets it.
    pub ejects: bool,
    /// The number of timeouts in a row that ejects; 0 counts as 1.
    pub timeouts_max: u32,
    /// Milliseconds from ejection to the first probe.
    pub probe_initial_ms: u64,
    /// Most milliseconds between two probes, before the random part.
    pub probe_max_ms: u64,
}

impl Default for HealthOptions {
    /// The defaults of mcrouter.
    fn default() -> Self {
        Self { ejects: true, timeouts_max: 3, probe_initial_ms: 10_000, probe_max_ms: 60_000 }
    }
}

/// How many destinations of a pool may be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EjectionThresholds {
    /// Once this many are ejected, no more are.
    pub(crate) upper: usize,
    /// Once no more than this many are left ejected, others may be ejected again.
    pub(crate) lower: usize,
}

/// How many destinations of a pool are ejected. Once too many are, the fault is more likely on this side, and
/// the others continue to get requests.
#[derive(Debug)]
pub(crate) struct PoolHealth {
    thresholds: EjectionThresholds,
    ejected: Cell<usize>,
    /// Too many are ejected: no other is.
    full: Cell<bool>,
}

impl PoolHealth {
    /// A pool without ejected destinations.
    #[must_use]
    pub(crate) fn new(thresholds: EjectionThresholds) -> Rc<Self> {
        Rc::new(Self { thresholds, ejected: Cell::new(0), full: Cell::new(false) })
    }

    /// The number of ejected destinations.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn ejected(&self) -> usize {
        self.ejected.get()
    }

    /// Ejects one more destination if that is allowed, and returns whether it is.
    fn eject(&self) -> bool {
        if self.full.get() {
            return false;
        }
        self.ejected.set(self.ejected.get() + 1);
        self.full.set(self.ejected.get() >= self.thresholds.upper);
        true
    }

    /// One destination is no longer ejected.
    fn take_back(&self) {
        debug_assert!(self.ejected.get() > 0, "a destination comes back that was not ejected");
        self.ejected.set(self.ejected.get().saturating_sub(1));
        if self.ejected.get() <= self.thresholds.lower {
            self.full.set(false);
        }
    }
}

/// The health of one destination. All times are milliseconds of the same clock.
#[derive(Debug)]
pub(crate) struct Health {
    options: HealthOptions,
    /// Timeouts since the last reply that was no error.
    timeouts: u32,
    ejected: Option<Ejection>,
    pool: Option<Rc<PoolHealth>>,
    random: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ejection {
    reason: EjectionReason,
    probe_at_ms: u64,
    /// From that probe to the next one, before the random part is added.
    delay_ms: u64,
    /// A probe is in flight.
    probing: bool,
}

impl Health {
    /// A destination that is not ejected. `seed` spreads its probes in time from those of other destinations.
    #[must_use]
    pub(crate) fn new(options: HealthOptions, pool: Option<Rc<PoolHealth>>, seed: u64) -> Self {
        Self { options, timeouts: 0, ejected: None, pool, random: seed }
    }

    /// Why the destination is ejected; `None` if it is not.
    #[inline]
    #[must_use]
    pub(crate) fn ejected(&self) -> Option<EjectionReason> {
        self.ejected.map(|ejected| ejected.reason)
    }

    /// Timeouts since the last reply that was no error.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// The destination gave a reply that is no error. Returns whether it was ejected until now.
    #[inline]
    pub(crate) fn answered(&mut self) -> bool {
        self.timeouts = 0;
        self.ejected.is_some() && self.take_back()
    }

    /// A request timed out. Returns whether that ejects the destination.
    pub(crate) fn timed_out(&mut self, now_ms: u64) -> bool {
        self.timeouts = self.timeouts.saturating_add(1);
        self.timeouts >= self.options.timeouts_max
            && self.ejected.is_none()
            && self.eject(EjectionReason::Timeout, now_ms)
    }

    /// Ejects the destination for `reason`. Returns whether it is ejected and was not before. One that was
    /// ejected already is so for this reason from now on.
    pub(crate) fn failed_hard(&mut self, reason: EjectionReason, now_ms: u64) -> bool {
        match &mut self.ejected {
            Some(ejected) => {
                ejected.reason = reason;
                false
            }
            None => self.eject(reason, now_ms),
        }
    }

    /// When the next probe is due.
    #[must_use]
    pub(crate) fn probe_at_ms(&self) -> Option<u64> {
        self.ejected.map(|ejected| ejected.probe_at_ms)
    }

    /// The destination has a new address, at which it may well answer: the next probe is due at once, unless
    /// one is in flight.
    pub(crate) fn moved(&mut self, now_ms: u64) {
        let delay_ms = self.options.probe_initial_ms;
        if let Some(ejected) = &mut self.ejected {
            (ejected.probe_at_ms, ejected.delay_ms) = (now_ms, delay_ms);
        }
    }

    /// Whether to send a probe now. While one is in flight none is sent, and the next one is due later.
    pub(crate) fn start_probe(&mut self, now_ms: u64) -> bool {
        let Some(ejected) = self.ejected.filter(|ejected| ejected.probe_at_ms <= now_ms) else {
            return false;
        };
        let (probe_at_ms, delay_ms) = self.schedule(ejected.delay_ms, now_ms);
        self.ejected = Some(Ejection { probe_at_ms, delay_ms, probing: true, ..ejected });
        !ejected.probing
    }

    /// The probe got no reply, or an error.
    pub(crate) fn probe_failed(&mut self) {
        if let Some(ejected) = &mut self.ejected {
            ejected.probing = false;
        }
    }

    fn eject(&mut self, reason: EjectionReason, now_ms: u64) -> bool {
        debug_assert!(self.ejected.is_none(), "a destination is ejected once");
        if !self.options.ejects || self.pool.as_ref().is_some_and(|pool| !pool.eject()) {
            return false;
        }
        let (probe_at_ms, delay_ms) = self.schedule(self.options.probe_initial_ms, now_ms);
        self.ejected = Some(Ejection { reason, probe_at_ms, delay_ms, probing: false });
        true
    }

    fn take_back(&mut self) -> bool {
        let was_ejected = self.ejected.take().is_some();
        if was_ejected && let Some(pool) = &self.pool {
            pool.take_back();
        }
        was_ejected
    }

    /// When the next probe is due: `delay_ms` from now and 5 to 50 % of that later. And the delay of the
    /// probe after it.
    fn schedule(&mut self, delay_ms: u64, now_ms: u64) -> (u64, u64) {
        let percent_of_65536 = (5 << 16) + 45 * self.next_random();
        let jitter_ms = delay_ms.saturating_mul(percent_of_65536) / (100 << 16);
        let next_ms = (delay_ms.saturating_mul(3) / 2).max(2).min(self.options.probe_max_ms.max(1));
        (now_ms.saturating_add(delay_ms).saturating_add(jitter_ms), next_ms)
    }

    /// 16 random bits (splitmix64).
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) >> 48
    }
}

impl Drop for Health {
    /// A destination that no longer exists does not count as ejected.
    fn drop(&mut self) {
        self.take_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(options: HealthOptions) -> Health {
        Health::new(options, None, 7)
    }

    #[test]
    fn timeouts_in_a_row_eject_and_a_reply_between_them_starts_the_count_again() {
        let mut health = health(HealthOptions::default());
        assert!(!health.timed_out(1) && !health.timed_out(2));
        assert!(!health.answered());
        assert!(!health.timed_out(3) && !health.timed_out(4));
        assert_eq!(health.ejected(), None);
        assert!(health.timed_out(5));
        assert_eq!(health.ejected(), Some(EjectionReason::Timeout));
        assert!(!health.timed_out(6), "ejected already");
    }

    #[test]
    fn a_hard_failure_ejects_at_once_and_a_soft_ejection_may_become_hard_but_not_back() {
        for reason in [EjectionReason::Connect, EjectionReason::ConnectTimeout, EjectionReason::Shutdown] {
            let mut health = health(HealthOptions { timeouts_max: 1, ..HealthOptions::default() });
            assert!(health.failed_hard(reason, 0));
            health.timed_out(1);
            assert_eq!(health.ejected(), Some(reason));
            assert!(health.answered());
            assert!(health.timed_out(2));
            assert!(!health.failed_hard(reason, 3));
            assert_eq!(health.ejected(), Some(reason));
        }
    }

    #[test]
    fn probes_come_ever_later_up_to_a_bound_each_with_a_random_part() {
        for seed in 0..200 {
            let mut health = Health::new(HealthOptions::default(), None, seed);
            let mut now_ms = 1_000_000;
            health.failed_hard(EjectionReason::Connect, now_ms);
            for delay_ms in [10_000, 15_000, 22_500, 33_750, 50_625, 60_000, 60_000, 60_000] {
                let at_ms = health.probe_at_ms().unwrap();
                let after_ms = at_ms - now_ms;
                assert!((delay_ms * 105 / 100..=delay_ms * 150 / 100).contains(&after_ms), "{after_ms}");
                assert!(!health.start_probe(at_ms - 1));
                assert!(health.start_probe(at_ms));
                health.probe_failed();
                now_ms = at_ms;
            }
        }
    }

    #[test]
    fn a_probe_on_its_way_is_not_doubled() {
        let mut health = health(HealthOptions::default());
        assert!(!health.start_probe(u64::MAX / 2), "not ejected");
        health.failed_hard(EjectionReason::Connect, 0);
        let first_ms = health.probe_at_ms().unwrap();
        assert!(health.start_probe(first_ms));
        let second_ms = health.probe_at_ms().unwrap();
        assert!(!health.start_probe(second_ms));
        health.probe_failed();
        let third_ms = health.probe_at_ms().unwrap();
        assert!(third_ms > second_ms && health.start_probe(third_ms));
        assert!(health.answered());
        assert_eq!((health.ejected(), health.probe_at_ms()), (None, None));
    }

    #[test]
    fn one_that_moved_is_probed_at_once() {
        let mut health = health(HealthOptions::default());
        health.moved(0);
        assert_eq!(health.probe_at_ms(), None, "not ejected");
        health.failed_hard(EjectionReason::Connect, 0);
        let first_ms = health.probe_at_ms().unwrap();
        assert!(health.start_probe(first_ms));
        health.moved(first_ms);
        assert!(!health.start_probe(first_ms), "one is on its way");
        health.probe_failed();
        health.moved(first_ms + 1);
        assert!(health.start_probe(first_ms + 1));
        let after_ms = health.probe_at_ms().unwrap() - first_ms;
        assert!((10_500..=15_001).contains(&after_ms), "{after_ms}: from there as at first");
    }

    #[test]
    fn with_tracking_off_nothing_ejects() {
        let mut health = health(HealthOptions { ejects: false, ..HealthOptions::default() });
        assert!(!health.failed_hard(EjectionReason::Connect, 0));
        assert!((0..100).all(|now_ms| !health.timed_out(now_ms)));
        assert_eq!((health.ejected(), health.probe_at_ms()), (None, None));
    }

    #[test]
    fn a_pool_with_too_many_ejected_ejects_no_more_until_enough_are_back() {
        let pool = PoolHealth::new(EjectionThresholds { upper: 3, lower: 1 });
        let member = |seed| Health::new(HealthOptions::default(), Some(Rc::clone(&pool)), seed);
        let mut members: Vec<_> = (0..5).map(member).collect();
        for (number, member) in members.iter_mut().enumerate() {
            assert_eq!(member.failed_hard(EjectionReason::Connect, 0), number < 3);
        }
        assert_eq!(pool.ejected(), 3);
        assert!(members[0].answered());
        assert!(!members[3].failed_hard(EjectionReason::Connect, 1), "two are still ejected");
        drop(members.remove(1));
        assert_eq!(pool.ejected(), 1);
        assert!(members[2].failed_hard(EjectionReason::Connect, 2), "only one was");
        assert_eq!(pool.ejected(), 2);
    }

    #[test]
    fn odd_options_do_no_harm() {
        for probe_ms in [0, 1, 2, 3] {
            let options = HealthOptions {
                timeouts_max: 0,
                probe_initial_ms: probe_ms,
                probe_max_ms: probe_ms,
                ejects: true,
            };
            let mut health = health(options);
            assert!(health.timed_out(0));
            for _ in 0..10 {
                let at_ms = health.probe_at_ms().unwrap();
                assert!(health.start_probe(at_ms));
                health.probe_failed();
            }
        }
    }
}
