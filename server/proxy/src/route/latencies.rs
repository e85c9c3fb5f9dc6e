//! How long a server's replies took of late: counts by logarithmic buckets, halved now and then.

use std::cell::Cell;

/// Below this each millisecond has its bucket; above, each power of two has [`STEPS`]: 25 % too much at most.
const LINEAR_MS: u64 = 4;
const STEPS: u64 = 4;
/// What is longer, more than a minute, counts as this: 2^16 - 1.
const LONGEST_MS: u64 = (1 << 16) - 1;
const BUCKETS: usize = (LINEAR_MS + 14 * STEPS) as usize;
/// Replies after which counts are halved: a change is seen within as many.
const HALVED_AFTER: u32 = 1024;
/// Fewer replies say nothing about one in twenty.
const REPLIES_MIN: u32 = 32;
/// Replies after which the percentile is looked up again.
const LOOKED_UP_AFTER: u32 = 32;

/// Counts of one server's reply times.
#[derive(Debug)]
pub(super) struct Latencies {
    counts: [Cell<u16>; BUCKETS],
    total: Cell<u32>,
    /// Replies since `percentile_ms` was looked up.
    newer: Cell<u32>,
    percentile_ms: Cell<Option<u64>>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| Cell::new(0)),
            total: Cell::new(0),
            newer: Cell::new(0),
            percentile_ms: Cell::new(None),
        }
    }
}

impl Latencies {
    /// A reply took so long.
    pub(super) fn add(&self, waited_ms: u64, percentile: f64) {
        let count = &self.counts[bucket(waited_ms)];
        count.set(count.get() + 1);
        self.total.set(self.total.get() + 1);
        self.newer.set(self.newer.get() + 1);
        if self.total.get() >= HALVED_AFTER {
            self.halve();
        }
        if self.newer.get() >= LOOKED_UP_AFTER && self.total.get() >= REPLIES_MIN {
            self.newer.set(0);
            self.percentile_ms.set(Some(self.look_up(percentile)));
        }
    }

    /// What so many in a hundred of them took at most, milliseconds; `None` of too few.
    pub(super) const fn percentile_ms(&self) -> Option<u64> {
        self.percentile_ms.get()
    }

    fn look_up(&self, percentile: f64) -> u64 {
        let wanted = f64::from(self.total.get()) * percentile / 100.0;
        let mut seen = 0.0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += f64::from(count.get());
            if seen >= wanted {
                return longest_ms(at);
            }
        }
        longest_ms(BUCKETS - 1)
    }

    fn halve(&self) {
        let mut total = 0;
        for count in &self.counts {
            count.set(count.get() / 2);
            total += u32::from(count.get());
        }
        self.total.set(total);
    }
}

fn bucket(waited_ms: u64) -> usize {
    if waited_ms < LINEAR_MS {
        return waited_ms as usize;
    }
    let waited_ms = waited_ms.min(LONGEST_MS);
    let power = u64::from(waited_ms.ilog2()); // 2 at least
    let step = ((waited_ms - (1 << power)) * STEPS) >> power;
    (LINEAR_MS + (power - 2) * STEPS + step) as usize
}

/// The longest that is counted in a bucket.
const fn longest_ms(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < LINEAR_MS {
        return bucket;
    }
    let (power, step) = ((bucket - LINEAR_MS) / STEPS + 2, (bucket - LINEAR_MS) % STEPS);
    (1 << power) + (((step + 1) << power) / STEPS) - 1
}

const _: () = assert!(HALVED_AFTER <= u16::MAX as u32 && REPLIES_MIN < HALVED_AFTER / 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_ends_at_most_a_quarter_later() {
        for waited_ms in 0..1 << 16 {
            let longest = longest_ms(bucket(waited_ms));
            assert!(
                longest >= waited_ms && longest as f64 <= waited_ms as f64 * 1.25,
                "{waited_ms} {longest}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_percentile_is_what_so_many_took_and_follows_when_they_change() {
        let latencies = Latencies::default();
        for _ in 0..REPLIES_MIN - 1 {
            latencies.add(1, 95.0);
            assert_eq!(latencies.percentile_ms(), None);
        }
        for at in 0..4000 {
            latencies.add(if at % 50 == 0 { 80 } else { 2 }, 95.0);
        }
        assert_eq!(latencies.percentile_ms(), Some(2));
        for at in 0..4000 {
            latencies.add(if at % 10 == 0 { 80 } else { 2 }, 95.0);
        }
        assert_eq!(latencies.percentile_ms(), Some(80 - 1 + 16));
        for _ in 0..4000 {
            latencies.add(3, 95.0);
        }
        assert_eq!(latencies.percentile_ms(), Some(3));
    }
}
