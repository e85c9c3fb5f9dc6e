//! A shard's store. Its owner holds it while awake; other shards may borrow it while the owner sleeps.
//!
//! Waking a sleeping core costs more than the work that it would do. So each slice has one lock. The owner
//! holds it while it is awake, and releases it to sleep. A peer that finds it free works on the store itself
//! for the rest of its batch. Only an owner that wakes up ever waits for the lock, at most until the end of
//! one batch. Under load all owners are awake and the locks are not touched.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::lock::Lock;

/// A value and the lock that protects it, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
struct Slice<T> {
    lock: Lock,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only through a `SliceHandle` that holds `lock`, and only one handle can hold it
// at a time. So a shared slice only moves `T` from thread to thread.
unsafe impl<T: Send> Sync for Slice<T> {}

/// The slices of all shards.
#[derive(Debug)]
pub struct Slices<T>(Arc<[Slice<T>]>);

impl<T> Clone for Slices<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Slices<T> {
    /// Makes a slice of each of `values`, in order, with the handle of its owner. The owners hold their
    /// slices from the start.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = T>) -> (Self, Vec<SliceHandle<T>>) {
        let slice = |value| Slice { lock: Lock::new_held(), value: UnsafeCell::new(value) };
        let slices = Self(values.into_iter().map(slice).collect());
        // One for each slice. Nothing else makes a handle that is held without taking the lock.
        let owners = (0..slices.0.len())
            .map(|shard| SliceHandle { slices: slices.clone(), shard, held: true })
            .collect();
        (slices, owners)
    }

    /// A handle to the slice of `shard`, which it does not hold yet.
    ///
    /// # Panics
    /// When there is no such shard.
    #[must_use]
    pub fn handle(&self, shard: usize) -> SliceHandle<T> {
        assert!(shard < self.0.len(), "there is no such slice");
        SliceHandle { slices: self.clone(), shard, held: false }
    }
}

/// One shard's handle to a slice. It reaches the value only while it holds the lock; to use the value at
/// another time panics.
#[derive(Debug)]
pub struct SliceHandle<T> {
    slices: Slices<T>,
    shard: usize,
    held: bool,
}

impl<T> SliceHandle<T> {
    /// Whether this handle holds the slice, so that its value may be used.
    #[inline]
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.held
    }

    /// Takes the slice if it is free. Returns whether this handle holds it now.
    #[inline]
    pub fn try_lock(&mut self) -> bool {
        self.held = self.held || self.slices.0[self.shard].lock.try_lock();
        self.held
    }

    /// Takes the slice. Waits for the end of a peer's batch if a peer has borrowed it.
    #[inline]
    pub fn lock(&mut self) {
        if !self.held {
            self.slices.0[self.shard].lock.lock();
            self.held = true;
        }
    }

    /// Releases the slice, if this handle holds it.
    #[inline]
    pub fn unlock(&mut self) {
        if self.held {
            self.held = false;
            self.slices.0[self.shard].lock.unlock();
        }
    }
}

impl<T> Drop for SliceHandle<T> {
    fn drop(&mut self) {
        self.unlock();
    }
}

impl<T> Deref for SliceHandle<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        assert!(self.held, "a slice is held while it is used");
        // SAFETY: this handle holds the lock, so no other handle reaches the value, and this one is borrowed.
        unsafe { &*self.slices.0[self.shard].value.get() }
    }
}

impl<T> DerefMut for SliceHandle<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        assert!(self.held, "a slice is held while it is used");
        // SAFETY: this handle holds the lock, so no other handle reaches the value, and this one is borrowed
        // mutably.
        unsafe { &mut *self.slices.0[self.shard].value.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two numbers that are equal whenever nobody works on them.
    #[derive(Debug, Default)]
    struct Pair(u64, u64);

    #[test]
    fn one_at_a_time_works_on_a_slice_however_many_want_it() {
        const ROUNDS: u64 = 20_000;
        let (slices, mut owners) = Slices::new([Pair::default()]);
        let mut owner = owners.remove(0);
        owner.unlock();
        let borrowers: Vec<_> = (0..3)
            .map(|_| {
                let mut other = slices.handle(0);
                std::thread::spawn(move || {
                    let mut done = 0;
                    while done < ROUNDS {
                        if other.try_lock() {
                            assert_eq!(other.0, other.1);
                            other.0 += 1;
                            std::hint::black_box(&mut *other);
                            other.1 += 1;
                            other.unlock();
                            done += 1;
                        }
                    }
                })
            })
            .collect();
        for _ in 0..ROUNDS {
            owner.lock();
            assert_eq!(owner.0, owner.1);
            owner.0 += 1;
            owner.1 += 1;
            owner.unlock();
        }
        for borrower in borrowers {
            borrower.join().unwrap();
        }
        owner.lock();
        assert_eq!((owner.0, owner.1), (4 * ROUNDS, 4 * ROUNDS));
    }

    #[test]
    #[should_panic(expected = "a slice is held while it is used")]
    fn a_slice_that_is_not_held_cannot_be_touched() {
        let (_slices, mut owners) = Slices::new([7u8]);
        let mut owner = owners.remove(0);
        owner.unlock();
        let _ = *owner;
    }
}
