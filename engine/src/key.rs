//! Keys and the one hash every layer shares.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

/// Longest key, bytes: memcached's limit. A record keeps the length in one byte.
pub const KEY_BYTES_MAX: usize = 250;

/// Hashes keys with a secret seed, without which nobody can choose keys that collide.
///
/// Code that routes requests holds a clone, so that a key is hashed once on its way to its store.
#[derive(Clone)]
pub struct KeyHasher {
    secrets: RapidSecrets,
}

impl KeyHasher {
    /// A hasher with this seed, which must not be observable from outside the process.
    pub fn new(seed: u64) -> KeyHasher {
        KeyHasher { secrets: RapidSecrets::seed(seed) }
    }

    /// The hash of `key`. The engine uses bits 0 to 47; the top 16 are free for choosing a store.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        rapidhash_v3_seeded(key, &self.secrets)
    }
}

/// The seed stays out of logs and panics.
impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher")
    }
}

/// A key and its hash.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// 1 to [`KEY_BYTES_MAX`] bytes, any values. Other lengths are never found and never stored.
    pub bytes: &'a [u8],
    /// Hash of `bytes` by the [`KeyHasher`] in the store's configuration. With another hash the item cannot
    /// be found again, and the store may panic.
    pub hash: u64,
}

impl Key<'_> {
    /// Whether a record can hold this key.
    pub(crate) fn fits(&self) -> bool {
        (1..=KEY_BYTES_MAX).contains(&self.bytes.len())
    }
}
