//! Whether a destination gets traffic: ejection after failures, and the probes that end it.
//!
//! A destination that leaves so many requests in a row without a reply is ejected softly; one that takes no connection,
//! or says that it is going away, hard and at once. Its requests then fail at once, until a probe, or a request that
//! was on its way, is answered.

use std::cell::Cell;
use std::rc::Rc;

use super::failure::Reason;

/// When to eject, and how often to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthOptions {
    /// Eject at all (`--disable-tko-tracking` unsets it).
    pub ejects: bool,
    /// Timeouts in a row that eject; 0 counts as 1.
    pub timeouts_max: u32,
    /// Milliseconds from ejection to the first probe.
    pub probe_initial_ms: u64,
    /// Most milliseconds between two probes, before the random part.
    pub probe_max_ms: u64,
}

impl Default for HealthOptions {
    /// Those of mcrouter.
    fn default() -> Self {
        Self { ejects: true, timeouts_max: 3, probe_initial_ms: 10_000, probe_max_ms: 60_000 }
    }
}

/// How many destinations of a pool may be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// No more are ejected once so many are.
    pub upper: usize,
    /// Ejections go on when no more than so many are left.
    pub lower: usize,
}

/// What the destinations of a pool know of each other's ejection: when too many are ejected the fault is more likely
/// ours, and the rest go on being asked.
#[derive(Debug)]
pub struct PoolHealth {
    thresholds: Thresholds,
    ejected: Cell<usize>,
    /// Too many are ejected: no more.
    full: Cell<bool>,
}

impl PoolHealth {
    /// A pool with every destination in its place.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Rc<Self> {
        Rc::new(Self { thresholds, ejected: Cell::new(0), full: Cell::new(false) })
    }

    /// Destinations that are ejected.
    #[must_use]
    pub fn ejected(&self) -> usize {
        self.ejected.get()
    }

    /// Whether one more may be ejected; it counts as ejected if so.
    fn eject(&self) -> bool {
        if self.full.get() {
            return false;
        }
        self.ejected.set(self.ejected.get() + 1);
        self.full.set(self.ejected.get() >= self.thresholds.upper);
        true
    }

    fn take_back(&self) {
        self.ejected.set(self.ejected.get().saturating_sub(1));
        if self.ejected.get() <= self.thresholds.lower {
            self.full.set(false);
        }
    }
}

/// The health of one destination. Time is milliseconds of any one clock.
#[derive(Debug)]
pub struct Health {
    options: HealthOptions,
    /// Since the last reply that was no error.
    timeouts: u32,
    ejected: Option<Ejected>,
    pool: Option<Rc<PoolHealth>>,
    random: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ejected {
    reason: Reason,
    probe_at_ms: u64,
    /// From that probe to the next, before the random part.
    delay_ms: u64,
    /// A probe is on its way.
    probing: bool,
}

impl Health {
    /// A destination nothing is known of yet. `seed` moves its probes away from those of others.
    #[must_use]
    pub fn new(options: HealthOptions, pool: Option<Rc<PoolHealth>>, seed: u64) -> Self {
        Self { options, timeouts: 0, ejected: None, pool, random: seed }
    }

    /// Why it is ejected, if it is.
    #[inline]
    #[must_use]
    pub fn ejected(&self) -> Option<Reason> {
        self.ejected.map(|ejected| ejected.reason)
    }

    /// Timeouts since the last reply that was no error.
    #[must_use]
    pub fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// It gave a reply that is no error. Returns whether it was ejected until now.
    #[inline]
    pub fn answered(&mut self) -> bool {
        self.timeouts = 0;
        self.ejected.is_some() && self.take_back()
    }

    /// A request went without a reply for too long. Returns whether that ejects it.
    pub fn timed_out(&mut self, now_ms: u64) -> bool {
        self.timeouts = self.timeouts.saturating_add(1);
        self.timeouts >= self.options.timeouts_max
            && self.ejected.is_none()
            && self.eject(Reason::Timeout, now_ms)
    }

