//! Compares the index that stores use with the simple one.
//!
//! [`Twin`] does every operation on both and compares the answers, inside a store under the whole model. Two
//! stores, one with each index, charged alike for it, then go through the same operations and must drop the
//! same items in the same order.

use std::io;

use super::random::Seeded;
use crate::index::{BucketIndex, Index, IndexedItem, KeyReader, Resize, TableIndex};
use crate::item::Location;
use crate::{Key, KeyHasher, Seconds, Store, StoreConfig, StoreHow};

use super::model::Choices;

mod twin;

use twin::model::Model;

/// The generator, for the other copy of the model.
struct Twined(Seeded);

impl twin::model::Choices for Twined {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.below(bound)
    }
}

/// Both kinds of index. Does every operation on both and compares the results.
pub(super) struct Twin {
    buckets: BucketIndex,
    tables: TableIndex,
}

impl Index for Twin {
    fn new(memory_bytes: usize, reserve_bytes: usize, huge_pages: bool) -> io::Result<Twin> {
        Ok(Twin {
            buckets: Index::new(memory_bytes, reserve_bytes, huge_pages)?,
            tables: Index::new(memory_bytes, reserve_bytes, huge_pages)?,
        })
    }

    fn set_memory_bytes(&mut self, memory_bytes: usize) {
        self.buckets.set_memory_bytes(memory_bytes);
        self.tables.set_memory_bytes(memory_bytes);
    }

    fn find(&self, hash: u64, mut matches: impl FnMut(Location) -> bool) -> Option<IndexedItem> {
        let found = self.buckets.find(hash, &mut matches);
        assert_eq!(found, self.tables.find(hash, matches));
        found
    }

    fn find_counting(&mut self, hash: u64, mut matches: impl FnMut(Location) -> bool) -> Option<Location> {
        let found = self.buckets.find_counting(hash, &mut matches);
        assert_eq!(found, self.tables.find_counting(hash, matches));
        found
    }

    fn has_room(&self, hash: u64) -> bool {
        self.buckets.has_room(hash)
    }

    fn insert(&mut self, hash: u64, location: Location, keys: &impl KeyReader) -> Option<Location> {
        let displaced = self.buckets.insert(hash, location, keys);
        assert_eq!(displaced, None, "no honest load makes entries displace each other");
        assert_eq!(displaced, self.tables.insert(hash, location, keys));
        displaced
    }

    fn relocate(&mut self, hash: u64, old: Location, new: Location, frequency: Option<u8>) -> bool {
        let done = self.buckets.relocate(hash, old, new, frequency);
        assert_eq!(done, self.tables.relocate(hash, old, new, frequency));
        done
    }

    fn remove(&mut self, hash: u64, location: Location) -> bool {
        let done = self.buckets.remove(hash, location);
        assert_eq!(done, self.tables.remove(hash, location));
        done
    }

    fn adapt(&mut self, slices: usize, keys: &impl KeyReader) -> bool {
        self.buckets.adapt(slices, keys)
    }

    fn set_scarce(&mut self, scarce: bool) {
        self.buckets.set_scarce(scarce);
    }

    fn wanted_resize(&self) -> Resize {
        self.buckets.wanted_resize()
    }

    fn orphan(&mut self) -> Option<Location> {
        let orphan = self.buckets.orphan();
        assert_eq!(orphan, None, "no honest load makes entries displace each other");
        orphan
    }

    fn prefetch(&self, hash: u64) {
        self.buckets.prefetch(hash);
    }

    fn candidates(&self, hash: u64, visit: impl FnMut(Location)) {
        self.buckets.candidates(hash, visit);
    }

    fn len(&self) -> usize {
        assert_eq!(self.buckets.len(), self.tables.len());
        self.buckets.len()
    }

    fn bytes(&self) -> usize {
        self.buckets.bytes()
    }

    fn for_each(&self, visit: impl FnMut(Location)) {
        self.buckets.for_each(visit);
    }

    fn in_range(&self, from: u64, until: u64, visit: impl FnMut(Location)) {
        self.buckets.in_range(from, until, visit);
    }

    fn check_invariants(&self, keys: &impl KeyReader) {
        self.buckets.check_invariants(keys);
        self.tables.check_invariants(keys);
        self.buckets.for_each(|at| assert!(self.tables.find(keys.hash(at), |other| other == at).is_some()));
    }
}

#[test]
fn both_kinds_of_index_answer_every_question_alike() {
    for (memory_bytes, evict, lossy, keys, value_bytes) in [
        (1 << 20, true, true, 6_000, 300),
        (4 << 20, true, true, 40_000, 40),
        (1 << 20, false, true, 6_000, 300),
        (64 << 20, true, false, 3_000, 200),
    ] {
        eprintln!("memory {memory_bytes} evict {evict} keys {keys} values to {value_bytes}");
        let mut choices = Twined(Seeded::new(7));
        let hasher = KeyHasher::new(5);
        let config = StoreConfig { evict, ..StoreConfig::new(memory_bytes, hasher.clone()) };
        let store = twin::Store::with_index(config, Model::START).unwrap();
        let mut model = Model::new(store, hasher, lossy, keys, value_bytes);
        for _ in 0..60_000 {
            model.step(&mut choices);
        }
        model.finish();
    }
}

