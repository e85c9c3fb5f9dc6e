//! The keys that are asked for most, and for a short time their values. One shard's part.
//!
//! They are found by Space-Saving (Metwally, Agrawal, El Abbadi 2005): a bounded number of keys with
//! counters. A key that is not among them replaces the one with the smallest counter and goes on counting
//! from there. So a counter is too large by at most what its key began with, and no key that was asked for
//! more often than the smallest counter says is missing. Counters are halved from time to time, so that what
//! was asked for long ago does not stay for ever.
//!
//! Holds bytes, knows no connection and reads no clock.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;

/// Gets after which counters are halved, for each key there is room for.
const HALVING_REQUESTS: u64 = 64;
/// Sightings that make a key hot, not counting those that its counter may owe to other keys.
const HOT_SIGHTINGS: u32 = 2;
/// One value may take this part of the memory for all of them.
const VALUE_SHARE: usize = 16;
/// Entries that are searched for outdated values when there is no room for a new one.
const SWEEP_ENTRIES: usize = 64;

/// Which hot keys to find, and what to keep of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotOptions {
    /// The number of keys there is room for; 0 looks for none.
    pub keys: usize,
    /// Milliseconds for which a value may be answered from here, counted from when it was asked for; 0 keeps
    /// none.
    pub stale_ms: u64,
    /// Most bytes of all values that are kept.
    pub bytes_max: usize,
}

impl HotOptions {
    /// The part of each of `shards` shards.
    #[must_use]
    pub const fn share(self, shards: usize) -> Self {
        assert!(shards > 0, "a server has shards");
        Self { keys: self.keys.div_ceil(shards), bytes_max: self.bytes_max / shards, ..self }
    }
}

/// A value as a destination answered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptValue {
    /// A number that is returned with the value and means nothing to the proxy.
    pub(crate) client_flags: u32,
    /// The value, without its CRLF.
    pub(crate) value: Bytes,
}

/// What is reported of a hot key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HotKey<'a> {
    pub(crate) key: &'a [u8],
    /// Recent gets; too many by at most `error`.
    pub(crate) count: u32,
    /// What the counter began with when the key was added.
    pub(crate) error: u32,
    /// Gets that were answered with the kept value.
    pub(crate) hits: u64,
    /// Bytes of the kept value; `None` if none is kept.
    pub(crate) kept_bytes: Option<usize>,
}

/// The keys that are watched for being hot.
#[derive(Debug)]
pub(crate) struct HotKeys {
    options: HotOptions,
    /// The index in `entries` of each key, by the hash of the key.
    by_hash: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    entries: Vec<HotEntry>,
    /// The indexes of all entries as a binary heap: the smallest counter first.
    heap: Vec<u32>,
    /// Gets since counters were halved.
    observed: u64,
    /// Bytes of all kept values.
    bytes: usize,
    /// The entry that was last searched for an outdated value.
    sweep_at: usize,
}

#[derive(Debug)]
struct HotEntry {
    hash: u64,
    key: Vec<u8>,
    count: u32,
    /// See [`HotKey::error`].
    error: u32,
    hits: u64,
    /// The kept value, and the unix milliseconds up to which it may be answered.
    kept: Option<(KeptValue, u64)>,
    /// Where in the heap this entry is.
    heap_at: u32,
}

