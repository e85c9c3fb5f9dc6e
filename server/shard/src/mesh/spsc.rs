//! A bounded ring from one thread to another: what the channels between shards are made of.
//!
//! One side pushes, one pops, neither waits. Each keeps its own index to itself and publishes it; the other's it reads
//! again only when what it saw last says that there is no room, or nothing to take. So a push or a pop that finds both
//! touches one line that the other side writes.
//!
//! Compiled here, and again under loom, which tries every interleaving (`server/loom`).

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

/// [`std::cell::UnsafeCell`] with the face of loom's.
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

/// An index alone on its cache lines: they are fetched in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Index(AtomicUsize);

#[derive(Debug)]
struct Shared<T> {
    /// Values ever popped. Written by the consumer.
    popped: Index,
    /// Values ever pushed. Written by the producer.
    pushed: Index,
    /// Value `n` lies in slot `n % len`; those from `popped` to `pushed` are there. A power of two of them.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is written by the one producer before it publishes `pushed` (release), and read by the one consumer
// after it has seen that (acquire); the other way round for `popped`. So sharing the ring is handing `T` over.
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
            // SAFETY: both sides are gone, and the values between the two indices were pushed and not popped.
            self.slot(number).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
        }
    }
}

/// The side that pushes.
#[derive(Debug)]
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// As published.
    pushed: usize,
    /// As last seen.
    popped: usize,
}

/// The side that pops.
#[derive(Debug)]
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// As published.
    popped: usize,
    /// As last seen.
    pushed: usize,
}

/// A ring with room for `capacity` values, a power of two.
#[must_use]
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two());
    let shared = Arc::new(Shared {
        popped: Index(AtomicUsize::new(0)),
        pushed: Index(AtomicUsize::new(0)),
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let producer = Producer { shared: Arc::clone(&shared), pushed: 0, popped: 0 };
    (producer, Consumer { shared, popped: 0, pushed: 0 })
}

impl<T> Producer<T> {
    /// Hand a value over.
    ///
    /// # Errors
    /// The value, when the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        let capacity = self.shared.slots.len();
        if self.pushed.wrapping_sub(self.popped) == capacity {
            self.popped = self.shared.popped.0.load(Ordering::Acquire);
            if self.pushed.wrapping_sub(self.popped) == capacity {
                return Err(value);
            }
        }
        // SAFETY: fewer than `capacity` values lie between `popped`, which the consumer has published, and `pushed`: so
        // it is done with this slot, and does not look at it before the store below.
        self.shared.slot(self.pushed).with_mut(|slot| unsafe { (*slot).write(value) });
        self.pushed = self.pushed.wrapping_add(1);
        self.shared.pushed.0.store(self.pushed, Ordering::Release);
        Ok(())
    }

    /// Whether every value has been popped. What the consumer did before it popped the last is visible then.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.popped.0.load(Ordering::Acquire) == self.pushed
    }
}

impl<T> Consumer<T> {
    /// The next value, if one has been handed over.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.popped == self.pushed {
            self.pushed = self.shared.pushed.0.load(Ordering::Acquire);
            if self.popped == self.pushed {
                return None;
            }
        }
        // SAFETY: `pushed`, as the producer has published it, is past this slot: it was written, and is not written
        // again before the store below.
        let value = self.shared.slot(self.popped).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.popped = self.popped.wrapping_add(1);
        self.shared.popped.0.store(self.popped, Ordering::Release);
        Some(value)
    }

    /// Whether there is nothing to pop.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.popped == self.pushed && self.shared.pushed.0.load(Ordering::Acquire) == self.popped
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::ring;

    #[test]
    fn values_come_out_in_order_and_a_full_ring_gives_them_back() {
        let (mut producer, mut consumer) = ring(4);
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
    fn what_nobody_popped_is_dropped_with_the_ring() {
        let value = Arc::new(());
        let (mut producer, mut consumer) = ring(4);
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
        let (mut producer, mut consumer) = ring(32);
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
