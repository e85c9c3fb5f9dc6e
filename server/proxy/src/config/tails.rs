//! What keeps slow servers out of the way, as checked: hedged gets, bounded loads, adaptive concurrency. All off unless
//! written; what each does stands where it is done, in `route::hedge`, `route::bounded_load` and `upstream::concurrency`.

/// A get that waits longer than most is sent to a second copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    /// Of the replies of the server that would be asked next, this many in a hundred come sooner than a get waits.
    pub percentile: f64,
    /// Second requests for each get, at most.
    pub budget: f64,
    /// A get waits so long at least, ms.
    pub min_delay_ms: u32,
}

impl Hedge {
    /// `percentile` where none is given: that of "The Tail at Scale" (Dean, Barroso 2013), which bounds what is sent more to
    /// about 5 %.
    pub const PERCENTILE: f64 = 95.0;
    /// `budget_percent` where none is given: as many as a healthy pool needs at [`Hedge::PERCENTILE`].
    pub const BUDGET_PERCENT: f64 = 5.0;
}

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
