//! Rehearsal: two small caches beside the store, without values, that see a sample of its keys and differ in their share
//! of admission alone. Which of them misses less tells which share suits what is asked for now.
//!
//! Both see the same requests, so whatever a load does from hour to hour does to both alike, and a few hundred requests
//! on which they differ decide. The share of the store's own hits tells much less: on a trace that varies, it goes
//! where the trace goes.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::config::EvictionWeight;
use crate::segment::Queue;

use super::{Verdict, judge};

/// Bytes of store per key of the sample.
const STORE_BYTES_PER_KEY: usize = 64 << 10;
const KEYS_MIN: usize = 32;
const KEYS_MAX: usize = 512;
/// Bytes of a key in both caches, ghosts and room in tables included.
const BYTES_PER_KEY: usize = 128;
/// Most entries of a cache for each key of the sample, however small they are.
const ENTRIES_PER_KEY: usize = 2;
/// Largest entry, of what a cache holds: so a call drops no more than the bytes of that many.
const ENTRY_FRACTION: u64 = 16;
/// Requests on which the caches differ, after which it is decided.
const TRIAL: u32 = 256;
/// Squared standard deviations by which the longer admission has to win: it is chosen by chance once in 700 trials.
const DEVIATIONS_SQUARED: u64 = 9;

/// A key of the sample.
struct Entry {
    print: u32,
    bytes: u32,
    frequency: u8,
    queue: Queue,
}

/// S3-FIFO of items instead of segments.
struct Cache {
    admission_percent: u64,
    entries_max: usize,
    entries: HashTable<Entry>,
    queues: [VecDeque<u32>; 2],
    /// Bytes of entries by queue.
    bytes: [u64; 2],
    ghosts: VecDeque<u32>,
}

impl Cache {
    fn new(admission_percent: usize, keys: usize) -> Cache {
        Cache {
            admission_percent: admission_percent as u64,
            entries_max: keys * ENTRIES_PER_KEY,
            entries: HashTable::new(),
            queues: Default::default(),
            bytes: [0; 2],
            ghosts: VecDeque::new(),
        }
    }

    fn has(&self, print: u32) -> bool {
        self.entries.find(spread(print), |entry| entry.print == print).is_some()
    }

    /// Whether the key is here, counting one access.
    fn read(&mut self, print: u32) -> bool {
        let entry = self.entries.find_mut(spread(print), |entry| entry.print == print);
        entry.is_some_and(|entry| {
            entry.frequency = (entry.frequency + 1).min(crate::index::FREQUENCY_MAX);
            true
        })
    }

    /// Puts a key in that is not here; others go until `capacity` bytes are enough.
    fn put(&mut self, print: u32, bytes: u32, capacity: u64, weight: EvictionWeight) {
        let ghost = self.ghosts.iter().position(|&ghost| ghost == print);
        let queue = if ghost.is_some() { Queue::Main } else { Queue::Admission };
        ghost.map(|at| self.ghosts.remove(at));
        self.append(Entry { print, bytes, frequency: 0, queue });
        let full = |cache: &Cache| {
            cache.bytes[0] + cache.bytes[1] > capacity || cache.entries.len() > cache.entries_max
        };
        while full(self) {
            self.give(capacity, weight);
        }
    }

    fn append(&mut self, entry: Entry) {
        self.queues[entry.queue as usize].push_back(entry.print);
        self.bytes[entry.queue as usize] += u64::from(entry.bytes);
        self.entries.insert_unique(spread(entry.print), entry, |entry| spread(entry.print));
    }

    /// Judges the oldest key of the queue that gives.
    fn give(&mut self, capacity: u64, weight: EvictionWeight) {
        let mean = (self.bytes[0] + self.bytes[1]) / self.entries.len() as u64;
        let long = self.bytes[0] * 100 > capacity * self.admission_percent;
        let queue = if long || self.queues[1].is_empty() { Queue::Admission } else { Queue::Main };
        let Some(print) = self.queues[queue as usize].pop_front() else { return };
        let Ok(entry) = self.entries.find_entry(spread(print), |entry| entry.print == print) else {
            return;
        };
        let (mut entry, _) = entry.remove();
        self.bytes[queue as usize] -= u64::from(entry.bytes);
        match judge(weight, queue, entry.frequency, u64::from(entry.bytes), mean) {
            Verdict::Keep { frequency } => {
                entry.frequency = frequency;
                entry.queue = Queue::Main;
                self.append(entry);
            }
            Verdict::Drop if queue == Queue::Admission => {
                self.ghosts.push_back(print);
                while self.ghosts.len() > self.entries.len() / 2 {
                    self.ghosts.pop_front();
                }
            }
            Verdict::Drop => {}
        }
    }
}

