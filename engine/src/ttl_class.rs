//! Classes of remaining life: items of one class share segments, so that a segment expires nearly at once.
//!
//! Class 0 never expires; 1 to 88 are four per octave, from 1 second to 48 days; longer lives join the last.

use crate::clock::NEVER;

/// Number of classes, the one without expiry included.
pub(crate) const CLASSES: usize = 1 + OCTAVES * 4;
const OCTAVES: usize = 22;

/// The class of an item that expires at `expires` ([`NEVER`] for never), seen from `now`.
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

/// Shortest life of a class, seconds. Class 0 has none.
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
