//! What other threads may read of a proxy: operators' pages, and the shard that answers `stats`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::chronicle::Chronicle;
use crate::reports::Reports;

/// What the control thread did, and what the shards report of themselves.
#[derive(Debug)]
pub struct ProxyView {
    config_failures: AtomicU64,
    /// What the control thread did.
    pub chronicle: Chronicle,
    /// What the shards report of themselves when they are asked.
    pub reports: Reports,
}

impl ProxyView {
    /// The view of a proxy of `shards` shards that has done nothing yet.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            config_failures: AtomicU64::new(0),
            chronicle: Chronicle::default(),
            reports: Reports::new(shards),
        }
    }

    /// Changed configurations that could not be used.
    pub fn config_failures(&self) -> u64 {
        self.config_failures.load(Ordering::Relaxed)
    }

    pub(crate) fn count_config_failure(&self) {
        self.config_failures.fetch_add(1, Ordering::Relaxed);
    }
}
