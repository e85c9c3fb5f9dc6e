//! Rehearsal: two small simulated caches, without values, that see a sample of the store's keys. They differ
//! only in the share of their admission queue. The share of the one that misses less suits the present
//! requests better.
//!
//! Both see the same requests, so a change in the load affects both alike, and a few hundred requests that
//! one hits and the other misses are enough to decide. The hit ratio of the store itself says much less,
//! since it changes with the load whatever the share is.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::config::EvictionWeight;
use crate::segment::Queue;

use super::{EvictionDecision, GOLDEN_RATIO, decide};

/// Bytes of store for which the sample has one key, within the bounds below.
const STORE_BYTES_PER_KEY: usize = 64 << 10;
const KEYS_MIN: usize = 32;
const KEYS_MAX: usize = 512;
/// Bytes of a key in both caches, including ghosts and spare room in tables.
const BYTES_PER_KEY: usize = 128;
/// A cache holds at most this many items for each key of the sample, however small they are.
const ENTRIES_PER_KEY: usize = 2;
/// The largest item is the capacity of a cache divided by this, which bounds what one call drops.
const ENTRY_FRACTION: u64 = 16;
/// After this many requests that one cache hit and the other missed, they are compared.
const TRIAL: u32 = 256;
/// Square of the standard deviations by which the larger share has to win: 3, which chance does once in 700
/// trials.
const DEVIATIONS_SQUARED: u64 = 9;

/// An item of the sample, as a simulated cache holds it.
struct SampledItem {
    fingerprint: u32,
    bytes: u32,
    frequency: u8,
    queue: Queue,
}

/// A simulated cache: S3-FIFO of single items instead of segments.
struct SampleCache {
    admission_percent: u64,
    entries_max: usize,
    entries: HashTable<SampledItem>,
    queues: [VecDeque<u32>; 2],
    /// Bytes of the items in each queue.
    bytes: [u64; 2],
    ghosts: VecDeque<u32>,
}

impl SampleCache {
    fn new(admission_percent: usize, keys: usize) -> SampleCache {
        SampleCache {
            admission_percent: admission_percent as u64,
            entries_max: keys * ENTRIES_PER_KEY,
            entries: HashTable::new(),
            queues: Default::default(),
            bytes: [0; 2],
            ghosts: VecDeque::new(),
        }
    }

    fn has(&self, fingerprint: u32) -> bool {
        self.entries.find(spread(fingerprint), |entry| entry.fingerprint == fingerprint).is_some()
    }

    /// Whether the key is in the cache; counts one access.
    fn read(&mut self, fingerprint: u32) -> bool {
        let entry = self.entries.find_mut(spread(fingerprint), |entry| entry.fingerprint == fingerprint);
        entry.is_some_and(|entry| {
            entry.frequency = (entry.frequency + 1).min(crate::index::FREQUENCY_MAX);
            true
        })
    }

    /// Adds a key that is not in the cache, and evicts others until all fit in `capacity` bytes.
    fn put(&mut self, fingerprint: u32, bytes: u32, capacity: u64, weight: EvictionWeight) {
        let ghost = self.ghosts.iter().position(|&ghost| ghost == fingerprint);
        let queue = if ghost.is_some() { Queue::Main } else { Queue::Admission };
        ghost.map(|at| self.ghosts.remove(at));
        self.append(SampledItem { fingerprint, bytes, frequency: 0, queue });
        let full = |cache: &SampleCache| {
            cache.bytes[0] + cache.bytes[1] > capacity || cache.entries.len() > cache.entries_max
        };
        while full(self) {
            self.evict_one(capacity, weight);
        }
    }

    fn append(&mut self, entry: SampledItem) {
        self.queues[entry.queue as usize].push_back(entry.fingerprint);
        self.bytes[entry.queue as usize] += u64::from(entry.bytes);
        self.entries.insert_unique(spread(entry.fingerprint), entry, |entry| spread(entry.fingerprint));
    }

