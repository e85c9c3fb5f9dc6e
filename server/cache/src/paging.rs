//! Has the kernel provide memory before a store uses it for the first time, and take memory back that a store
//! gives up.
//!
//! The kernel clears memory on first touch. For a huge page that takes a fifth of a millisecond, in which the
//! core would answer no request. To take back a part of a huge page it has to split it, which takes thirty
//! microseconds. So one thread does both for all shards, a page ahead of each. Once the stores have their
//! full size, it only sleeps. When it comes too late, the core of the shard waits for the kernel itself.

use corecached_engine::PageWork;
use crossbeam_channel::{Receiver, Sender, bounded};

/// Most pieces of work in the queue, of all shards together. Past it, pages are left to first touch, and
/// memory to take back is offered again later.
const QUEUE_MAX: usize = 64;

/// The queue of work from the shards to the thread.
#[derive(Debug)]
pub struct Paging {
    sender: Sender<PageWork>,
    receiver: Receiver<PageWork>,
}

impl Default for Paging {
    fn default() -> Self {
        let (sender, receiver) = bounded(QUEUE_MAX);
        Self { sender, receiver }
    }
}

impl Paging {
    /// Has the thread carry out `work`, unless the queue is full.
    pub(crate) fn offer(&self, work: PageWork) {
        let _ = self.sender.try_send(work);
    }

    /// Carries out the work in the queue for as long as the process lives. For a thread of its own.
    pub fn run(&self) {
        while let Ok(work) = self.receiver.recv() {
            work.carry_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use corecached_engine::{Key, KeyHasher, Seconds, Store, StoreConfig, StoreHow};

    use super::{Paging, QUEUE_MAX};

    #[test]
    fn more_than_the_queue_holds_is_left_to_first_touch() {
        let paging = Paging::default();
        let hasher = KeyHasher::new(1);
        let mut store = Store::new(StoreConfig::new(1 << 30, hasher.clone()), Seconds(1)).unwrap();
        let mut offered = 0;
        for number in 0..=u32::MAX {
            let name = number.to_ne_bytes();
            let key = Key { bytes: &name, hash: hasher.hash(&name) };
            store.store(key, &[7; 100_000], &StoreHow::default(), Seconds(1));
            if let Some(work) = store.next_page_work() {
                paging.offer(work);
                offered += 1;
            }
            if offered > QUEUE_MAX {
                break;
            }
        }
        assert_eq!(paging.receiver.len(), QUEUE_MAX);
    }
}
