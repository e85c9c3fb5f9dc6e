//! Get and set in the engine: a million items with keys of 20 bytes and values of 100 bytes, uniform.

use std::hint::black_box;

use corecached_bench::payload::put_key;
use corecached_bench::rng::Rng;
use corecached_engine::{Key, KeyHasher, Seconds, Store, StoreConfig, StoreHow};

use super::Case;

const ITEMS: u32 = 1_000_000;
const KEY_BYTES: usize = 20;
const VALUE: &[u8; 100] = &[b'v'; 100];
const MEMORY_BYTES: usize = 512 << 20;
const BATCH: usize = 16;
const NOW: Seconds = Seconds(1_000_000);

pub const CASES: &[Case] = &[
    Case { name: "engine/get, one at a time", operations: BATCH as u64, prepare: || gets(false) },
    Case { name: "engine/get, 16 prefetched", operations: BATCH as u64, prepare: || gets(true) },
    Case { name: "engine/set, one at a time", operations: BATCH as u64, prepare: || sets(false) },
    Case { name: "engine/set, 16 prefetched", operations: BATCH as u64, prepare: || sets(true) },
];

struct Filled {
    store: Store,
    hasher: KeyHasher,
    rng: Rng,
    /// The keys of a batch, one after another.
    bytes: Vec<u8>,
    /// The hashes of these keys.
    hashes: [u64; BATCH],
}

impl Filled {
    fn new() -> Self {
        let hasher = KeyHasher::new(7);
        let config = StoreConfig { huge_pages: true, ..StoreConfig::new(MEMORY_BYTES, hasher.clone()) };
        let mut filled = Self {
            store: Store::new(config, NOW).unwrap_or_else(|error| panic!("{error}")),
            hasher,
            rng: Rng::new(11),
            bytes: Vec::with_capacity(BATCH * KEY_BYTES),
            hashes: [0; BATCH],
        };
        for id in 0..ITEMS {
            filled.bytes.clear();
            put_key(&mut filled.bytes, id, KEY_BYTES);
            let key = Key { bytes: &filled.bytes, hash: filled.hasher.hash(&filled.bytes) };
            filled.store.store(key, VALUE, &StoreHow::default(), NOW);
        }
        filled
    }

    /// Draws the keys of a batch; with `prefetch`, also starts to load their index entries and items.
    fn draw(&mut self, prefetch: bool) {
        self.bytes.clear();
        for index in 0..BATCH {
            put_key(&mut self.bytes, self.rng.below(u64::from(ITEMS)) as u32, KEY_BYTES);
            self.hashes[index] = self.hasher.hash(&self.bytes[index * KEY_BYTES..]);
        }
        if prefetch {
            self.hashes.iter().for_each(|&hash| self.store.prefetch(hash));
            self.hashes.iter().for_each(|&hash| self.store.prefetch_item(hash));
        }
    }
}

fn gets(prefetch: bool) -> Box<dyn FnMut()> {
    let mut filled = Filled::new();
    let mut out = Vec::with_capacity(BATCH * VALUE.len());
    Box::new(move || {
        filled.draw(prefetch);
        out.clear();
        for (index, hash) in filled.hashes.into_iter().enumerate() {
            let key = Key { bytes: &filled.bytes[index * KEY_BYTES..][..KEY_BYTES], hash };
            let Some(item) = filled.store.get(key, NOW) else { panic!("all keys are there") };
            item.value.parts().for_each(|part| out.extend_from_slice(part));
        }
        black_box(&out);
    })
}

fn sets(prefetch: bool) -> Box<dyn FnMut()> {
    let mut filled = Filled::new();
    Box::new(move || {
        filled.draw(prefetch);
        for (index, hash) in filled.hashes.into_iter().enumerate() {
            let key = Key { bytes: &filled.bytes[index * KEY_BYTES..][..KEY_BYTES], hash };
            black_box(filled.store.store(key, VALUE, &StoreHow::default(), NOW));
        }
    })
}
