//! The exptime that a client sent, and the second at which the item expires.

/// The largest exptime that counts seconds from now, in seconds: 30 days. A larger one is a unix time.
pub const RELATIVE_MAX_S: i64 = 60 * 60 * 24 * 30;

/// An exptime as sent. 0 is never, 1 to [`RELATIVE_MAX_S`] are seconds from now, a larger number is a unix
/// time, and a negative one is already past.
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