#[test]
fn the_index_grows_and_shrinks_under_way_and_back_without_losing_an_entry() {
    let hasher = KeyHasher::new(3);
    let now = Seconds(1000);
    let config = StoreConfig::new(64 << 20, hasher.clone());
    let mut store = Store::<Twin>::with_index(config, now).unwrap();
    let mut choices = Seeded::new(11);
    let (mut first, mut next) = (0u32, 0u32);
    // The number of entries changes by random amounts, so that growing turns into shrinking at any point.
    for round in 0..60 {
        let up = choices.below(30_000);
        for _ in 0..up {
            let name = next.to_le_bytes();
            let key = Key { bytes: &name, hash: hasher.hash(&name) };
            store.store(key, b"value", &StoreHow::default(), now);
            next += 1;
        }
        let down = choices.below(next - first + 1).min(choices.below(60_000));
        for _ in 0..down {
            let name = first.to_le_bytes();
            let key = Key { bytes: &name, hash: hasher.hash(&name) };
            store.delete(key, &Default::default(), now);
            first += 1;
        }
        assert_eq!(store.stats().items, u64::from(next - first), "round {round}");
        store.check_invariants();
    }
    for name in (first..next).map(u32::to_le_bytes) {
        let key = Key { bytes: &name, hash: hasher.hash(&name) };
        assert!(store.get(key, now).is_some());
    }
}

/// An index that charges a fixed number of bytes, so that evictions do not depend on its kind.
struct Charged<I>(I);

impl<I: Index> Index for Charged<I> {
    fn new(memory_bytes: usize, reserve_bytes: usize, huge_pages: bool) -> io::Result<Charged<I>> {
        Ok(Charged(I::new(memory_bytes, reserve_bytes, huge_pages)?))
    }
    fn set_memory_bytes(&mut self, memory_bytes: usize) {
        self.0.set_memory_bytes(memory_bytes);
    }
    fn find(&self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<IndexedItem> {
        self.0.find(hash, matches)
    }
    fn find_counting(&mut self, hash: u64, matches: impl FnMut(Location) -> bool) -> Option<Location> {
        self.0.find_counting(hash, matches)
    }
    fn has_room(&self, hash: u64) -> bool {
        self.0.has_room(hash)
    }
    fn insert(&mut self, hash: u64, location: Location, keys: &impl KeyReader) -> Option<Location> {
        self.0.insert(hash, location, keys)
    }
    fn relocate(&mut self, hash: u64, old: Location, new: Location, frequency: Option<u8>) -> bool {
        self.0.relocate(hash, old, new, frequency)
    }
    fn remove(&mut self, hash: u64, location: Location) -> bool {
        self.0.remove(hash, location)
    }
    fn adapt(&mut self, slices: usize, keys: &impl KeyReader) -> bool {
        self.0.adapt(slices, keys)
    }
    fn set_scarce(&mut self, scarce: bool) {
        self.0.set_scarce(scarce);
    }
    fn wanted_resize(&self) -> Resize {
        // Waiting for memory would make one of them grow at other times, which is all the same here.
        if self.0.wanted_resize() == Resize::Grow { Resize::GrowNow } else { self.0.wanted_resize() }
    }
    fn orphan(&mut self) -> Option<Location> {
        self.0.orphan()
    }
    fn prefetch(&self, hash: u64) {
        self.0.prefetch(hash);
    }
    fn candidates(&self, hash: u64, visit: impl FnMut(Location)) {
        self.0.candidates(hash, visit);
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn bytes(&self) -> usize {
        300 << 10
    }
    fn for_each(&self, visit: impl FnMut(Location)) {
        self.0.for_each(visit);
    }
    fn in_range(&self, from: u64, until: u64, visit: impl FnMut(Location)) {
        self.0.in_range(from, until, visit);
    }
    fn check_invariants(&self, keys: &impl KeyReader) {
        self.0.check_invariants(keys);
    }
}

/// Reads and writes a skewed set of keys, and returns the hashes of the evicted items in order.
fn dropped<I: Index>(seed: u64) -> Vec<u64> {
    let hasher = KeyHasher::new(9);
    let mut now = Seconds(1000);
    let config = StoreConfig::new(4 << 20, hasher.clone());
    let mut store = Store::<Charged<I>>::with_index(config, now).unwrap();
    let mut choices = Seeded::new(seed);
    for step in 0..300_000 {
        let spread = 1 << choices.below(17);
        let name = format!("key:{}", choices.below(spread));
        let key = Key { bytes: name.as_bytes(), hash: hasher.hash(name.as_bytes()) };
        if store.get(key, now).is_none() {
            let expires = choices.maybe(8, |choices| Seconds(now.0 + choices.below(100)));
            let how = StoreHow { expires, ..StoreHow::default() };
            store.store(key, &[1; 400][..choices.below(400) as usize], &how, now);
        }
        now.0 += u32::from(step % 1000 == 0);
    }
    store.check_invariants();
    store.evicted
}

#[test]
fn stores_with_either_index_drop_the_same_items_in_the_same_order() {
    for seed in 1..=3 {
        let (buckets, tables) = (dropped::<BucketIndex>(seed), dropped::<TableIndex>(seed));
        assert!(buckets.len() > 10_000, "{}", buckets.len());
        assert!(buckets == tables, "the logs of evictions differ");
    }
}
