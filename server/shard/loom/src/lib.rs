//! Models of `server/shard/src/mesh/lock.rs` and `spsc.rs`: these files themselves, compiled with loom's
//! atomics.

#[path = "../../src/mesh/lock.rs"]
pub mod lock;
#[path = "../../src/mesh/spsc.rs"]
pub mod spsc;

#[cfg(test)]
mod tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    use super::lock::{Bell, Lock};
    use super::spsc::channel;

    /// Runs `run` in every interleaving with at most three preemptions. That finds nearly all bugs, and takes
    /// seconds.
    fn model(run: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        let tried = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&tried);
        builder.check(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            run();
        });
        let tried = tried.load(std::sync::atomic::Ordering::Relaxed);
        println!("{}: {tried} interleavings", std::thread::current().name().unwrap_or_default());
    }

    struct Slice {
        lock: Lock,
        value: UnsafeCell<u32>,
    }

    // SAFETY: the value is touched only with the lock held; that this is enough is what loom checks.
    unsafe impl Sync for Slice {}

    impl Slice {
        fn add(&self) {
            self.value.with_mut(|value| {
                // SAFETY: the caller holds the lock; loom panics if another access overlaps.
                unsafe { *value += 1 }
            });
        }
    }

    #[test]
    fn owner_and_borrowers_never_touch_a_slice_together_and_see_each_others_writes() {
        model(|| {
            let slice = Arc::new(Slice { lock: Lock::new_held(), value: UnsafeCell::new(0) });
            let borrowed = Arc::new(AtomicUsize::new(0));
            let borrowers: Vec<_> = (0..2)
                .map(|_| {
                    let (slice, borrowed) = (Arc::clone(&slice), Arc::clone(&borrowed));
                    thread::spawn(move || {
                        if slice.lock.try_lock() {
                            slice.add();
                            borrowed.fetch_add(1, Ordering::Relaxed);
                            slice.lock.unlock();
                        }
                    })
                })
                .collect();
            slice.add(); // awake
            slice.lock.unlock(); // asleep
            slice.lock.lock(); // awake again
            slice.add();
            slice.lock.unlock();
            for borrower in borrowers {
                borrower.join().unwrap();
            }
            slice.lock.lock();
            let borrowed = borrowed.load(Ordering::Relaxed) as u32;
            // SAFETY: the lock is held.
            slice.value.with(|value| assert_eq!(unsafe { *value }, 2 + borrowed));
        });
    }

    #[test]
    fn a_shard_never_sleeps_on_work_that_nobody_will_wake_it_for() {
        model(|| {
            let bell = Arc::new(Bell::new());
            let work = Arc::new(AtomicUsize::new(0));
            let rung = Arc::new(AtomicUsize::new(0));
            let publishers: Vec<_> = (0..2)
                .map(|_| {
                    let (bell, work, rung) = (Arc::clone(&bell), Arc::clone(&work), Arc::clone(&rung));
                    thread::spawn(move || {
                        work.fetch_add(1, Ordering::Release);
                        if bell.must_ring() {
                            rung.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            bell.arm();
            let seen = work.load(Ordering::Acquire);
            let sleeps = seen == 0;
            if !sleeps {
                bell.disarm();
            }
            for publisher in publishers {
                publisher.join().unwrap();
            }
            if sleeps {
                assert_eq!(rung.load(Ordering::Relaxed), 1, "asleep with work, woken by nobody or twice");
            }
        });
    }

    #[test]
    fn an_owner_that_sleeps_finds_what_a_borrower_left_it() {
        // A borrower that could not take the slice publishes instead: the owner sees one or the other.
        model(|| {
            let slice = Arc::new(Slice { lock: Lock::new_held(), value: UnsafeCell::new(0) });
            let (bell, work) = (Arc::new(Bell::new()), Arc::new(AtomicUsize::new(0)));
            let peer = {
                let (slice, bell, work) = (Arc::clone(&slice), Arc::clone(&bell), Arc::clone(&work));
                thread::spawn(move || {
                    if slice.lock.try_lock() {
                        slice.add();
                        slice.lock.unlock();
                        return false;
                    }
                    work.fetch_add(1, Ordering::Release);
                    bell.must_ring()
                })
            };
            bell.arm();
            let sleeps = work.load(Ordering::Acquire) == 0;
            if sleeps {
                slice.lock.unlock();
            }
            let rung = peer.join().unwrap();
            if !sleeps {
                bell.disarm();
                slice.lock.unlock();
            }
            slice.lock.lock();
            // SAFETY: the lock is held.
            let done = slice.value.with(|value| unsafe { *value });
            assert!(done == 1 || work.load(Ordering::Acquire) == 1);
            assert!(!sleeps || done == 1 || rung, "asleep with work");
        });
    }

    #[test]
    fn a_channel_hands_over_every_value_once_and_in_order_also_when_it_was_full() {
        model(|| {
            let (mut producer, mut consumer) = channel(2);
            let pusher = thread::spawn(move || {
                let mut number = 0;
                for _ in 0..5 {
                    // Boxed: a value read twice or before it was written is then an error of its own.
                    number += u32::from(producer.push(Box::new(number)).is_ok());
                }
                number
            });
            let mut popped = 0;
            for _ in 0..3 {
                if let Some(value) = consumer.pop() {
                    assert_eq!(*value, popped);
                    popped += 1;
                }
            }
            let pushed = pusher.join().unwrap();
            while let Some(value) = consumer.pop() {
                assert_eq!(*value, popped);
                popped += 1;
            }
            assert_eq!(popped, pushed);
            assert!(pushed >= 2);
        });
    }

    #[test]
    fn what_a_full_channel_holds_is_dropped_with_it_by_the_end_that_goes_last() {
        model(|| {
            let value = Arc::new(());
            let (mut producer, mut consumer) = channel(2);
            let pushed = Arc::clone(&value);
            let pusher = thread::spawn(move || {
                let _ = producer.push(Arc::clone(&pushed));
                let _ = producer.push(pushed);
            });
            drop(consumer.pop());
            drop(consumer);
            pusher.join().unwrap();
            assert_eq!(Arc::strong_count(&value), 1);
        });
    }

    #[test]
    fn a_shard_that_sleeps_on_an_empty_channel_is_woken_for_what_is_pushed() {
        model(|| {
            let bell = Arc::new(Bell::new());
            let (mut producer, consumer) = channel(2);
            let publisher = {
                let bell = Arc::clone(&bell);
                thread::spawn(move || {
                    producer.push(7).unwrap();
                    bell.must_ring()
                })
            };
            bell.arm();
            let sleeps = consumer.is_empty();
            let rung = publisher.join().unwrap();
            assert!(!sleeps || rung, "asleep with work");
        });
    }

    #[test]
    fn a_borrower_that_finds_the_channel_empty_and_the_slice_free_finds_the_work_done() {
        model(|| {
            let slice = Arc::new(Slice { lock: Lock::new_held(), value: UnsafeCell::new(0) });
            let (mut producer, mut consumer) = channel(2);
            let owner = {
                let slice = Arc::clone(&slice);
                thread::spawn(move || {
                    let taken = consumer.pop();
                    if taken.is_some() {
                        slice.add();
                    }
                    slice.lock.unlock();
                })
            };
            producer.push(()).unwrap();
            // The lock first: what was taken from the channel before it was free has been done.
            if slice.lock.try_lock() && producer.is_empty() {
                // SAFETY: the lock is held.
                slice.value.with(|value| assert_eq!(unsafe { *value }, 1));
            }
            owner.join().unwrap();
        });
    }
}
