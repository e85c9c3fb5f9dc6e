//! A shard's store, held by its owner while awake and lent to whoever asks while the owner sleeps.
//!
//! Waking a sleeping core costs more than the work it would do. So each slice has one lock word: its owner holds it
//! while awake and gives it up to sleep; a peer that finds it free works on the store itself for the rest of its
//! batch. Nobody ever waits for it but an owner that wakes up, and that only for the end of a batch. Under load all
//! owners are awake and the word is never touched.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::lock::Lock;

/// A value and the lock word that says who may touch it; alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Slice<T> {
    lock: Lock,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only through a `Lent` that holds `lock`, which one at a time can; so sharing a slice is
// handing `T` from thread to thread.
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
    /// A slice for each of `values`, in order, and its owner's hold on it, which is held from the start.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = T>) -> (Self, Vec<Lent<T>>) {
        let slice = |value| Slice { lock: Lock::held(), value: UnsafeCell::new(value) };
        let slices = Self(values.into_iter().map(slice).collect());
        // One hold a slice, and no other way makes a hold that is held without taking the lock.
        let owners =
            (0..slices.0.len()).map(|shard| Lent { slices: slices.clone(), shard, held: true }).collect();
        (slices, owners)
    }

    /// A hold on the slice of `shard`, not taken yet.
    #[must_use]
    pub fn other(&self, shard: usize) -> Lent<T> {
        assert!(shard < self.0.len(), "there is no such slice");
        Lent { slices: self.clone(), shard, held: false }
    }
}

/// One shard's way to a slice. Reaches the value only while it holds the lock.
#[derive(Debug)]
pub struct Lent<T> {
    slices: Slices<T>,
    shard: usize,
    held: bool,
}

impl<T> Lent<T> {
    /// Whether the value may be used now.
    #[inline]
    #[must_use]
    pub const fn held(&self) -> bool {
        self.held
    }

    /// Take the slice if nobody has it; true when it is held now.
    #[inline]
    pub fn try_take(&mut self) -> bool {
        self.held = self.held || self.slices.0[self.shard].lock.try_take();
        self.held
    }

    /// Take the slice, waiting for the end of a peer's batch if need be.
    #[inline]
    pub fn take(&mut self) {
        if !self.held {
            self.slices.0[self.shard].lock.take();
            self.held = true;
        }
    }

    /// Give the slice up.
    #[inline]
    pub fn give_up(&mut self) {
        if self.held {
            self.held = false;
            self.slices.0[self.shard].lock.give_up();
        }
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl<T> Deref for Lent<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        assert!(self.held);
        // SAFETY: we hold the lock, so no other `Lent` reaches the value, and this one is borrowed.
        unsafe { &*self.slices.0[self.shard].value.get() }
    }
}

impl<T> DerefMut for Lent<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        assert!(self.held);
        // SAFETY: as above, and this one is borrowed mutably.
        unsafe { &mut *self.slices.0[self.shard].value.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two numbers that are equal whenever nobody is at work.
    #[derive(Debug, Default)]
    struct Pair(u64, u64);

    #[test]
    fn one_at_a_time_works_on_a_slice_however_many_want_it() {
        const ROUNDS: u64 = 20_000;
        let (slices, mut owners) = Slices::new([Pair::default()]);
        let mut owner = owners.remove(0);
        owner.give_up();
        let borrowers: Vec<_> = (0..3)
            .map(|_| {
                let mut other = slices.other(0);
                std::thread::spawn(move || {
                    let mut done = 0;
                    while done < ROUNDS {
                        if other.try_take() {
                            assert_eq!(other.0, other.1);
                            other.0 += 1;
                            std::hint::black_box(&mut *other);
                            other.1 += 1;
                            other.give_up();
                            done += 1;
                        }
                    }
                })
            })
            .collect();
        for _ in 0..ROUNDS {
            owner.take();
            assert_eq!(owner.0, owner.1);
            owner.0 += 1;
            owner.1 += 1;
            owner.give_up();
        }
        for borrower in borrowers {
            borrower.join().unwrap();
        }
        owner.take();
        assert_eq!((owner.0, owner.1), (4 * ROUNDS, 4 * ROUNDS));
    }

    #[test]
    #[should_panic(expected = "self.held")]
    fn a_slice_that_is_not_held_cannot_be_touched() {
        let (_slices, mut owners) = Slices::new([7u8]);
        let mut owner = owners.remove(0);
        owner.give_up();
        let _ = *owner;
    }
}
