//! The lock of a slice, and the bell that says whether a shard sleeps. Both are one atomic.
//!
//! This file is also compiled by `server/shard/loom`, where loom tries every interleaving. For that reason it
//! uses nothing but atomics.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A spin lock. The value is true while somebody holds it.
#[derive(Debug)]
pub(super) struct Lock(AtomicBool);

impl Lock {
    /// A lock that is held from the start.
    pub(super) fn new_held() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Takes the lock if it is free. Returns whether it did.
    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        // The load keeps the line shared while it is held, which is nearly always.
        !self.0.load(Ordering::Relaxed)
            && self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock, and waits for its holder if there is one.
    #[inline]
    pub(super) fn lock(&self) {
        let mut spins = 0u32;
        while !self.try_lock() {
            spins += 1;
            relax(spins);
        }
    }

    /// Releases the lock. Only its holder may call this.
    #[inline]
    pub(super) fn unlock(&self) {
        debug_assert!(self.0.load(Ordering::Relaxed), "a free lock is not unlocked");
        self.0.store(false, Ordering::Release);
    }
}

/// After this many attempts the waiting thread yields its core: the holder may be waiting for it.
#[cfg(not(loom))]
const SPINS_MAX: u32 = 100;

#[cfg(not(loom))]
fn relax(spins: u32) {
    if spins < SPINS_MAX {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(loom)]
fn relax(_spins: u32) {
    loom::thread::yield_now();
}

/// Tells publishers whether a shard sleeps, so that exactly one of them wakes it.
///
/// The shard arms the bell and then looks for work. A publisher publishes and then looks at the bell. Both
/// have a full fence between the two steps, so that at least one of them sees what the other did.
#[derive(Debug)]
pub(super) struct Bell(AtomicBool);

impl Bell {
    /// The bell of a shard that is awake.
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Called by the shard that is about to sleep, before its last look for work.
    #[inline]
    pub(super) fn arm(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the shard when it is awake again.
    #[inline]
    pub(super) fn disarm(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Called by a publisher after publishing. Returns whether it must wake the shard: true for one of
    /// several publishers.
    #[inline]
    pub(super) fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}