/// See the head of the file.
pub(crate) struct Rehearsal {
    weight: EvictionWeight,
    admission_percents: [usize; 2],
    /// Keys whose hash, in its low 32 bits, lies below this belong to the sample.
    below: u32,
    keys: usize,
    /// Bytes of store that the sample stands for.
    capacity: u64,
    caches: [Cache; 2],
    /// Requests that one of them hit and the other missed.
    wins: [u32; 2],
    /// The cache whose share is better.
    better: usize,
}

impl Rehearsal {
    /// For a store of this many bytes that may have one of two shares of admission; the first has to be beaten.
    pub(crate) fn new(
        store_bytes: usize,
        weight: EvictionWeight,
        admission_percents: [usize; 2],
    ) -> Rehearsal {
        let keys = (store_bytes / STORE_BYTES_PER_KEY).clamp(KEYS_MIN, KEYS_MAX);
        Rehearsal {
            weight,
            admission_percents,
            below: 0,
            keys,
            capacity: 0,
            caches: admission_percents.map(|percent| Cache::new(percent, keys)),
            wins: [0; 2],
            better: 0,
        }
    }

    /// Bytes taken.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.keys * BYTES_PER_KEY
    }

    /// The better share of admission, percent.
    #[inline]
    pub(crate) fn admission_percent(&self) -> usize {
        self.admission_percents[self.better]
    }

    /// Whether this key belongs to the sample.
    #[inline]
    pub(crate) fn has(&self, hash: u64) -> bool {
        (hash as u32) < self.below
    }

    /// The store is full with so many items of so many bytes: the sample stands for them.
    pub(crate) fn fit(&mut self, items: u64, bytes: u64) {
        let whole = u64::from(u32::MAX);
        let sampled = items * u64::from(self.below) / whole;
        if sampled < self.keys as u64 / 2 && u64::from(self.below) < whole || sampled > self.keys as u64 * 2 {
            self.below = (whole * self.keys as u64 / items.max(1)).min(whole) as u32;
            self.caches = self.admission_percents.map(|percent| Cache::new(percent, self.keys));
            self.wins = [0; 2];
        }
        self.capacity = (u128::from(bytes) * u128::from(self.below) / u128::from(whole)) as u64;
    }

    /// A key of the sample was looked for and, where `bytes` are given, found.
    #[cold]
    pub(crate) fn looked(&mut self, hash: u64, bytes: Option<u32>) {
        let print = print(hash);
        let hits = self.caches.each_mut().map(|cache| cache.read(print));
        if let Some(bytes) = bytes {
            self.put(print, bytes, hits);
        }
        if hits[0] != hits[1] {
            self.wins[usize::from(hits[1])] += 1;
            self.decide();
        }
    }

    /// A key of the sample was stored.
    #[cold]
    pub(crate) fn stored(&mut self, hash: u64, bytes: u32) {
        let print = print(hash);
        let present = self.caches.each_ref().map(|cache| cache.has(print));
        self.put(print, bytes, present);
    }

    fn put(&mut self, print: u32, bytes: u32, present: [bool; 2]) {
        // One in a sample this small would stand for many: it is missed by both.
        if u64::from(bytes) > self.capacity / ENTRY_FRACTION {
            return;
        }
        for (cache, present) in self.caches.iter_mut().zip(present) {
            if !present {
                cache.put(print, bytes, self.capacity, self.weight);
            }
        }
    }

    fn decide(&mut self) {
        let [first, second] = self.wins.map(u64::from);
        if first + second < u64::from(TRIAL) {
            return;
        }
        let lead = second.saturating_sub(first);
        if lead * lead > DEVIATIONS_SQUARED * (first + second) {
            self.better = 1;
        } else if lead == 0 {
            self.better = 0;
        }
        self.wins = self.wins.map(|wins| wins / 2);
    }
}

