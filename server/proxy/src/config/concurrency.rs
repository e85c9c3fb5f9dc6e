//! Adaptive concurrency of a pool, as checked; `upstream::concurrency` does it.

/// How many gets a destination may have under way follows from how fast it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    /// The limit is never lower, so that it is seen when the destination is fast again; at least 1.
    pub min: u32,
    /// The limit is never higher, and so much to begin with.
    pub max: u32,
}

impl AdaptiveConcurrency {
    /// `max` where none is given: a core's requests to one destination that no healthy one has under way.
    pub const MAX: u32 = 1000;
}