    /// Drops the oldest key of the queue to evict from, or moves it to the end of the main queue.
    fn evict_one(&mut self, capacity: u64, weight: EvictionWeight) {
        debug_assert!(!self.entries.is_empty());
        let mean = (self.bytes[0] + self.bytes[1]) / self.entries.len() as u64;
        let long = self.bytes[0] * 100 > capacity * self.admission_percent;
        let queue = if long || self.queues[1].is_empty() { Queue::Admission } else { Queue::Main };
        let Some(fingerprint) = self.queues[queue as usize].pop_front() else { return };
        let Ok(entry) =
            self.entries.find_entry(spread(fingerprint), |entry| entry.fingerprint == fingerprint)
        else {
            return;
        };
        let (mut entry, _) = entry.remove();
        self.bytes[queue as usize] -= u64::from(entry.bytes);
        match decide(weight, queue, entry.frequency, u64::from(entry.bytes), mean) {
            EvictionDecision::Keep { frequency } => {
                entry.frequency = frequency;
                entry.queue = Queue::Main;
                self.append(entry);
            }
            EvictionDecision::Drop if queue == Queue::Admission => {
                self.ghosts.push_back(fingerprint);
                while self.ghosts.len() > self.entries.len() / 2 {
                    self.ghosts.pop_front();
                }
            }
            EvictionDecision::Drop => {}
        }
    }
}

/// Two simulated caches and which of them is doing better.
pub(crate) struct Rehearsal {
    weight: EvictionWeight,
    admission_percents: [usize; 2],
    /// Keys belong to the sample if the low 32 bits of their hash are below this.
    hash_limit: u32,
    /// Keys that the sample should have.
    keys: usize,
    /// Bytes of each cache: the share of the store's bytes that the sample is of its keys.
    capacity: u64,
    caches: [SampleCache; 2],
    /// For each cache, requests that it hit and the other missed.
    wins: [u32; 2],
    /// Index of the cache with the share that the store uses.
    chosen: usize,
}

impl Rehearsal {
    /// A rehearsal of two shares of the admission queue, for a store of this many bytes. The first share is
    /// used unless the second is clearly better.
    pub(crate) fn new(
        store_bytes: usize,
        weight: EvictionWeight,
        admission_percents: [usize; 2],
    ) -> Rehearsal {
        let keys = (store_bytes / STORE_BYTES_PER_KEY).clamp(KEYS_MIN, KEYS_MAX);
        Rehearsal {
            weight,
            admission_percents,
            hash_limit: 0,
            keys,
            capacity: 0,
            caches: admission_percents.map(|percent| SampleCache::new(percent, keys)),
            wins: [0; 2],
            chosen: 0,
        }
    }

