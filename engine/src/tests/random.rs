//! The model, driven by a seeded generator and by proptest.

use proptest::prelude::*;

use super::model::{Choices, Model};
use crate::{KeyHasher, Store, StoreConfig};

/// A xorshift64* generator: the same numbers for the same seed.
pub(super) struct Seeded(u64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Seeded {
        Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl Choices for Seeded {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * u64::from(bound)) >> 32) as u32
    }
}

/// The choices of a list, and zeroes after its end.
struct Listed(std::vec::IntoIter<u16>);

impl Choices for Listed {
    fn below(&mut self, bound: u32) -> u32 {
        u32::from(self.0.next().unwrap_or(0)) % bound
    }
}

fn model(memory_bytes: usize, evict: bool, lossy: bool, keys: u32, value_bytes: u32) -> Model {
    let hasher = KeyHasher::new(3);
    let config = StoreConfig { evict, ..StoreConfig::new(memory_bytes, hasher.clone()) };
    Model::new(Store::new(config, Model::START).unwrap(), hasher, lossy, keys, value_bytes)
}

fn run(memory_bytes: usize, evict: bool, lossy: bool, keys: u32, value_bytes: u32, steps: u32) {
    for seed in 1..=6u64 {
        eprintln!("memory {memory_bytes} evict {evict} keys {keys} values to {value_bytes} seed {seed}");
        let mut choices = Seeded::new(seed);
        let mut model = model(memory_bytes, evict, lossy, keys, value_bytes);
        for _ in 0..steps {
            model.step(&mut choices);
        }
        model.finish();
    }
}

#[test]
fn a_large_store_agrees_with_a_map_and_loses_nothing() {
    run(64 << 20, true, false, 200, 500, 20_000);
    run(256 << 20, true, false, 50, 300_000, 6_000);
}

#[test]
fn a_small_store_loses_items_only_by_eviction() {
    run(1 << 20, true, true, 3_000, 2_000, 30_000);
    run(1 << 20, true, true, 60, 200_000, 10_000);
    run(8 << 20, true, true, 500, 300_000, 10_000);
}

#[test]
fn a_store_that_may_not_evict_refuses_instead_of_losing() {
    run(1 << 20, false, true, 3_000, 2_000, 30_000);
    run(1 << 20, false, true, 60, 200_000, 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_agrees_with_a_map(list in prop::collection::vec(any::<u16>(), 0..4000)) {
        let steps = list.len() / 6;
        let mut choices = Listed(list.into_iter());
        let mut model = model(16 << 20, true, false, 6, 3000);
        for _ in 0..steps {
            model.step(&mut choices);
        }
        model.finish();
    }
}
