//! The requests that a load thread makes.

use super::connection::{Judge, Replies};
use super::{Plan, Work};
use crate::payload::Stamp;
use crate::popularity::{KeyDraws, Popularity};
use crate::rng::{Rng, mix};
use crate::{Failure, wire};

/// Draws the requests of one thread.
pub(super) struct RequestSource<'p> {
    plan: &'p Plan,
    /// Number of the thread.
    number: usize,
    draws: KeyDraws,
    /// Random numbers of the thread, also for the instants of an open loop.
    pub rng: Rng,
    /// Next key of [`Work::Fill`] and [`Work::ReadBack`].
    next_key: u32,
    /// Number of requests that the thread may still make.
    pub left: u64,
    /// Last version that was written, when versions are not verified.
    next_version: u32,
    /// Keys of the current request, with the oldest version that each may return.
    ids: Vec<(u32, u32)>,
}

impl<'p> RequestSource<'p> {
    /// Creates the requests of thread `number`, which may make `left` of them.
    ///
    /// # Errors
    /// The popularity of keys cannot be read.
    pub(super) fn new(plan: &'p Plan, number: usize, left: u64) -> Result<Self, Failure> {
        let mut rng = Rng::new(plan.seed ^ mix(number as u64));
        let draws = match plan.traffic.work {
            Work::Mix => KeyDraws::new(&plan.items.popularity, plan.items.keys, &mut rng)?,
            Work::Fill | Work::ReadBack => KeyDraws::new(&Popularity::Uniform, 1, &mut rng)?,
        };
        let ids = Vec::with_capacity(plan.traffic.keys_per_get);
        Ok(Self { plan, number, draws, rng, next_key: 0, left, next_version: 1, ids })
    }

    /// Appends the next request to `out`, and the expected reply to `replies`. The caller checks that a
    /// request is left.
    #[inline]
    pub(super) fn put(&mut self, judge: &mut Judge<'_>, replies: &mut Replies, out: &mut Vec<u8>) {
        let plan = self.plan;
        self.left -= 1;
        let is_set = match plan.traffic.work {
            Work::Mix => plan.traffic.set_share > 0.0 && self.rng.unit() < plan.traffic.set_share,
            Work::Fill => true,
            Work::ReadBack => false,
        };
        let dataset = judge.dataset;
        if is_set {
            let id = self.draw();
            let version = match &mut judge.versions {
                Some(versions) => versions.sending(id),
                None => {
                    self.next_version = self.next_version.wrapping_add(1);
                    self.next_version
                }
            };
            let version = if plan.traffic.work == Work::Fill { 0 } else { version };
            let stamp = Stamp { id, run: plan.run, version };
            let ttl_s = plan.items.ttl.ttl_s(mix(u64::from(id)));
            wire::put_set(out, plan.traffic.protocol, &dataset.keys, &dataset.values, stamp, ttl_s);
            replies.expect_set(id, version);
            return;
        }
        self.ids.clear();
        for _ in 0..plan.traffic.keys_per_get {
            let id = self.draw();
            let floor = judge.versions.as_mut().map_or(0, |versions| versions.floor(id));
            self.ids.push((id, floor));
        }
        wire::put_get(out, plan.traffic.protocol, &dataset.keys, self.ids.iter().map(|key| key.0));
        replies.expect_get(self.ids.iter().copied());
    }

    /// Returns the number of the next key. When versions are verified, each thread uses keys of its own.
    #[inline]
    fn draw(&mut self) -> u32 {
        let plan = self.plan;
        if plan.traffic.work != Work::Mix {
            self.next_key += 1;
            return plan.items.first_key + self.next_key - 1;
        }
        let mut key = self.draws.draw(&mut self.rng);
        if plan.verify && plan.threads.count > 1 {
            let (threads, mine) = (plan.threads.count as u32, self.number as u32);
            key = key - key % threads + mine;
            if key >= plan.items.keys {
                key = mine;
            }
        }
        plan.items.first_key + key
    }
}
