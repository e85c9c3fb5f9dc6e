//! Classes of remaining TTL. Items of one class share segments, so that all of a segment expires at nearly
//! one time.
//!
//! Items of class 0 never expire. Classes 1 to 88 are four per doubling of the TTL, from 1 second to 48 days;
//! longer TTLs belong to the last.

use crate::clock::NEVER;

/// Number of classes, including the one without expiry.
pub(crate) const CLASSES: usize = 1 + OCTAVES * 4;
const OCTAVES: usize = 22;

/// The class of an item stored at `now` that expires at `expires`, which may be [`NEVER`].
#[inline]
pub(crate) fn class_of(expires: u32, now: u32) -> usize {
    if expires == NEVER {
        return 0;
    }
    let life_s = expires.saturating_sub(now).max(1);
    let octave = life_s.ilog2() as usize;
    if octave >= OCTAVES {
        return CLASSES - 1;
    }
    let quarter = (((life_s as u64) << 2) >> octave) as usize & 3;
    1 + octave * 4 + quarter
}

/// Shortest TTL of a class, seconds. `class` must not be 0, which has none.
pub(crate) fn shortest_s(class: usize) -> u32 {
    assert!((1..CLASSES).contains(&class));
    let (octave, quarter) = ((class - 1) / 4, (class - 1) % 4);
    (((4 + quarter as u64) << octave) >> 2) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_spans_at_most_a_quarter_octave() {
        for life in 1..5_000_000u32 {
            let class = class_of(1000 + life, 1000);
            let shortest = shortest_s(class);
            assert!(shortest <= life, "life {life} class {class}");
            if class < CLASSES - 1 {
                let gap = life - shortest;
                assert!(gap * 4 <= shortest, "life {life} class {class} shortest {shortest}");
            }
        }
        assert_eq!(class_of(NEVER, 5), 0);
        assert_eq!(class_of(3, 5), class_of(6, 5));
    }
}
