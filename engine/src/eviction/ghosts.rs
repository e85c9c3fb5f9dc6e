//! Ghosts: fingerprints of items dropped from the admission queue.
//!
//! One that comes back while its ghost is there was dropped too early and goes to the main queue. Lines of
//! 16, the oldest replaced; 4 bytes each. A false match (1 in 65,000 per lookup) only admits an item early.

/// Bytes of store per ghost: about one for every second item of a production trace.
const STORE_BYTES_PER_GHOST: usize = 460;
const LINE: usize = 16;
const EPOCH_BITS: u32 = 12;
const EPOCH_MASK: u32 = (1 << EPOCH_BITS) - 1;
/// Epochs per turn-over of all ghosts: how finely "oldest" is told.
const EPOCHS_PER_TURN: usize = 64;

/// A cache line of ghosts: fingerprint in the high 20 bits, epoch in the low 12; 0 is empty.
#[derive(Clone)]
#[repr(align(64))]
struct Line([u32; LINE]);

const _: () = assert!(size_of::<Line>() == 64);

/// The memory of what was dropped.
pub(crate) struct Ghosts {
    lines: Vec<Line>,
    epoch: u32,
    /// Additions left in this epoch.
    epoch_left: usize,
}

impl Ghosts {
    /// Sized for a store of this many bytes; 0 keeps none.
    pub(crate) fn new(store_bytes: usize) -> Ghosts {
        let lines = store_bytes / STORE_BYTES_PER_GHOST / LINE;
        Ghosts { lines: vec![Line([0; LINE]); lines], epoch: 1, epoch_left: 0 }
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    fn line_of(&self, hash: u64) -> usize {
        ((hash & u64::from(u32::MAX)) as usize * self.lines.len()) >> 32
    }

    /// 20 bits, disjoint from those that choose the line in all but the largest stores.
    fn fingerprint(hash: u64) -> u32 {
        ((hash >> 28) as u32) << EPOCH_BITS
    }

    /// Remembers a dropped item.
    pub(crate) fn add(&mut self, hash: u64) {
        if self.lines.is_empty() {
            return;
        }
        if self.epoch_left == 0 {
            self.epoch_left = (self.lines.len() * LINE / EPOCHS_PER_TURN).max(1);
            self.epoch = (self.epoch & EPOCH_MASK) % EPOCH_MASK + 1;
        }
        self.epoch_left -= 1;
        let epoch = self.epoch;
        let at = self.line_of(hash);
        let age = |ghost: &u32| if *ghost == 0 { u32::MAX } else { epoch.wrapping_sub(*ghost) & EPOCH_MASK };
        if let Some(oldest) = self.lines[at].0.iter_mut().max_by_key(|ghost| age(ghost)) {
            *oldest = Ghosts::fingerprint(hash) | epoch;
        }
    }

    /// Whether the item was dropped lately; its ghost goes.
    pub(crate) fn take(&mut self, hash: u64) -> bool {
        if self.lines.is_empty() {
            return false;
        }
        let fingerprint = Ghosts::fingerprint(hash);
        let at = self.line_of(hash);
        let same = |ghost: &&mut u32| **ghost != 0 && **ghost & !EPOCH_MASK == fingerprint;
        let ghost = self.lines[at].0.iter_mut().find(same);
        ghost.map(|ghost| *ghost = 0).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn a_dropped_item_is_known_once() {
        let mut ghosts = Ghosts::new(1 << 20);
        ghosts.add(hash(5));
        assert!(ghosts.take(hash(5)));
        assert!(!ghosts.take(hash(5)));
    }

    #[test]
    fn the_oldest_ghosts_go_first() {
        let mut ghosts = Ghosts::new(1 << 20);
        for n in 0..100_000 {
            ghosts.add(hash(n));
        }
        let known = (99_000..100_000).filter(|&n| ghosts.take(hash(n))).count();
        assert!(known > 950, "{known} of the last 1000");
        let old = (0..50_000).filter(|&n| ghosts.take(hash(n))).count();
        assert!(old < 100, "{old} of the first 50000");
    }

    #[test]
    fn no_memory_no_ghosts() {
        let mut ghosts = Ghosts::new(0);
        ghosts.add(1);
        assert!(!ghosts.take(1));
        assert_eq!(ghosts.bytes(), 0);
    }
}