    /// Something that ejects at once. Returns whether it did, and the destination was not ejected before; one that was
    /// ejected softly now is so for this reason.
    pub fn failed_hard(&mut self, reason: Reason, now_ms: u64) -> bool {
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
    pub fn probe_at_ms(&self) -> Option<u64> {
        self.ejected.map(|ejected| ejected.probe_at_ms)
    }

    /// It is somewhere else now, where it may well answer: the next probe is due at once, unless one is on its way.
    pub fn moved(&mut self, now_ms: u64) {
        let delay_ms = self.options.probe_initial_ms;
        if let Some(ejected) = &mut self.ejected {
            (ejected.probe_at_ms, ejected.delay_ms) = (now_ms, delay_ms);
        }
    }

    /// Whether to send a probe now. While one is on its way the answer is no, and the next is due later.
    pub fn start_probe(&mut self, now_ms: u64) -> bool {
        let Some(ejected) = self.ejected.filter(|ejected| ejected.probe_at_ms <= now_ms) else {
            return false;
        };
        let (probe_at_ms, delay_ms) = self.schedule(ejected.delay_ms, now_ms);
        self.ejected = Some(Ejected { probe_at_ms, delay_ms, probing: true, ..ejected });
        !ejected.probing
    }

    /// The probe got no answer, or a bad one.
    pub fn probe_failed(&mut self) {
        if let Some(ejected) = &mut self.ejected {
            ejected.probing = false;
        }
    }

    fn eject(&mut self, reason: Reason, now_ms: u64) -> bool {
        if !self.options.ejects || self.pool.as_ref().is_some_and(|pool| !pool.eject()) {
            return false;
        }
        let (probe_at_ms, delay_ms) = self.schedule(self.options.probe_initial_ms, now_ms);
        self.ejected = Some(Ejected { reason, probe_at_ms, delay_ms, probing: false });
        true
    }

    fn take_back(&mut self) -> bool {
        let was_ejected = self.ejected.take().is_some();
        if was_ejected && let Some(pool) = &self.pool {
            pool.take_back();
        }
        was_ejected
    }

    /// When a probe is due that comes `delay_ms` from now and 5 to 50 % later, and the delay of the one after it.
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
    /// A destination that is gone is not ejected.
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
        assert_eq!(health.ejected(), Some(Reason::Timeout));
        assert!(!health.timed_out(6), "ejected already");
    }

    #[test]
    fn a_hard_failure_ejects_at_once_and_a_soft_ejection_may_become_hard_but_not_back() {
        for reason in [Reason::Connect, Reason::ConnectTimeout, Reason::Shutdown] {
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
            health.failed_hard(Reason::Connect, now_ms);
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
        health.failed_hard(Reason::Connect, 0);
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
        health.failed_hard(Reason::Connect, 0);
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
        assert!(!health.failed_hard(Reason::Connect, 0));
        assert!((0..100).all(|now_ms| !health.timed_out(now_ms)));
        assert_eq!((health.ejected(), health.probe_at_ms()), (None, None));
    }

    #[test]
    fn a_pool_with_too_many_ejected_ejects_no_more_until_enough_are_back() {
        let pool = PoolHealth::new(Thresholds { upper: 3, lower: 1 });
        let member = |seed| Health::new(HealthOptions::default(), Some(Rc::clone(&pool)), seed);
        let mut members: Vec<_> = (0..5).map(member).collect();
        for (number, member) in members.iter_mut().enumerate() {
            assert_eq!(member.failed_hard(Reason::Connect, 0), number < 3);
        }
        assert_eq!(pool.ejected(), 3);
        assert!(members[0].answered());
        assert!(!members[3].failed_hard(Reason::Connect, 1), "two are still ejected");
        drop(members.remove(1));
        assert_eq!(pool.ejected(), 1);
        assert!(members[2].failed_hard(Reason::Connect, 2), "only one was");
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
