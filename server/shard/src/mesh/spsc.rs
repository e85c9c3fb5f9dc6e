//! A bounded channel with one producer and one consumer. The channels between shards are made of it.
//!
//! One thread pushes and one pops; neither waits. Each side keeps a private copy of its own index and
//! publishes it. It reads the index of the other side again only when the value that it read last says that
//! the channel is full, or empty. So most calls touch only one cache line that the other side writes.
//!
//! This file is also compiled by `server/shard/loom`, where loom tries every interleaving.

use std::mem::MaybeUninit;

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// [`std::cell::UnsafeCell`] with the methods of loom's type of that name.
#[cfg(not(loom))]
#[derive(Debug)]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    fn with_mut<R>(&self, work: impl FnOnce(*mut T) -> R) -> R {
        work(self.0.get())
    }
}

/// An index with cache lines of its own. 128 bytes, because CPUs fetch lines of 64 bytes in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Index(AtomicUsize);

#[derive(Debug)]
struct Shared<T> {
    /// Number of values popped so far, modulo 2^64. Written by the consumer.
    popped: Index,
    /// Number of values pushed so far, modulo 2^64. Written by the producer.
    pushed: Index,
    /// Value number `n` is in slot `n % len`, which holds a value when `popped <= n < pushed`. `len` is a
    /// power of two.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: the one producer writes a slot before it publishes `pushed` (release), and the one consumer reads
// it after it has read that value (acquire). `popped` works in the same way in the other direction. So the
// two threads never access a slot at the same time, and a value only moves from one thread to the other.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, number: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[number & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (popped, pushed) = (self.popped.0.load(Ordering::Acquire), self.pushed.0.load(Ordering::Acquire));
        for number in popped..pushed {
            // SAFETY: both ends are gone, and the values between the two indices were pushed and not popped.
            self.slot(number).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
        }
    }
}

/// The end of a channel that pushes values.
#[derive(Debug)]
pub(super) struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Equal to [`Shared::pushed`].
    pushed: usize,
    /// [`Shared::popped`] as it was read last.
    popped: usize,
}

/// The end of a channel that pops values.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// Equal to [`Shared::popped`].
    popped: usize,
    /// [`Shared::pushed`] as it was read last.
    pushed: usize,
}

/// A channel with room for `capacity` values, which must be a power of two.
#[must_use]
pub(super) fn channel<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two(), "an index is masked with the capacity");
    let shared = Arc::new(Shared {
        popped: Index(AtomicUsize::new(0)),
        pushed: Index(AtomicUsize::new(0)),
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let producer = Producer { shared: Arc::clone(&shared), pushed: 0, popped: 0 };
    (producer, Consumer { shared, popped: 0, pushed: 0 })
}

impl<T> Producer<T> {
    /// Appends a value.
    ///
    /// # Errors
    /// Returns the value when the channel is full.
    #[inline]
    pub(super) fn push(&mut self, value: T) -> Result<(), T> {
        let capacity = self.shared.slots.len();
        if self.pushed.wrapping_sub(self.popped) == capacity {
            self.popped = self.shared.popped.0.load(Ordering::Acquire);
            if self.pushed.wrapping_sub(self.popped) == capacity {
                return Err(value);
            }
        }
        // SAFETY: there are fewer than `capacity` values between `popped`, which the consumer has published,
        // and `pushed`. So the consumer has read this slot, and does not access it again before the store
        // below.
        self.shared.slot(self.pushed).with_mut(|slot| unsafe { (*slot).write(value) });
        self.pushed = self.pushed.wrapping_add(1);
        self.shared.pushed.0.store(self.pushed, Ordering::Release);
        Ok(())
    }

    /// Whether every value has been popped. Then all that the consumer did before it popped the last value is
    /// visible to this thread.
    #[inline]
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.shared.popped.0.load(Ordering::Acquire) == self.pushed
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value. `None` when the channel is empty.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.popped == self.pushed {
            self.pushed = self.shared.pushed.0.load(Ordering::Acquire);
            if self.popped == self.pushed {
                return None;
            }
        }
        // SAFETY: `pushed`, which the producer has published, is after this slot. So the slot was written,
        // and the producer does not write it again before the store below.
        let value = self.shared.slot(self.popped).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.popped = self.popped.wrapping_add(1);
        self.shared.popped.0.store(self.popped, Ordering::Release);
        Some(value)
    }

    /// Whether the channel is empty.
    #[inline]
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.popped == self.pushed && self.shared.pushed.0.load(Ordering::Acquire) == self.popped
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::channel;

    #[test]
    fn values_come_out_in_order_and_a_full_channel_gives_them_back() {
        let (mut producer, mut consumer) = channel(4);
        for round in 0..10 {
            assert!(producer.is_empty() && consumer.is_empty());
            for number in 0..4 {
                assert_eq!(producer.push(10 * round + number), Ok(()));
            }
            assert_eq!(producer.push(99), Err(99));
            assert!(!producer.is_empty() && !consumer.is_empty());
            assert_eq!(consumer.pop(), Some(10 * round));
            assert_eq!(producer.push(10 * round + 4), Ok(()));
            for number in 1..=4 {
                assert_eq!(consumer.pop(), Some(10 * round + number));
            }
            assert_eq!(consumer.pop(), None);
        }
    }

    #[test]
    fn values_that_were_not_popped_are_dropped_with_the_channel() {
        let value = Arc::new(());
        let (mut producer, mut consumer) = channel(4);
        for _ in 0..6 {
            producer.push(Arc::clone(&value)).unwrap();
            consumer.pop().unwrap();
        }
        producer.push(Arc::clone(&value)).unwrap();
        producer.push(Arc::clone(&value)).unwrap();
        drop(producer);
        assert_eq!(Arc::strong_count(&value), 3);
        drop(consumer);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn two_threads_lose_and_repeat_nothing() {
        const VALUES: u64 = 1_000_000;
        let (mut producer, mut consumer) = channel(32);
        let pusher = std::thread::spawn(move || {
            for number in 0..VALUES {
                let mut value = Box::new(number);
                while let Err(back) = producer.push(value) {
                    value = back;
                    std::thread::yield_now();
                }
            }
        });
        for number in 0..VALUES {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*value, number);
        }
        pusher.join().unwrap();
        assert_eq!(consumer.pop(), None);
    }
}