/// The hasher of maps whose keys are hashes already.
#[derive(Debug, Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl HotKeys {
    /// No keys yet. There must be room for one.
    #[must_use]
    pub(crate) fn new(options: HotOptions) -> Self {
        assert!(options.keys > 0, "there is room for a key");
        Self {
            options,
            by_hash: HashMap::default(),
            entries: Vec::new(),
            heap: Vec::new(),
            observed: 0,
            bytes: 0,
            sweep_at: 0,
        }
    }

    /// Counts a get for `key`. Returns its value if that is kept and may still be answered.
    pub(crate) fn get(&mut self, hash: u64, key: &[u8], now_ms: u64) -> Option<KeptValue> {
        let index = self.observe(hash, key)?;
        let entry = &mut self.entries[index as usize];
        let (kept, until_ms) = entry.kept.as_ref()?;
        if now_ms >= *until_ms {
            self.drop_value(index);
            return None;
        }
        entry.hits += 1;
        Some(kept.clone())
    }

    /// The value of `key`, which was asked for at `asked_ms`, has come: keeps it if the key is hot.
    pub(crate) fn keep(
        &mut self,
        hash: u64,
        key: &[u8],
        client_flags: u32,
        value: &[u8],
        asked_ms: u64,
        now_ms: u64,
    ) {
        let HotOptions { stale_ms, bytes_max, .. } = self.options;
        let until_ms = asked_ms.saturating_add(stale_ms);
        if now_ms >= until_ms || value.len() > bytes_max / VALUE_SHARE {
            return;
        }
        let Some(&index) = self.by_hash.get(&hash) else { return };
        let entry = &self.entries[index as usize];
        if entry.key != key || entry.count - entry.error < HOT_SIGHTINGS {
            return;
        }
        self.drop_value(index);
        if self.bytes + value.len() > bytes_max {
            self.sweep(now_ms);
        }
        if self.bytes + value.len() <= bytes_max {
            self.bytes += value.len();
            let kept = KeptValue { client_flags, value: Bytes::copy_from_slice(value) };
            self.entries[index as usize].kept = Some((kept, until_ms));
        }
    }

    /// The key with this hash is written to: drops its value.
    pub(crate) fn forget(&mut self, hash: u64) {
        if let Some(&index) = self.by_hash.get(&hash) {
            self.drop_value(index);
        }
    }

    /// Drops every value.
    pub(crate) fn forget_all(&mut self) {
        for entry in &mut self.entries {
            entry.kept = None;
        }
        self.bytes = 0;
    }

    /// The number of keys that are watched.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all values that are kept.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// At most `most` hot keys, those that are asked for most first.
    #[must_use]
    pub(crate) fn top(&self, most: usize) -> Vec<HotKey<'_>> {
        let mut entries: Vec<&HotEntry> =
            self.entries.iter().filter(|entry| entry.count - entry.error >= HOT_SIGHTINGS).collect();
        entries.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        entries.truncate(most);
        let shown = |entry: &'_ HotEntry| (entry.kept.as_ref()).map(|(kept, _)| kept.value.len());
        entries
            .into_iter()
            .map(|entry| HotKey {
                key: &entry.key,
                count: entry.count,
                error: entry.error,
                hits: entry.hits,
                kept_bytes: shown(entry),
            })
            .collect()
    }

    /// Counts a get for `key`. Returns the index of its entry, or `None` if another key has the same hash.
    fn observe(&mut self, hash: u64, key: &[u8]) -> Option<u32> {
        self.observed += 1;
        if self.observed >= HALVING_REQUESTS * self.options.keys as u64 {
            self.observed = 0;
            for entry in &mut self.entries {
                // The order of the heap does not change.
                (entry.count, entry.error) = (entry.count / 2, entry.error / 2);
            }
        }
        if let Some(&index) = self.by_hash.get(&hash) {
            let entry = &mut self.entries[index as usize];
            if entry.key != key {
                return None;
            }
            entry.count = entry.count.saturating_add(1);
            let at = entry.heap_at as usize;
            self.sift_down(at);
            return Some(index);
        }
        let index = if self.entries.len() < self.options.keys {
            let index = self.entries.len() as u32;
            let heap_at = self.heap.len() as u32;
            let entry =
                HotEntry { hash, key: key.to_vec(), count: 1, error: 0, hits: 0, kept: None, heap_at };
            self.entries.push(entry);
            self.heap.push(index);
            self.sift_up(heap_at as usize);
            index
        } else {
            let index = *self.heap.first()?;
            self.drop_value(index);
            let entry = &mut self.entries[index as usize];
            self.by_hash.remove(&entry.hash);
            (entry.hash, entry.hits) = (hash, 0);
            entry.key.clear();
            entry.key.extend_from_slice(key);
            entry.error = entry.count;
            entry.count = entry.count.saturating_add(1);
            self.sift_down(0);
            index
        };
        self.by_hash.insert(hash, index);
        debug_assert!(self.by_hash.len() == self.entries.len() && self.heap.len() == self.entries.len());
        Some(index)
    }

    fn drop_value(&mut self, index: u32) {
        if let Some((kept, _)) = self.entries[index as usize].kept.take() {
            debug_assert!(self.bytes >= kept.value.len());
            self.bytes -= kept.value.len();
        }
    }

    /// Drops outdated values of the next [`SWEEP_ENTRIES`] entries.
    fn sweep(&mut self, now_ms: u64) {
        for _ in 0..SWEEP_ENTRIES.min(self.entries.len()) {
            self.sweep_at = (self.sweep_at + 1) % self.entries.len();
            if self.entries[self.sweep_at].kept.as_ref().is_some_and(|(_, until_ms)| now_ms >= *until_ms) {
                self.drop_value(self.sweep_at as u32);
            }
        }
    }

    fn count_at(&self, at: usize) -> u32 {
        self.entries[self.heap[at] as usize].count
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.entries[self.heap[one] as usize].heap_at = one as u32;
        self.entries[self.heap[other] as usize].heap_at = other as u32;
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let smaller =
                (2 * at + 1..(2 * at + 3).min(self.heap.len())).min_by_key(|&child| self.count_at(child));
            match smaller {
                Some(child) if self.count_at(child) < self.count_at(at) => {
                    self.swap(at, child);
                    at = child;
                }
                _ => return,
            }
        }
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 && self.count_at(at) < self.count_at((at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot(keys: usize, bytes_max: usize) -> HotKeys {
        HotKeys::new(HotOptions { keys, stale_ms: 100, bytes_max })
    }

    fn hash(key: &str) -> u64 {
        key.bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    fn ask(hot: &mut HotKeys, key: &str, now_ms: u64) -> Option<KeptValue> {
        hot.get(hash(key), key.as_bytes(), now_ms)
    }

    fn come(hot: &mut HotKeys, key: &str, value: &str, asked_ms: u64, now_ms: u64) {
        hot.keep(hash(key), key.as_bytes(), 7, value.as_bytes(), asked_ms, now_ms);
    }

    fn value(hot: &mut HotKeys, key: &str, now_ms: u64) -> Option<String> {
        ask(hot, key, now_ms).map(|kept| String::from_utf8(kept.value.to_vec()).unwrap())
    }

    #[test]
    fn a_value_is_kept_once_its_key_was_seen_again_and_no_longer_than_it_may() {
        let mut hot = hot(8, 1000);
        assert_eq!(ask(&mut hot, "k", 0), None);
        come(&mut hot, "k", "v", 0, 1);
        assert_eq!(ask(&mut hot, "k", 2), None, "seen once");
        come(&mut hot, "k", "v", 2, 50);
        assert_eq!(value(&mut hot, "k", 101).as_deref(), Some("v"));
        assert_eq!(value(&mut hot, "k", 102), None);
        assert_eq!(hot.bytes(), 0);
        come(&mut hot, "k", "v", 2, 102);
        assert_eq!(value(&mut hot, "k", 102), None, "it was too old when it came");
        come(&mut hot, "unknown", "v", 100, 102);
        assert_eq!(hot.bytes(), 0);
    }

    #[test]
    fn what_is_written_to_is_forgotten() {
        let mut hot = hot(8, 1000);
        for key in ["a", "b", "a", "b"] {
            ask(&mut hot, key, 0);
            come(&mut hot, key, "v", 0, 0);
        }
        assert!(value(&mut hot, "a", 1).is_some());
        hot.forget(hash("a"));
        assert_eq!(value(&mut hot, "a", 1), None);
        assert!(value(&mut hot, "b", 1).is_some());
        hot.forget_all();
        assert_eq!((value(&mut hot, "b", 1), hot.bytes()), (None, 0));
    }

    #[test]
    fn memory_is_bounded_and_values_too_old_make_room() {
        let mut hot = hot(100, 160);
        for number in 0..40 {
            let key = format!("k{number}");
            for _ in 0..3 {
                ask(&mut hot, &key, 0);
            }
            come(&mut hot, &key, "0123456789", 0, 0);
            assert!(hot.bytes() <= 160);
        }
        assert_eq!(hot.bytes(), 160);
        come(&mut hot, "k0", "01234567890", 0, 0);
        assert!(value(&mut hot, "k0", 0).is_some(), "one that is too large leaves the one before");
        come(&mut hot, "k39", "0123456789", 150, 150);
        assert!(value(&mut hot, "k39", 150).is_some(), "the others are too old");
        assert_eq!(hot.bytes(), 10);
    }

    #[test]
    fn the_keys_asked_for_most_are_found_whatever_else_is_asked_for() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut hot = hot(64, 0);
        let mut truth = HashMap::new();
        for _ in 0..3000 {
            let key = match random.u32(..10) {
                0..5 => format!("hot-{}", random.u32(..5)),
                _ => format!("cold-{}", random.u32(..100_000)),
            };
            ask(&mut hot, &key, 0);
            *truth.entry(key).or_insert(0_u32) += 1;
        }
        let top = hot.top(5);
        for found in &top {
            let key = std::str::from_utf8(found.key).unwrap();
            assert!(key.starts_with("hot-"), "{top:?}");
            let count = truth[key];
            assert!(found.count >= count && found.count - found.error <= count, "{found:?}, {count}");
        }
        assert_eq!((hot.len(), hot.by_hash.len(), hot.heap.len()), (64, 64, 64));
        for at in 1..64 {
            assert!(hot.count_at(at) >= hot.count_at((at - 1) / 2), "no heap");
            assert_eq!(hot.entries[hot.heap[at] as usize].heap_at as usize, at);
        }
    }

    #[test]
    fn what_was_hot_long_ago_goes() {
        let mut hot = hot(16, 0);
        for _ in 0..10_000 {
            ask(&mut hot, "old", 0);
        }
        for number in 0..30_000 {
            ask(&mut hot, &format!("new-{}", number % 16), 0);
        }
        assert!(hot.top(16).iter().all(|hot| hot.key != b"old"));
    }

    #[test]
    fn another_key_of_the_same_hash_is_neither_counted_nor_answered() {
        let mut hot = hot(8, 1000);
        for _ in 0..3 {
            hot.get(1, b"one", 0);
        }
        hot.keep(1, b"one", 0, b"v", 0, 0);
        assert_eq!(hot.get(1, b"other", 0), None);
        hot.keep(1, b"other", 0, b"wrong", 0, 0);
        assert_eq!(hot.get(1, b"one", 0).unwrap().value, "v");
    }
}
