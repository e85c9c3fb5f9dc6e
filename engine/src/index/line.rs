//! One line of the index: ten entries in 64 bytes.
//!
//! ```text
//! tag and frequency u16 x 10 | location u32 x 10 | state u32
//! state   low 10 | high 10 | passed 12
//! ```
//!
//! The hash of an entry gives its home line. The entry is in that line or, if it is full, in one of the next.
//! `low` and `high` have a bit for each slot, and say that it is vacant (00), or that its entry has its home
//! in this line (01), in the line before (10), or in an earlier one (11). `passed` counts the entries that
//! went past this line because it was full: a search ends where it is 0. A line of zeroes is empty.

use super::layout::{TAG_BITS, TAG_MASK};
use crate::index::FREQUENCY_MAX;
use crate::item::Location;

/// Slots of a line.
pub(super) const SLOTS: usize = 10;
const SLOTS_MASK: u32 = (1 << SLOTS) - 1;
const HIGH_SHIFT: u32 = SLOTS as u32;
const PASSED_SHIFT: u32 = 2 * SLOTS as u32;
/// Largest count of entries that went past a line.
pub(super) const PASSED_MAX: usize = (1 << (u32::BITS - PASSED_SHIFT)) - 1;
/// One access, as added to a word of tag and frequency.
const FREQUENCY_ONE: u16 = 1 << TAG_BITS;

/// A line of the index: ten slots in one cache line.
#[repr(C, align(64))]
pub(super) struct IndexLine {
    /// 13 bits of tag, 3 of frequency.
    tags: [u16; SLOTS],
    locations: [u32; SLOTS],
    state: u32,
}

const _: () = assert!(size_of::<IndexLine>() == 64 && FREQUENCY_MAX == 7 && TAG_BITS == 13);

/// A set of slots of a line, one bit each. Iterates over their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotSet(pub(super) u32);

impl SlotSet {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn and(self, other: SlotSet) -> SlotSet {
        SlotSet(self.0 & other.0)
    }
}

impl Iterator for SlotSet {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

/// How far an entry is from its home line, as far as a line knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Distance {
    /// In it.
    Home,
    /// In the line after it.
    Next,
    /// Further on.
    Far,
}

impl Distance {
    #[inline]
    pub(super) fn from_lines(lines: usize) -> Distance {
        match lines {
            0 => Distance::Home,
            1 => Distance::Next,
            _ => Distance::Far,
        }
    }
}

/// An entry of the index: tag, frequency and location of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IndexEntry {
    pub(super) tag: u16,
    pub(super) frequency: u8,
    pub(super) location: Location,
}

impl IndexLine {
    /// Slots with an entry at this distance from its home.
    #[inline]
    pub(super) fn slots(&self, distance: Distance) -> SlotSet {
        let (low, high) = (self.state, self.state >> HIGH_SHIFT);
        SlotSet(
            SLOTS_MASK
                & match distance {
                    Distance::Home => low & !high,
                    Distance::Next => high & !low,
                    Distance::Far => high & low,
                },
        )
    }

    /// Slots that have an entry.
    #[inline]
    pub(super) fn occupied(&self) -> SlotSet {
        SlotSet(SLOTS_MASK & (self.state | self.state >> HIGH_SHIFT))
    }

    /// Slots that have no entry.
    #[inline]
    pub(super) fn vacant(&self) -> SlotSet {
        SlotSet(SLOTS_MASK & !self.occupied().0)
    }

    /// Whether the line has no entry and none went past it.
    pub(super) fn is_empty(&self) -> bool {
        self.state == 0
    }

    /// Slots with an entry of this tag, at this distance from its home.
    #[inline]
    pub(super) fn with_tag(&self, tag: u16, distance: Distance) -> SlotSet {
        SlotSet(self.same_tag(tag)).and(self.slots(distance))
    }

    #[inline]
    pub(super) fn location(&self, slot: usize) -> Location {
        Location(self.locations[slot])
    }

    #[inline]
    pub(super) fn set_location(&mut self, slot: usize, location: Location) {
        self.locations[slot] = location.0;
    }

    #[inline]
    pub(super) fn tag(&self, slot: usize) -> u16 {
        self.tags[slot] & TAG_MASK
    }

