//! Keys and the one hash every layer shares.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

/// Longest key, bytes: memcached's limit. It also leaves key lengths 251..=255 of a record free for marks.
pub const KEY_BYTES_MAX: usize = 250;

/// Hashes keys under a secret seed: without it nobody can choose keys that collide.
///
/// Cloned into whoever routes requests, so that a key is hashed once on its way to its store.
#[derive(Clone)]
pub struct KeyHasher {
    secrets: RapidSecrets,
    /// Of the top 16 bits, where others are to know them.
    owner: Option<RapidSecrets>,
}

impl KeyHasher {
    /// A hasher of this seed. The seed must not be observable from outside the process.
    pub fn new(seed: u64) -> KeyHasher {
        KeyHasher { secrets: RapidSecrets::seed(seed), owner: None }
    }

    /// The same, but the top 16 bits of a hash, which choose a store, are those of a hasher of `seed`, which may be known:
    /// whoever knows it can choose the store of a key, and not where in it the key goes.
    #[must_use]
    pub fn with_owner_seed(self, seed: u64) -> KeyHasher {
        KeyHasher { owner: Some(RapidSecrets::seed(seed)), ..self }
    }

    /// The hash of `key`. The engine uses bits 0 to 47; the top 16 are free for choosing a store.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let hash = rapidhash_v3_seeded(key, &self.secrets);
        match &self.owner {
            None => hash,
            Some(owner) => (hash & (u64::MAX >> 16)) | (rapidhash_v3_seeded(key, owner) & !(u64::MAX >> 16)),
        }
    }
}

/// The seed stays out of logs and panics.
impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher")
    }
}

/// A key with its hash.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// 1 to [`KEY_BYTES_MAX`] bytes, any values. Other lengths are never found and never stored.
    pub bytes: &'a [u8],
    /// Of `bytes`, by the store's own [`KeyHasher`]; another hash makes the key unfindable.
    pub hash: u64,
}

impl Key<'_> {
    /// Whether a record can hold this key.
    pub(crate) fn fits(&self) -> bool {
        (1..=KEY_BYTES_MAX).contains(&self.bytes.len())
    }
}
