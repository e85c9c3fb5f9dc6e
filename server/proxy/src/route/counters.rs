//! What the execution of a shard counts.

/// Counts of requests that were kept from slow servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TailCounters {
    /// Gets sent to a second copy.
    pub hedges_sent: u64,
    /// How many of these had their answer from the second copy.
    pub hedges_won: u64,
    /// Second gets that were not sent, as the budget was used up.
    pub hedges_denied: u64,
    /// Requests that went past a server with too much under way.
    pub bounded_load_moved: u64,
}

impl TailCounters {
    /// Each with its name in the statistics.
    #[must_use]
    pub(crate) const fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("hedge_sent", self.hedges_sent),
            ("hedge_won", self.hedges_won),
            ("hedge_denied", self.hedges_denied),
            ("bounded_load_moved", self.bounded_load_moved),
        ]
    }
}

/// Counts of warm resizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResizeCounters {
    /// Lookups on earlier servers, one for each key that the new server has not got.
    pub tried: u64,
    /// How many of these found the key on an earlier server.
    pub found: u64,
    /// How many of these were copied.
    pub copied: u64,
    /// How many were not copied, as the key was written or deleted meanwhile, or the new server did not take
    /// it.
    pub lost: u64,
    /// Deletes that an earlier server did not take.
    pub unreached: u64,
}

impl ResizeCounters {
    /// Each with its name in the statistics.
    #[must_use]
    pub(crate) const fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("resize_tried", self.tried),
            ("resize_found", self.found),
            ("resize_copied", self.copied),
            ("resize_lost", self.lost),
            ("resize_unreached", self.unreached),
        ]
    }
}
