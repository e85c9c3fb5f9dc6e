//! Ghosts: fingerprints of items dropped from the admission queue.
//!
//! An item that is stored again while its ghost is kept was dropped too early, and goes to the main queue.
//! The ghosts are a table of lines of 16, of 4 bytes each; the oldest of a line is replaced. A false match,
//! of one lookup in 65,000, does no more than put a new item into the main queue.

use std::io;

use super::GOLDEN_RATIO;
use crate::arena::Arena;

/// Bytes of store per ghost: on a production trace one ghost for about two items.
const STORE_BYTES_PER_GHOST: usize = 460;
/// Ghosts in a line.
const LINE: usize = 16;
const EPOCH_BITS: u32 = 12;
const EPOCH_MASK: u32 = (1 << EPOCH_BITS) - 1;
const FINGERPRINT_MASK: u32 = !0 << EPOCH_BITS;
/// Epochs in which as many ghosts are added as the table holds. More would compare ages more exactly.
const EPOCHS_PER_TURN: usize = 64;

/// Bytes of a ghost: the fingerprint in the high 20 bits, the epoch in the low 12; 0 is an empty slot.
const GHOST_BYTES: usize = size_of::<u32>();
const LINE_BYTES: usize = LINE * GHOST_BYTES;

/// Until ghosts prove useful, only hashes with this many bits 0 are remembered, in an eighth of the memory.
const SAMPLE_BITS: u32 = 3;
/// Position of those bits in a hash.
const SAMPLE_SHIFT: u32 = 45;
/// Additions after which the use of ghosts is measured, while sampling.
const TRIAL: u32 = 256;
/// Ghosts are worth their memory if more than one in this many is found again.
const TRIAL_FRACTION: u32 = 64;

/// The fingerprints of items that were dropped.
pub(crate) struct Ghosts {
    /// A mapping of its own, which the kernel zeroes page by page; to zero so large an array at once would
    /// stop the store.
    arena: Arena,
    lines: usize,
    /// Lines after ghosts have proved useful.
    lines_max: usize,
    sampling: bool,
    /// Additions and hits of the trial so far.
    added: u32,
    hits: u32,
    epoch: u32,
    /// Additions left in this epoch.
    epoch_left: usize,
    /// Lines charged to the store's memory. After the trial they are charged one by one, as they fill, so
    /// that eviction makes room for them gradually.
    charged: usize,
    /// Additions until the next line is charged.
    charged_left: usize,
}

impl Ghosts {
    /// Ghosts for a store of this many bytes. With 0 none are kept.
    ///
    /// # Errors
    /// The kernel's, when it refuses the address space.
    pub(crate) fn new(store_bytes: usize) -> io::Result<Ghosts> {
        let lines_max = store_bytes / STORE_BYTES_PER_GHOST / LINE;
        let lines = lines_max.div_ceil(1 << SAMPLE_BITS);
        Ok(Ghosts {
            arena: Arena::new(lines_max * LINE_BYTES)?,
            lines,
            lines_max,
            sampling: true,
            added: 0,
            hits: 0,
            epoch: 1,
            epoch_left: 0,
            charged: lines,
            charged_left: LINE,
        })
    }

    /// Bytes charged to the store's memory.
    pub(crate) fn bytes(&self) -> usize {
        self.charged * LINE_BYTES
    }

    /// Arena offset of the line of this hash.
    fn line_of(&self, hash: u64) -> usize {
        (((hash & u64::from(u32::MAX)) as usize * self.lines) >> 32) * LINE_BYTES
    }

    /// The ghosts in the line at arena offset `at`.
    fn line(&self, at: usize) -> [u32; LINE] {
        let (ghosts, _) = self.arena.bytes(at, LINE_BYTES).as_chunks::<GHOST_BYTES>();
        std::array::from_fn(|slot| u32::from_le_bytes(ghosts[slot]))
    }

    fn set(&mut self, line: usize, slot: usize, ghost: u32) {
        debug_assert!(slot < LINE);
        self.arena.bytes_mut(line + slot * GHOST_BYTES, GHOST_BYTES).copy_from_slice(&ghost.to_le_bytes());
    }

    /// 20 bits that do not follow from the low bits of the hash, which choose the line, in the high bits of
    /// the result.
    fn fingerprint(hash: u64) -> u32 {
        let mixed = hash.wrapping_mul(GOLDEN_RATIO);
        (mixed >> (32 + EPOCH_BITS)) as u32 * (1 << EPOCH_BITS)
    }

    /// Whether ghosts of this hash are kept.
    fn is_kept(&self, hash: u64) -> bool {
        self.lines > 0 && (!self.sampling || is_sampled(hash))
    }

    /// Additions in an epoch.
    fn epoch_additions(&self) -> usize {
        (self.lines * LINE / EPOCHS_PER_TURN).max(1)
    }

