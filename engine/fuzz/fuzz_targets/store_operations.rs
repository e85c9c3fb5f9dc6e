//! Any sequence of operations on a store, compared with a map: the model of the crate's own tests.
//!
//! The first byte chooses the kind of store, every two further ones a choice of the model.

#![no_main]

// The model names `crate::`, here as there.
use corecached_engine::*;
use libfuzzer_sys::fuzz_target;

#[path = "../../src/tests/model.rs"]
mod model;

use model::{Choices, Model};

struct Bytes<'a>(&'a [u8]);

impl Choices for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        let Some((first, rest)) = self.0.split_first_chunk::<2>() else { return 0 };
        self.0 = rest;
        u32::from(u16::from_le_bytes(*first)) % bound
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let (memory_bytes, evict, lossy, keys, value_bytes) = match kind % 4 {
        0 => (64 << 20, true, false, 6, 3_000),
        1 => (1 << 20, true, true, 40, 60_000),
        2 => (1 << 20, false, true, 40, 60_000),
        _ => (2 << 20, true, true, 20, 65_000),
    };
    let hasher = KeyHasher::new(1);
    let config = StoreConfig { evict, ..StoreConfig::new(memory_bytes, hasher.clone()) };
    let store = Store::new(config, Model::START).unwrap();
    let mut model = Model::new(store, hasher, lossy, keys, value_bytes);
    let mut choices = Bytes(rest);
    while choices.0.len() >= 2 {
        model.step(&mut choices);
    }
    model.finish();
});
