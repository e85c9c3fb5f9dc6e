//! The exptime that a client sent, and the second at which the item expires.

use crate::number::parse_i32;

/// The largest exptime that counts seconds from now, in seconds: 30 days. A larger one is a unix time.
pub const RELATIVE_MAX_S: i64 = 60 * 60 * 24 * 30;

/// An exptime: 0 is never, 1 to [`RELATIVE_MAX_S`] are seconds from now, a larger number is a unix time, and a
/// negative one is already past.
///
/// In text it has 32 bits with a sign, as in memcached 1.6.45. Of a larger number a classic storage command keeps
/// the lower 32 bits, so that 4294967295, which some clients send for -1, is past; all other commands are refused
/// with it. In the binary protocol it has 32 bits without a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Exptime(pub i64);

/// The time at which an item expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The item does not expire.
    Never,
    /// The item is expired from this unix second on.
    At(u32),
    /// The item is expired from the start.
    Past,
}

impl Exptime {
    /// The exptime of a classic storage command: the lower 32 bits of the number that was sent.
    #[inline]
    pub(crate) fn from_store(sent: i64) -> Self {
        Self(i64::from(sent as i32))
    }

    /// Reads the exptime of any other text command. `None` when the word is no number, or one that 32 bits with a
    /// sign cannot hold.
    #[inline]
    pub(crate) fn parse(word: &[u8]) -> Option<Self> {
        parse_i32(word).map(|seconds| Self(i64::from(seconds)))
    }

    /// The expiry of an item that gets this exptime at the unix second `now`. A time after the last second
    /// that 32 bits can hold is that second.
    #[must_use]
    pub fn resolve(self, now: u32) -> Expiry {
        match self.0 {
            0 => Expiry::Never,
            relative @ 1..=RELATIVE_MAX_S => Expiry::At(now.saturating_add(relative as u32)),
            absolute if absolute > i64::from(now) => Expiry::At(u32::try_from(absolute).unwrap_or(u32::MAX)),
            _ => Expiry::Past,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exptime_that_32_bits_cannot_hold_is_cut_by_a_store_and_refused_by_others() {
        for (word, stored, other) in [
            ("2147483647", 2_147_483_647, Some(2_147_483_647)),
            ("2147483648", -2_147_483_648, None),
            ("4294967295", -1, None),
            ("4294967296", 0, None),
            ("4294967297", 1, None),
            ("9223372036854775807", -1, None),
            ("-1", -1, Some(-1)),
            ("-2147483648", -2_147_483_648, Some(-2_147_483_648)),
            ("-2147483649", 2_147_483_647, None),
            ("-4294967295", 1, None),
        ] {
            assert_eq!(Exptime::from_store(word.parse().unwrap()), Exptime(stored), "{word}");
            assert_eq!(Exptime::parse(word.as_bytes()), other.map(Exptime), "{word}");
        }
    }

    #[test]
    fn exptimes_are_relative_for_30_days_and_absolute_above() {
        let now = 1_700_000_000;
        for (exptime, expiry) in [
            (0, Expiry::Never),
            (1, Expiry::At(now + 1)),
            (2_592_000, Expiry::At(now + 2_592_000)),
            (2_592_001, Expiry::Past), // a day of 1970
            (i64::from(now), Expiry::Past),
            (i64::from(now) + 1, Expiry::At(now + 1)),
            (i64::MAX, Expiry::At(u32::MAX)),
            (-1, Expiry::Past),
            (i64::MIN, Expiry::Past),
        ] {
            assert_eq!(Exptime(exptime).resolve(now), expiry, "{exptime}");
        }
        assert_eq!(Exptime(1).resolve(u32::MAX), Expiry::At(u32::MAX));
    }
}
