//! Has the kernel provide the memory a filling store is about to use for the first time, and take back what a full one has
//! to give up.
//!
//! The kernel clears such memory on first touch, a huge page in a fifth of a millisecond in which the core would answer
//! nobody; to take back a part of one it has to split it, thirty microseconds. One thread for all shards waits for that
//! instead, a page ahead of each; it sleeps for good once the stores are as large as they get. Where it comes too late, the
//! core waits as ever.

use corecached_engine::PageWork;
use crossbeam_channel::{Receiver, Sender, bounded};

/// Work on the way, of all shards; past it pages are left to first touch, and to be offered again.
const WAITING_MAX: usize = 64;

/// The way from the shards to the thread.
#[derive(Debug)]
pub struct Paging {
    offered: Sender<PageWork>,
    taken: Receiver<PageWork>,
}

impl Default for Paging {
    fn default() -> Self {
        let (offered, taken) = bounded(WAITING_MAX);
        Self { offered, taken }
    }
}

impl Paging {
    /// Have it carried out soon, if there is room for it in the queue.
    pub fn offer(&self, work: PageWork) {
        let _ = self.offered.try_send(work);
    }

    /// Carries out what is offered, for as long as the process lives. For a thread of its own.
    pub fn run(&self) {
        while let Ok(work) = self.taken.recv() {
            work.carry_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use corecached_engine::{Key, KeyHasher, Seconds, Store, StoreConfig, StoreHow};

    use super::{Paging, WAITING_MAX};

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
            if offered > WAITING_MAX {
                break;
            }
        }
        assert_eq!(paging.taken.len(), WAITING_MAX);
    }
}