    /// Remembers an item that was dropped.
    pub(crate) fn add(&mut self, hash: u64) {
        if !self.is_kept(hash) {
            return;
        }
        self.count_addition();
        if self.epoch_left == 0 {
            self.epoch_left = self.epoch_additions();
            self.epoch = (self.epoch & EPOCH_MASK) % EPOCH_MASK + 1;
        }
        self.epoch_left -= 1;
        let epoch = self.epoch;
        let at = self.line_of(hash);
        let age = |ghost: u32| if ghost == 0 { u32::MAX } else { age(epoch, ghost) };
        let line = self.line(at);
        if let Some(oldest) = (0..LINE).max_by_key(|&slot| age(line[slot])) {
            let ghost = Ghosts::fingerprint(hash) | epoch;
            self.set(at, oldest, ghost);
        }
    }

    /// Counts an addition: while sampling to end the trial, and later to charge the next line.
    fn count_addition(&mut self) {
        if !self.sampling {
            self.charged_left -= 1;
            if self.charged_left == 0 {
                self.charged = (self.charged + 1).min(self.lines);
                self.charged_left = LINE;
            }
            return;
        }
        self.added += 1;
        if self.added < TRIAL {
            return;
        }
        if self.hits * TRIAL_FRACTION > self.added {
            self.sampling = false;
            // Ghosts of the sample are in the wrong lines from now on: they are not found, and are replaced
            // as they age.
            self.lines = self.lines_max;
        }
        (self.added, self.hits) = (0, 0);
    }

    /// Whether the item was dropped recently: no more than about `items` drops ago, the number of items in
    /// the store. Removes its ghost.
    pub(crate) fn take(&mut self, hash: u64, items: u64) -> bool {
        if !self.is_kept(hash) {
            return false;
        }
        let fingerprint = Ghosts::fingerprint(hash);
        let items = if self.sampling { items >> SAMPLE_BITS } else { items };
        let age_max = items / self.epoch_additions() as u64 + 1;
        let (at, epoch) = (self.line_of(hash), self.epoch);
        let line = self.line(at);
        let same = |&slot: &usize| line[slot] != 0 && line[slot] & FINGERPRINT_MASK == fingerprint;
        let Some(slot) = (0..LINE).find(same) else { return false };
        let ghost = line[slot];
        let known = u64::from(age(epoch, ghost)) <= age_max;
        self.set(at, slot, 0);
        self.hits += u32::from(known);
        known
    }
}

/// Whether a hash belongs to the eighth of all hashes that is remembered while sampling.
fn is_sampled(hash: u64) -> bool {
    hash >> SAMPLE_SHIFT & ((1 << SAMPLE_BITS) - 1) == 0
}

/// Epochs between the addition of `ghost` and `epoch`.
fn age(epoch: u32, ghost: u32) -> u32 {
    epoch.wrapping_sub(ghost) & EPOCH_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Ghosts after a trial in which every item was stored again at once.
    fn tried(store_bytes: usize) -> Ghosts {
        let mut ghosts = Ghosts::new(store_bytes).unwrap();
        let mut n = 1 << 40;
        while ghosts.sampling {
            ghosts.add(hash(n));
            ghosts.take(hash(n), u64::MAX);
            n += 1;
        }
        ghosts
    }

    #[test]
    fn a_dropped_item_is_known_once() {
        let mut ghosts = tried(1 << 20);
        ghosts.add(hash(5));
        assert!(ghosts.take(hash(5), 1));
        assert!(!ghosts.take(hash(5), 1));
    }

    #[test]
    fn the_oldest_ghosts_go_first() {
        let mut ghosts = tried(1 << 20);
        for n in 0..100_000 {
            ghosts.add(hash(n));
        }
        let known = (99_000..100_000).filter(|&n| ghosts.take(hash(n), 100_000)).count();
        assert!(known > 950, "{known} of the last 1000");
        let old = (0..50_000).filter(|&n| ghosts.take(hash(n), 100_000)).count();
        assert!(old < 100, "{old} of the first 50000");
        assert_eq!(ghosts.bytes(), (1 << 20) / STORE_BYTES_PER_GHOST / LINE * 64);
    }

    #[test]
    fn what_was_dropped_longer_ago_than_the_store_turns_over_is_not_known() {
        let mut ghosts = tried(1 << 20);
        (0..2_000).for_each(|n| ghosts.add(hash(n)));
        let known = (0..1_000).filter(|&n| ghosts.take(hash(n), 100)).count();
        assert!(known == 0, "{known} of those before the last 1000");
        assert!(ghosts.take(hash(1_999), 100));
    }

    #[test]
    fn without_use_they_take_an_eighth_of_the_memory() {
        let mut ghosts = Ghosts::new(1 << 24).unwrap();
        (0..100_000).for_each(|n| ghosts.add(hash(n)));
        assert!(ghosts.sampling && ghosts.bytes() * 7 < tried(1 << 24).lines_max * 64);
    }

    #[test]
    fn no_memory_no_ghosts() {
        let mut ghosts = Ghosts::new(0).unwrap();
        ghosts.add(1);
        assert!(!ghosts.take(1, 1));
        assert_eq!(ghosts.bytes(), 0);
    }
}
