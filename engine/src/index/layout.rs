//! Where a hash lies in a table of any size, and back.
//!
//! A table has `steps` x 2^(octave - 4) lines, 16 to 31 steps, so that sizes are 3 to 6 % apart. The place is
//! the hash, taken as a fraction, stretched over the table: monotone, so a table can be stretched in place
//! in one pass. Line and tag together give back every bit of the hash that went into them, so stretching
//! reads no keys, except once per octave, when the place takes in another bit.

/// Bits of a hash the index uses; those above choose the store.
const HASH_BITS: u32 = 48;
/// Bits of a tag.
pub(super) const TAG_BITS: u32 = 13;
/// Tags are below this.
pub(super) const TAG_MASK: u16 = (1 << TAG_BITS) - 1;
/// Sizes per octave, as a power of two.
const STEP_BITS: u32 = 4;
const STEPS: u64 = 1 << STEP_BITS;
/// Bits below the line number in a position.
const LINE_SHIFT: u32 = TAG_BITS + STEP_BITS;
const OCTAVE_MAX: u32 = HASH_BITS - TAG_BITS;

/// A size of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// 16 to 31.
    steps: u64,
    /// At least 4: 16 lines.
    octave: u32,
    /// Bits of the hash that do not count.
    shift: u32,
}

/// Where an entry belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) tag: u16,
}

impl Layout {
    /// The smallest: 16 lines, 1 KiB.
    pub(super) const SMALLEST: Layout = Layout::of(STEPS, STEP_BITS);

    const fn of(steps: u64, octave: u32) -> Layout {
        Layout { steps, octave, shift: HASH_BITS - TAG_BITS - octave }
    }

    /// The next size up.
    pub(super) fn larger(self) -> Layout {
        if self.steps + 1 < 2 * STEPS {
            return Layout::of(self.steps + 1, self.octave);
        }
        assert!(self.octave < OCTAVE_MAX);
        Layout::of(STEPS, self.octave + 1)
    }

    /// The next size down; the smallest has none.
    pub(super) fn smaller(self) -> Option<Layout> {
        match (self.steps, self.octave) {
            (STEPS, STEP_BITS) => None,
            (STEPS, octave) => Some(Layout::of(2 * STEPS - 1, octave - 1)),
            (steps, octave) => Some(Layout::of(steps - 1, octave)),
        }
    }

    /// Lines in which entries belong.
    pub(super) fn lines(self) -> usize {
        ((self.steps << self.octave) >> STEP_BITS) as usize
    }

    /// Bits of a prefix.
    pub(super) fn prefix_bits(self) -> u32 {
        self.octave + TAG_BITS
    }

    /// The bits of a hash that count in this size.
    #[inline]
    pub(super) fn prefix(self, hash: u64) -> u64 {
        (hash & ((1 << HASH_BITS) - 1)) >> self.shift
    }

    /// Where entries of a prefix belong.
    #[inline]
    pub(super) fn place(self, prefix: u64) -> Place {
        let position = prefix * self.steps;
        Place { line: (position >> LINE_SHIFT) as usize, tag: (position >> STEP_BITS) as u16 & TAG_MASK }
    }

    /// The prefix whose entries belong there: prefixes lie at least one tag apart, so there is one at most.
    #[inline]
    pub(super) fn prefix_at(self, place: Place) -> u64 {
        let position = (place.line as u64) << LINE_SHIFT | u64::from(place.tag) << STEP_BITS;
        position.div_ceil(self.steps)
    }

    /// The first prefix of a line.
    pub(super) fn prefix_from(self, line: usize) -> u64 {
        self.prefix_at(Place { line, tag: 0 })
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
    fn a_place_gives_back_its_prefix_and_moves_up_when_the_table_grows() {
        let mut hash = 0x9e37_79b9_7f4a_7c15u64;
        let mut layout = Layout::SMALLEST;
        for _ in 0..400 {
            let larger = layout.larger();
            for _ in 0..1000 {
                hash = hash.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
                let prefix = layout.prefix(hash >> 3);
                let place = layout.place(prefix);
                assert!(place.line < layout.lines());
                assert_eq!(layout.prefix_at(place), prefix);
                let after = larger.place(larger.prefix(hash >> 3));
                assert!(after.line >= place.line && after.line < larger.lines());
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
            assert_eq!(layout.place(layout.prefix(0)), Place { line: 0, tag: 0 });
            assert_eq!(layout.place(layout.prefix(u64::MAX)).line, layout.lines() - 1);
            assert_eq!(layout.prefix_from(layout.lines()), 1 << layout.prefix_bits());
            layout = layout.larger();
        }
    }
}
