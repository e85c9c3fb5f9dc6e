//! What a shard counts of requests that were kept from slow servers.

/// See the head of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TailCounters {
    /// Gets sent to a second copy.
    pub hedges_sent: u64,
    /// Of these, that brought the answer.
    pub hedges_won: u64,
    /// Not sent, as the budget was used up.
    pub hedges_denied: u64,
    /// Requests that went past a server with too much under way.
    pub bounded_load_moved: u64,
}

impl TailCounters {
    /// Each with its name.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("hedge_sent", self.hedges_sent),
            ("hedge_won", self.hedges_won),
            ("hedge_denied", self.hedges_denied),
            ("bounded_load_moved", self.bounded_load_moved),
        ]
    }
}
