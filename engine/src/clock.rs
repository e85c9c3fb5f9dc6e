//! Points in time. The engine never reads a clock: time is an argument.

/// A moment in whole seconds since the Unix epoch. Good until 2106.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Seconds(pub u32);

/// "Never expires", where an `Option` would take more room.
pub(crate) const NEVER: u32 = u32::MAX;

/// The stored form of an expiry: [`NEVER`] for `None`.
pub(crate) fn or_never(expires: Option<Seconds>) -> u32 {
    expires.map_or(NEVER, |at| at.0)
}

/// The public form of a stored expiry: `None` for [`NEVER`].
pub(crate) fn from_stored(expires: u32) -> Option<Seconds> {
    (expires != NEVER).then_some(Seconds(expires))
}