    /// Bytes charged to the store's memory.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.keys * BYTES_PER_KEY
    }

    /// The share of the admission queue to use, percent.
    #[inline]
    pub(crate) fn admission_percent(&self) -> usize {
        self.admission_percents[self.chosen]
    }

    /// Whether this key belongs to the sample.
    #[inline]
    pub(crate) fn samples(&self, hash: u64) -> bool {
        (hash as u32) < self.hash_limit
    }

    /// Fits the sample to a full store of `items` items, of `bytes` bytes in all.
    pub(crate) fn set_store_size(&mut self, items: u64, bytes: u64) {
        let whole = u64::from(u32::MAX);
        let sampled = items * u64::from(self.hash_limit) / whole;
        if sampled < self.keys as u64 / 2 && u64::from(self.hash_limit) < whole
            || sampled > self.keys as u64 * 2
        {
            self.hash_limit = (whole * self.keys as u64 / items.max(1)).min(whole) as u32;
            self.caches = self.admission_percents.map(|percent| SampleCache::new(percent, self.keys));
            self.wins = [0; 2];
        }
        self.capacity = (u128::from(bytes) * u128::from(self.hash_limit) / u128::from(whole)) as u64;
    }

    /// Notes that a key of the sample was looked up. `bytes` is the size of its item, `None` if it was
    /// missed.
    #[cold]
    pub(crate) fn note_lookup(&mut self, hash: u64, bytes: Option<u32>) {
        let fingerprint = fingerprint(hash);
        let hits = self.caches.each_mut().map(|cache| cache.read(fingerprint));
        if let Some(bytes) = bytes {
            self.put(fingerprint, bytes, hits);
        }
        if hits[0] != hits[1] {
            self.wins[usize::from(hits[1])] += 1;
            self.compare();
        }
    }

    /// Notes that a key of the sample was stored.
    #[cold]
    pub(crate) fn note_store(&mut self, hash: u64, bytes: u32) {
        let fingerprint = fingerprint(hash);
        let present = self.caches.each_ref().map(|cache| cache.has(fingerprint));
        self.put(fingerprint, bytes, present);
    }

    fn put(&mut self, fingerprint: u32, bytes: u32, present: [bool; 2]) {
        // In a small sample an item this large would count for many others. Both caches miss it.
        if u64::from(bytes) > self.capacity / ENTRY_FRACTION {
            return;
        }
        for (cache, present) in self.caches.iter_mut().zip(present) {
            if !present {
                cache.put(fingerprint, bytes, self.capacity, self.weight);
            }
        }
    }

    /// Compares the caches after enough requests.
    fn compare(&mut self) {
        let [first, second] = self.wins.map(u64::from);
        if first + second < u64::from(TRIAL) {
            return;
        }
        let lead = second.saturating_sub(first);
        if lead * lead > DEVIATIONS_SQUARED * (first + second) {
            self.chosen = 1;
        } else if lead == 0 {
            self.chosen = 0;
        }
        self.wins = self.wins.map(|wins| wins / 2);
    }
}

/// The hash for `HashTable`, which takes its tags from the top bits.
fn spread(fingerprint: u32) -> u64 {
    u64::from(fingerprint).wrapping_mul(GOLDEN_RATIO)
}

/// The bits of a hash that identify a key in the sample.
fn fingerprint(hash: u64) -> u32 {
    (hash.wrapping_mul(GOLDEN_RATIO) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEMS: u64 = 2000;

    fn rehearsal() -> Rehearsal {
        let mut rehearsal = Rehearsal::new(64 << 20, EvictionWeight::Requests, [10, 50]);
        rehearsal.set_store_size(ITEMS, ITEMS * 100);
        rehearsal
    }

    fn hash(n: u64) -> u64 {
        let mixed = (n ^ n >> 31).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// A client that reads, and stores what it missed.
    fn ask(rehearsal: &mut Rehearsal, n: u64) {
        if rehearsal.samples(hash(n)) {
            rehearsal.note_lookup(hash(n), None);
            rehearsal.note_store(hash(n), 100);
        }
    }

    /// Requests in which each key is read three times, a third of the store's items apart, and never again.
    fn recent(rehearsal: &mut Rehearsal, from: u64) {
        for n in from..from + 200_000 {
            [n, n.saturating_sub(ITEMS / 3), n.saturating_sub(ITEMS * 2 / 3)]
                .into_iter()
                .for_each(|n| ask(rehearsal, n));
        }
    }

    /// Requests in which some keys are read again and again, and most only once.
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
                rehearsal.set_store_size(items, items * mean);
                let hash = u64::from(n as u32 % rehearsal.hash_limit.max(1)) | hash(n) << 32;
                rehearsal.note_lookup(hash, Some((mean * (n % 3) + 1) as u32));
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
            .find(|&hash| rehearsal.samples(hash) && !rehearsal.caches[0].has(fingerprint(hash)))
            .unwrap();
        rehearsal.note_lookup(large, Some(1 << 20));
        assert_eq!(rehearsal.caches[0].entries.len(), before);
    }
}