    #[inline]
    pub(super) fn frequency(&self, slot: usize) -> u8 {
        (self.tags[slot] >> TAG_BITS) as u8
    }

    pub(super) fn set_frequency(&mut self, slot: usize, frequency: u8) {
        assert!(frequency <= FREQUENCY_MAX);
        self.tags[slot] = self.tag(slot) | u16::from(frequency) << TAG_BITS;
    }

    /// Counts one access, up to [`FREQUENCY_MAX`]. Writes only if the count changes, so that the cache line
    /// of an item that is read often is not written.
    #[inline]
    pub(super) fn count(&mut self, slot: usize) {
        if self.frequency(slot) < FREQUENCY_MAX {
            self.tags[slot] += FREQUENCY_ONE;
        }
    }

    /// The entry in a slot that has one.
    pub(super) fn entry(&self, slot: usize) -> IndexEntry {
        debug_assert!(self.occupied().0 >> slot & 1 == 1);
        IndexEntry { tag: self.tag(slot), frequency: self.frequency(slot), location: self.location(slot) }
    }

    /// Puts an entry into a vacant slot.
    pub(super) fn put(&mut self, slot: usize, entry: IndexEntry, distance: Distance) {
        debug_assert!(self.vacant().0 >> slot & 1 == 1);
        debug_assert!(entry.tag <= TAG_MASK);
        self.tags[slot] = entry.tag;
        self.set_frequency(slot, entry.frequency);
        self.locations[slot] = entry.location.0;
        let (low, high) = match distance {
            Distance::Home => (1, 0),
            Distance::Next => (0, 1),
            Distance::Far => (1, 1),
        };
        self.state |= low << slot | high << (slot as u32 + HIGH_SHIFT);
    }

    /// Makes a slot vacant.
    pub(super) fn clear(&mut self, slot: usize) {
        debug_assert!(slot < SLOTS); // other bits belong to `passed`
        self.state &= !(1 << slot | 1 << (slot as u32 + HIGH_SHIFT));
    }

    /// The number of entries that went past this line.
    #[inline]
    pub(super) fn passed(&self) -> u32 {
        self.state >> PASSED_SHIFT
    }

    /// Counts an entry that goes past this line.
    pub(super) fn pass(&mut self) {
        debug_assert!((self.passed() as usize) < PASSED_MAX);
        self.state += 1 << PASSED_SHIFT;
    }

    /// Uncounts an entry that went past this line and was removed.
    pub(super) fn unpass(&mut self) {
        assert!(self.passed() > 0);
        self.state -= 1 << PASSED_SHIFT;
    }

    /// A bit for each slot with this tag, whether it has an entry or not.
    #[inline]
    fn same_tag(&self, tag: u16) -> u32 {
        #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
        {
            // SAFETY: the build is for processors that have AVX2.
            unsafe { self.same_tag_avx2(tag) }
        }
        #[cfg(all(target_arch = "x86_64", not(target_feature = "avx2")))]
        {
            self.same_tag_sse2(tag)
        }
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        {
            self.same_tag_neon(tag)
        }
        #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
        {
            self.same_tag_scalar(tag)
        }
    }

