//! The memory limit of a cache, and what of it is left to the stores.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::budget;

/// The memory limit, and what of it the stores have. Set by control threads; shards read it once a second.
#[derive(Debug)]
pub struct Memory {
    shards: usize,
    /// `-m`, or what `cache_memlimit` set, in bytes.
    limit_bytes: AtomicUsize,
    /// Bytes for each shard's store.
    slice_bytes: AtomicUsize,
}

impl Memory {
    /// A limit of `limit_bytes` for all of `shards` shards, all of which is the stores'.
    #[must_use]
    pub const fn new(limit_bytes: usize, shards: usize) -> Self {
        assert!(shards > 0);
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

    /// Sets the limit, in bytes. What the rest of the process takes stays with it until the next look.
    pub fn set_limit_bytes(&self, bytes: usize) {
        self.give_stores(budget::carry_over(self.limit_bytes(), self.stores_bytes(), bytes));
        self.limit_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes for each shard's store.
    #[must_use]
    pub fn slice_bytes(&self) -> usize {
        self.slice_bytes.load(Ordering::Relaxed)
    }

    /// What of the limit is left to the stores together, in bytes.
    #[must_use]
    pub fn stores_bytes(&self) -> usize {
        self.slice_bytes() * self.shards
    }

    /// Gives the stores together this many bytes.
    pub fn give_stores(&self, bytes: usize) {
        self.slice_bytes.store(bytes / self.shards, Ordering::Relaxed);
    }
}
