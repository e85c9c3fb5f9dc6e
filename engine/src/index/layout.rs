//! The line and tag of a hash in an index table of any size, and the way back.
//!
//! A table has `steps` x 2^(octave - 4) lines with 16 to 31 steps, so that sizes are 3 to 6 % apart. The
//! hash, taken as a fraction, is multiplied by the number of lines. This keeps the order of hashes, so that a
//! table can be stretched in place in one pass. Line and tag together contain every bit of the hash that was
//! used, so that stretching reads no keys, except once per octave, when one more bit is used.

/// Bits of a hash that the index uses; those above choose the store.
const HASH_BITS: u32 = 48;
/// Bits of a tag.
pub(super) const TAG_BITS: u32 = 13;
/// Tags are below this.
pub(super) const TAG_MASK: u16 = (1 << TAG_BITS) - 1;
/// Binary logarithm of [`STEPS`].
const STEP_BITS: u32 = 4;
/// Table sizes per octave (doubling).
const STEPS: u64 = 1 << STEP_BITS;
/// Bits below the line number in a position.
const LINE_SHIFT: u32 = TAG_BITS + STEP_BITS;
const OCTAVE_MAX: u32 = HASH_BITS - TAG_BITS;

/// A size of the table, and with it the homes of all hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// 16 to 31.
    steps: u64,
    /// At least 4: 16 lines.
    octave: u32,
    /// Low bits of the hash that this size does not use.
    shift: u32,
}

/// The line where an entry belongs, and its tag there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Home {
    pub(super) line: usize,
    pub(super) tag: u16,
}

impl Layout {
    /// The smallest table: 16 lines, 1 KiB.
    pub(super) const SMALLEST: Layout = Layout::new(STEPS, STEP_BITS);

    const fn new(steps: u64, octave: u32) -> Layout {
        Layout { steps, octave, shift: HASH_BITS - TAG_BITS - octave }
    }

    /// The next size up.
    pub(super) fn larger(self) -> Layout {
        if self.steps + 1 < 2 * STEPS {
            return Layout::new(self.steps + 1, self.octave);
        }
        assert!(self.octave < OCTAVE_MAX);
        Layout::new(STEPS, self.octave + 1)
    }

    /// The next size down; `None` for the smallest.
    pub(super) fn smaller(self) -> Option<Layout> {
        match (self.steps, self.octave) {
            (STEPS, STEP_BITS) => None,
            (STEPS, octave) => Some(Layout::new(2 * STEPS - 1, octave - 1)),
            (steps, octave) => Some(Layout::new(steps - 1, octave)),
        }
    }

    /// Lines that are the home of some hash.
    pub(super) fn lines(self) -> usize {
        ((self.steps << self.octave) >> STEP_BITS) as usize
    }

    /// Number of bits in a prefix.
    pub(super) fn prefix_bits(self) -> u32 {
        self.octave + TAG_BITS
    }

    /// The prefix of a hash: its bits that this size uses.
    #[inline]
    pub(super) fn prefix(self, hash: u64) -> u64 {
        (hash & ((1 << HASH_BITS) - 1)) >> self.shift
    }

    /// The home of entries with this prefix.
    #[inline]
    pub(super) fn home(self, prefix: u64) -> Home {
        let position = prefix * self.steps;
        Home { line: (position >> LINE_SHIFT) as usize, tag: (position >> STEP_BITS) as u16 & TAG_MASK }
    }

    /// The prefix of entries with this home. It is the only one: prefixes are at least one tag apart.
    #[inline]
    pub(super) fn prefix_at(self, home: Home) -> u64 {
        let position = (home.line as u64) << LINE_SHIFT | u64::from(home.tag) << STEP_BITS;
        position.div_ceil(self.steps)
    }

    /// The smallest prefix with its home in this line.
    pub(super) fn prefix_from(self, line: usize) -> u64 {
        self.prefix_at(Home { line, tag: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_rise_by_a_thirtysecond_to_a_sixteenth_and_fall_the_same_way() {
        let mut layout = Layout::SMALLEST;
        assert_eq!((layout.lines(), layout.smaller()), (16, None));
        for _ in 0..300 {
            let larger = layout.larger();
            let gain = larger.lines() - layout.lines();
            assert!(gain * 32 >= layout.lines() && gain * 16 <= layout.lines());
            assert_eq!(larger.smaller(), Some(layout));
            assert!(larger.prefix_bits() <= HASH_BITS);
            layout = larger;
        }
    }

    #[test]
    fn a_home_gives_back_its_prefix_and_moves_up_when_the_table_grows() {
        let mut hash = 0x9e37_79b9_7f4a_7c15u64;
        let mut layout = Layout::SMALLEST;
        for _ in 0..400 {
            let larger = layout.larger();
            for _ in 0..1000 {
                hash = hash.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
                let prefix = layout.prefix(hash >> 3);
                let home = layout.home(prefix);
                assert!(home.line < layout.lines());
                assert_eq!(layout.prefix_at(home), prefix);
                let after = larger.home(larger.prefix(hash >> 3));
                assert!(after.line >= home.line && after.line < larger.lines());
            }
            if layout.lines() > 1 << 30 {
                return;
            }
            layout = larger;
        }
    }

    #[test]
    fn the_ends_of_the_hash_range_fit() {
        let mut layout = Layout::SMALLEST;
        for _ in 0..200 {
            assert_eq!(layout.home(layout.prefix(0)), Home { line: 0, tag: 0 });
            assert_eq!(layout.home(layout.prefix(u64::MAX)).line, layout.lines() - 1);
            assert_eq!(layout.prefix_from(layout.lines()), 1 << layout.prefix_bits());
            layout = layout.larger();
        }
    }
}