    /// Compares one tag after the other, on processors without a version below. The others are tested against
    /// this.
    #[cfg(any(
        test,
        not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))
    ))]
    fn same_tag_scalar(&self, tag: u16) -> u32 {
        (0..SLOTS).fold(0, |set, slot| set | u32::from(self.tag(slot) == tag) << slot)
    }

    /// Compares two vectors of eight tags. Every x86-64 has SSE2.
    #[cfg(all(target_arch = "x86_64", any(test, not(target_feature = "avx2"))))]
    #[inline]
    fn same_tag_sse2(&self, tag: u16) -> u32 {
        use std::arch::x86_64::*;
        let line: *const __m128i = std::ptr::from_ref(self).cast();
        // SAFETY: 32 bytes from the start of a line of 64, aligned to 64; SSE2 is part of x86-64.
        unsafe {
            let mask = _mm_set1_epi16(TAG_MASK as i16);
            let wanted = _mm_set1_epi16(tag as i16);
            let first = _mm_cmpeq_epi16(_mm_and_si128(_mm_load_si128(line), mask), wanted);
            let second = _mm_cmpeq_epi16(_mm_and_si128(_mm_load_si128(line.add(1)), mask), wanted);
            _mm_movemask_epi8(_mm_packs_epi16(first, second)) as u32 & SLOTS_MASK
        }
    }

    /// Compares one vector of sixteen tags, in builds for processors with AVX2.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[cfg(all(target_arch = "x86_64", any(test, target_feature = "avx2")))]
    #[target_feature(enable = "avx2")]
    unsafe fn same_tag_avx2(&self, tag: u16) -> u32 {
        use std::arch::x86_64::*;
        let line: *const __m256i = std::ptr::from_ref(self).cast();
        // SAFETY: 32 bytes from the start of a line of 64, aligned to 64; the caller vouches for AVX2.
        unsafe {
            let tags = _mm256_and_si256(_mm256_load_si256(line), _mm256_set1_epi16(TAG_MASK as i16));
            let same = _mm256_cmpeq_epi16(tags, _mm256_set1_epi16(tag as i16));
            let halves = _mm_packs_epi16(_mm256_castsi256_si128(same), _mm256_extracti128_si256(same, 1));
            _mm_movemask_epi8(halves) as u32 & SLOTS_MASK
        }
    }

    /// Compares two vectors of eight tags; each result is summed up to one bit per tag.
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    #[inline]
    fn same_tag_neon(&self, tag: u16) -> u32 {
        use std::arch::aarch64::*;
        const BITS: [u16; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
        let line: *const u16 = std::ptr::from_ref(self).cast();
        // SAFETY: 32 bytes from the start of a line of 64, and the 16 of a constant; the build has NEON.
        unsafe {
            let bits = vld1q_u16(BITS.as_ptr());
            let mask = vdupq_n_u16(TAG_MASK);
            let wanted = vdupq_n_u16(tag);
            let first = vceqq_u16(vandq_u16(vld1q_u16(line), mask), wanted);
            let second = vceqq_u16(vandq_u16(vld1q_u16(line.add(8)), mask), wanted);
            let first = u32::from(vaddvq_u16(vandq_u16(first, bits)));
            let second = u32::from(vaddvq_u16(vandq_u16(second, bits)));
            (first | second << 8) & SLOTS_MASK
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> IndexLine {
        IndexLine { tags: [0; SLOTS], locations: [u32::MAX; SLOTS], state: 0 }
    }

    #[test]
    fn every_way_of_comparing_tags_agrees() {
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
            random >> 40
        };
        for _ in 0..20_000 {
            let mut line = line();
            let tag = next() as u16 & TAG_MASK;
            for slot in 0..SLOTS {
                let other = if next() & 1 == 0 { tag } else { next() as u16 & TAG_MASK };
                line.tags[slot] = other | (next() as u16 & 7) << TAG_BITS;
                line.locations[slot] = u32::from(tag) | u32::from(tag) << 16;
            }
            let expected = line.same_tag_scalar(tag);
            assert_eq!(line.same_tag(tag), expected);
            #[cfg(target_arch = "x86_64")]
            {
                assert_eq!(line.same_tag_sse2(tag), expected);
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: just detected.
                    assert_eq!(unsafe { line.same_tag_avx2(tag) }, expected);
                }
            }
        }
    }

    #[test]
    fn slots_know_how_far_their_entry_is_from_home() {
        let mut line = line();
        for (slot, distance) in [(0, Distance::Home), (3, Distance::Next), (9, Distance::Far)] {
            let entry = IndexEntry { tag: 5, frequency: 7, location: Location(slot as u32) };
            line.put(slot, entry, distance);
            assert_eq!(line.with_tag(5, distance), SlotSet(1 << slot));
            assert_eq!(line.entry(slot), entry);
        }
        line.pass();
        assert_eq!((line.passed(), line.occupied().count()), (1, 3));
        line.count(0);
        assert_eq!((line.frequency(0), line.tag(0)), (7, 5));
        for slot in [0, 3, 9] {
            line.clear(slot);
        }
        line.unpass();
        assert_eq!((line.state, line.vacant().count()), (0, SLOTS));
    }
}
