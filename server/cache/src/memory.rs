//! The memory limit of a cache, and how much of it the stores get.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The stores get at least the limit divided by this, however much memory the rest of the process takes.
pub(crate) const STORES_FRACTION_MIN: usize = 2;

/// The memory limit, and how much of it the stores have. Other threads set it; each shard reads it once a
/// second.
#[derive(Debug)]
pub struct Memory {
    shards: usize,
    /// `-m`, or what `cache_memlimit` set, in bytes.
    limit_bytes: AtomicUsize,
    /// Bytes for each shard's store.
    slice_bytes: AtomicUsize,
}

impl Memory {
    /// A limit of `limit_bytes`. The stores of all `shards` shards together get all of it.
    ///
    /// # Panics
    /// When there is no shard.
    #[must_use]
    pub const fn new(limit_bytes: usize, shards: usize) -> Self {
        assert!(shards > 0, "a cache has a shard");
        Self {
            shards,
            limit_bytes: AtomicUsize::new(limit_bytes),
            slice_bytes: AtomicUsize::new(limit_bytes / shards),
        }
    }

    /// `-m`, or what `cache_memlimit` set, in bytes.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// Sets the limit, in bytes. The rest of the process keeps what it takes of it, until
    /// [`crate::budget::run`] looks again.
    pub(crate) fn set_limit_bytes(&self, bytes: usize) {
        self.set_stores_bytes(stores_bytes_after(self.limit_bytes(), self.stores_bytes(), bytes));
        self.limit_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes for each shard's store.
    #[must_use]
    pub fn slice_bytes(&self) -> usize {
        self.slice_bytes.load(Ordering::Relaxed)
    }

    /// Bytes for the stores of all shards together.
    #[must_use]
    pub fn stores_bytes(&self) -> usize {
        self.slice_bytes() * self.shards
    }

    /// Sets the bytes for the stores of all shards together.
    pub fn set_stores_bytes(&self, bytes: usize) {
        self.slice_bytes.store(bytes / self.shards, Ordering::Relaxed);
    }
}

/// Bytes for all stores together under a new limit. `stores_bytes` is what they had under the limit before.
fn stores_bytes_after(limit: usize, stores_bytes: usize, new_limit: usize) -> usize {
    new_limit.saturating_sub(limit.saturating_sub(stores_bytes)).max(new_limit / STORES_FRACTION_MIN)
}

#[cfg(test)]
mod tests {
    use super::stores_bytes_after;

    const MIB: usize = 1 << 20;

    #[test]
    fn the_rest_of_the_process_keeps_its_part_under_a_new_limit() {
        assert_eq!(stores_bytes_after(100 * MIB, 86 * MIB, 200 * MIB), 186 * MIB);
        assert_eq!(stores_bytes_after(64 * MIB, 40 * MIB, 16 * MIB), 8 * MIB);
    }
}
