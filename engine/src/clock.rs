//! Time as the engine knows it: an argument, never read.

/// A moment in whole seconds since the Unix epoch. Good until 2106.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Seconds(pub u32);

/// How the engine writes "never expires" where an `Option` would cost room.
pub(crate) const NEVER: u32 = u32::MAX;

/// The moment as stored: [`NEVER`] for none.
pub(crate) fn or_never(expires: Option<Seconds>) -> u32 {
    expires.map_or(NEVER, |at| at.0)
}
