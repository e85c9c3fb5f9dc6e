//! A store with its hasher, and a clock that tests set.

use crate::{Key, KeyHasher, Seconds, Store, StoreConfig, StoreHow, Stored};

/// A store under test, and the present second.
pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) hasher: KeyHasher,
    pub(super) now: Seconds,
}

impl Bench {
    pub(super) fn new(memory_bytes: usize) -> Bench {
        Bench::with(memory_bytes, |_| ())
    }

    pub(super) fn with(memory_bytes: usize, adjust: impl FnOnce(&mut StoreConfig)) -> Bench {
        let hasher = KeyHasher::new(42);
        let mut config = StoreConfig::new(memory_bytes, hasher.clone());
        adjust(&mut config);
        let now = Seconds(1_000_000);
        Bench { store: Store::new(config, now).unwrap(), hasher, now }
    }

    pub(super) fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        Key { bytes, hash: self.hasher.hash(bytes) }
    }

    pub(super) fn set(&mut self, key: &str, value: &[u8]) -> Stored {
        self.store_how(key, value, StoreHow::default())
    }

    pub(super) fn set_for(&mut self, key: &str, value: &[u8], life_s: u32) -> Stored {
        let expires = Some(Seconds(self.now.0 + life_s));
        self.store_how(key, value, StoreHow { expires, ..StoreHow::default() })
    }

    pub(super) fn store_how(&mut self, key: &str, value: &[u8], how: StoreHow) -> Stored {
        let key = self.key(key.as_bytes());
        self.store.store(key, value, &how, self.now)
    }

    /// The value of an item, if there is one.
    pub(super) fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let key = self.key(key.as_bytes());
        let item = self.store.get(key, self.now)?;
        let mut value = Vec::new();
        item.value.copy_to(&mut value);
        assert_eq!(value.len(), item.value.len());
        Some(value)
    }

    /// The cas unique that a `gets` returns.
    pub(super) fn cas(&mut self, key: &str) -> Option<u64> {
        let key = self.key(key.as_bytes());
        self.store.get_with_cas(key, self.now).map(|item| item.cas)
    }

    /// Does upkeep until there is no more to do.
    pub(super) fn settle(&mut self) {
        let mut rounds = 0;
        while self.store.maintain(self.now, 256) {
            rounds += 1;
            assert!(rounds < 1_000_000, "maintain never ends");
        }
        self.store.check_invariants();
    }
}

/// Whether a write has stored the value.
pub(super) fn stored(answer: Stored) -> bool {
    matches!(answer, Stored::Stored { .. })
}
