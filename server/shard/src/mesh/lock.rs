//! The lock word of a slice, and the bell of a sleeping shard: the two atomics of our own.
//!
//! Compiled here, and again under loom, which tries every interleaving (`server/loom`). Uses nothing but atomics.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Held or free.
#[derive(Debug)]
pub struct Lock(AtomicBool);

impl Lock {
    /// A lock that somebody holds from the start.
    pub fn held() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Take it if it is free.
    #[inline]
    pub fn try_take(&self) -> bool {
        // The load keeps the line shared while it is held, which is nearly always.
        !self.0.load(Ordering::Relaxed)
            && self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Take it, waiting for whoever has it.
    #[inline]
    pub fn take(&self) {
        let mut spins = 0u32;
        while !self.try_take() {
            spins += 1;
            relax(spins);
        }
    }

    /// Let others have it.
    #[inline]
    pub fn give_up(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A holder may have lost its core; past this many looks, let it run.
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

/// Tells publishers whether a shard sleeps, so that they wake it, once.
///
/// The sleeper says so and then looks for work; a publisher publishes and then looks whether anybody sleeps. Both put
/// a full fence between, so that at least one of them sees the other.
#[derive(Debug)]
pub struct Bell(AtomicBool);

impl Bell {
    /// Nobody sleeps.
    pub fn silent() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The sleeper, before its last look for work.
    #[inline]
    pub fn arm(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper, awake again.
    #[inline]
    pub fn disarm(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// A publisher, after publishing: whether it must wake the sleeper. One of several is told so.
    #[inline]
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}