/// What a table goes by: it takes its tags from the top bits.
fn spread(print: u32) -> u64 {
    u64::from(print).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Bits of a hash that tell keys of the sample apart.
fn print(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEMS: u64 = 2000;

    fn rehearsal() -> Rehearsal {
        let mut rehearsal = Rehearsal::new(64 << 20, EvictionWeight::Requests, [10, 50]);
        rehearsal.fit(ITEMS, ITEMS * 100);
        rehearsal
    }

    fn hash(n: u64) -> u64 {
        let mixed = (n ^ n >> 31).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// A client that reads, and stores what was missed.
    fn ask(rehearsal: &mut Rehearsal, n: u64) {
        if rehearsal.has(hash(n)) {
            rehearsal.looked(hash(n), None);
            rehearsal.stored(hash(n), 100);
        }
    }

    /// Each key is asked for three times, a third of the store apart, and never again.
    fn recent(rehearsal: &mut Rehearsal, from: u64) {
        for n in from..from + 200_000 {
            [n, n.saturating_sub(ITEMS / 3), n.saturating_sub(ITEMS * 2 / 3)]
                .into_iter()
                .for_each(|n| ask(rehearsal, n));
        }
    }

    /// Some keys are asked for now and then for ever, most just once.
    fn frequent(rehearsal: &mut Rehearsal, from: u64) {
        for n in from..from + 400_000 {
            ask(rehearsal, n);
            ask(rehearsal, hash(n) % ITEMS);
        }
    }

    #[test]
    fn recency_lengthens_admission_and_frequency_shortens_it_again() {
        let mut rehearsal = rehearsal();
        assert_eq!(rehearsal.admission_percent(), 10);
        frequent(&mut rehearsal, 1 << 32);
        assert_eq!(rehearsal.admission_percent(), 10);
        recent(&mut rehearsal, 2 << 32);
        assert_eq!(rehearsal.admission_percent(), 50);
        frequent(&mut rehearsal, 3 << 32);
        assert_eq!(rehearsal.admission_percent(), 10);
    }

    #[test]
    fn requests_without_a_pattern_leave_it_as_configured() {
        let mut rehearsal = rehearsal();
        for n in 0..1_000_000 {
            ask(&mut rehearsal, hash(n) % (ITEMS * 2));
            assert_eq!(rehearsal.admission_percent(), 10, "after {n}");
        }
    }

    #[test]
    fn the_sample_stays_small_whatever_the_store_holds() {
        for (items, mean) in [(10, 1 << 20), (1000, 1000), (1_000_000, 60), (300_000_000, 50)] {
            let mut rehearsal = Rehearsal::new(64 << 20, EvictionWeight::Bytes, [10, 50]);
            for n in 0..100_000 {
                rehearsal.fit(items, items * mean);
                let hash = u64::from(n as u32 % rehearsal.below.max(1)) | hash(n) << 32;
                rehearsal.looked(hash, Some((mean * (n % 3) + 1) as u32));
                for cache in &rehearsal.caches {
                    let queued: usize = cache.queues.iter().map(VecDeque::len).sum();
                    assert!(cache.bytes[0] + cache.bytes[1] <= rehearsal.capacity);
                    assert!(queued == cache.entries.len() && cache.ghosts.len() <= queued);
                    assert!(queued <= 2 * rehearsal.keys, "{queued} keys at {items} items");
                }
            }
        }
    }

    #[test]
    fn a_value_that_would_fill_the_sample_is_not_put_in() {
        let mut rehearsal = rehearsal();
        (0..100_000).for_each(|n| ask(&mut rehearsal, n));
        let before = rehearsal.caches[0].entries.len();
        let large = (0..)
            .map(hash)
            .find(|&hash| rehearsal.has(hash) && !rehearsal.caches[0].has(print(hash)))
            .unwrap();
        rehearsal.looked(large, Some(1 << 20));
        assert_eq!(rehearsal.caches[0].entries.len(), before);
    }
}
