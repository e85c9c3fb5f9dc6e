//! The times of a warm resize, as checked.

/// How keys follow when the servers of a pool change; milliseconds, from when the proxy learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmResize {
    /// For so long a key that the new server has not got is looked for on earlier ones.
    pub window_ms: u64,
    /// For so long the earlier server stays in use: longer than proxies learn of a change apart, than a
    /// request takes, and than a lease lives.
    pub grace_ms: u64,
    /// After the window writes and deletes go to earlier servers too for so long, and never shorter than the
    /// grace.
    pub invalidate_ms: u64,
}

impl WarmResize {
    /// The grace where none is given: names are looked up twice a second, and resolvers keep answers for 5 s.
    pub const GRACE_MS: u32 = 10_000;

    /// How long an earlier ring counts after its window.
    #[must_use]
    pub const fn settle_ms(&self) -> u64 {
        if self.invalidate_ms > self.grace_ms { self.invalidate_ms } else { self.grace_ms }
    }
}
