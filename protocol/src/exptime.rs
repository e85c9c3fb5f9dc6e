//! The exptime a client sent, and the moment it comes to.

/// Exptimes above this many seconds (30 days) are unix times.
pub const RELATIVE_MAX_S: i64 = 60 * 60 * 24 * 30;

/// An exptime as sent: 0 never; 1 to [`RELATIVE_MAX_S`] seconds from now; above, unix time; negative, already past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Exptime(pub i64);

/// When an item dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Not by time.
    Never,
    /// At this unix second: it is gone when the clock shows it.
    At(u32),
    /// It never lives.
    Past,
}

impl Exptime {
    /// What this exptime comes to when the clock shows the unix second `now`.
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
