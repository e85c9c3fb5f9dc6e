//! Ghosts: fingerprints of items dropped from the admission queue.
//!
//! One that comes back while its ghost is there was dropped too early and goes to the main queue. Lines of
//! 16, the oldest replaced; 4 bytes each. A false match (1 in 65,000 per lookup) only admits an item early.

use std::io;

use crate::arena::Arena;

/// Bytes of store per ghost: about one for every second item of a production trace.
const STORE_BYTES_PER_GHOST: usize = 460;
const LINE: usize = 16;
const EPOCH_BITS: u32 = 12;
const EPOCH_MASK: u32 = (1 << EPOCH_BITS) - 1;
const FINGERPRINT_MASK: u32 = !0 << EPOCH_BITS;
/// Epochs per turn-over of all ghosts: how finely "oldest" is told.
const EPOCHS_PER_TURN: usize = 64;

/// Bytes of a ghost: fingerprint in the high 20 bits, epoch in the low 12; 0 is empty.
const GHOST_BYTES: usize = size_of::<u32>();
const LINE_BYTES: usize = LINE * GHOST_BYTES;

/// Until ghosts prove useful, only hashes with these bits 0 are remembered, in an eighth of the memory.
const SAMPLE_BITS: u32 = 3;
const SAMPLE_SHIFT: u32 = 45;
/// Additions after which usefulness is judged, while sampling.
const TRIAL: u32 = 256;
/// Worth the memory if one ghost in this many is met again.
const TRIAL_FRACTION: u32 = 64;

/// The memory of what was dropped.
pub(crate) struct Ghosts {
    /// A mapping of its own: zeroing an array that large would stop the store.
    arena: Arena,
    lines: usize,
    /// Lines once they have proved useful.
    lines_max: usize,
    sampling: bool,
    /// Of the trial: additions and hits.
    added: u32,
    hits: u32,
    epoch: u32,
    /// Additions left in this epoch.
    epoch_left: usize,
    /// Lines charged to the store's memory: after the trial they come one by one, as they fill, so that room is
    /// made for them at the pace of eviction.
    charged: usize,
    charged_left: usize,
}

impl Ghosts {
    /// Sized for a store of this many bytes; 0 keeps none.
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

    /// Bytes taken.
    pub(crate) fn bytes(&self) -> usize {
        self.charged * LINE_BYTES
    }

    /// Arena offset of the line of this hash.
    fn line_of(&self, hash: u64) -> usize {
        (((hash & u64::from(u32::MAX)) as usize * self.lines) >> 32) * LINE_BYTES
    }

    /// The ghosts of the line at `at`.
    fn line(&self, at: usize) -> [u32; LINE] {
        let (ghosts, _) = self.arena.bytes(at, LINE_BYTES).as_chunks::<GHOST_BYTES>();
        std::array::from_fn(|place| u32::from_le_bytes(ghosts[place]))
    }

    fn set(&mut self, line: usize, place: usize, ghost: u32) {
        self.arena.bytes_mut(line + place * GHOST_BYTES, GHOST_BYTES).copy_from_slice(&ghost.to_le_bytes());
    }

    /// 20 bits that the rest of the hash, which chooses the line, does not tell.
    fn fingerprint(hash: u64) -> u32 {
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (32 + EPOCH_BITS)) as u32 * (1 << EPOCH_BITS)
    }

    fn is_kept(&self, hash: u64) -> bool {
        self.lines > 0 && (!self.sampling || is_sampled(hash))
    }

    fn epoch_additions(&self) -> usize {
        (self.lines * LINE / EPOCHS_PER_TURN).max(1)
    }

    /// Remembers an item dropped.
    pub(crate) fn add(&mut self, hash: u64) {
        if !self.is_kept(hash) {
            return;
        }
        self.judge_trial();
        if self.epoch_left == 0 {
            self.epoch_left = self.epoch_additions();
            self.epoch = (self.epoch & EPOCH_MASK) % EPOCH_MASK + 1;
        }
        self.epoch_left -= 1;
        let epoch = self.epoch;
        let at = self.line_of(hash);
        let age = |ghost: u32| if ghost == 0 { u32::MAX } else { age(epoch, ghost) };
        let line = self.line(at);
        if let Some(oldest) = (0..LINE).max_by_key(|&place| age(line[place])) {
            let ghost = Ghosts::fingerprint(hash) | epoch;
            self.set(at, oldest, ghost);
        }
    }

    /// Counts an addition: while sampling towards the end of the trial, then towards the next line charged.
    fn judge_trial(&mut self) {
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
            // What the sample left lies in other lines now, unknown, until it is the oldest.
            self.lines = self.lines_max;
        }
        (self.added, self.hits) = (0, 0);
    }

    /// Whether the item was dropped lately: not longer ago than as many drops as the store holds `items`. Its ghost
    /// goes.
    pub(crate) fn take(&mut self, hash: u64, items: u64) -> bool {
        if !self.is_kept(hash) {
            return false;
        }
        let fingerprint = Ghosts::fingerprint(hash);
        let items = if self.sampling { items >> SAMPLE_BITS } else { items };
        let age_max = items / self.epoch_additions() as u64 + 1;
        let (at, epoch) = (self.line_of(hash), self.epoch);
        let line = self.line(at);
        let same = |&place: &usize| line[place] != 0 && line[place] & FINGERPRINT_MASK == fingerprint;
        let Some(place) = (0..LINE).find(same) else { return false };
        let ghost = line[place];
        let known = u64::from(age(epoch, ghost)) <= age_max;
        self.set(at, place, 0);
        self.hits += u32::from(known);
        known
    }
}

/// Whether a hash is one of the eighth that is remembered in any case.
fn is_sampled(hash: u64) -> bool {
    hash >> SAMPLE_SHIFT & ((1 << SAMPLE_BITS) - 1) == 0
}

/// Epochs since a ghost was added.
fn age(epoch: u32, ghost: u32) -> u32 {
    epoch.wrapping_sub(ghost) & EPOCH_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Past its trial: items that come back at once.
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
