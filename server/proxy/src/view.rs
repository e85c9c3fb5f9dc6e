//! What other threads may read about a proxy: the admin server, and the shard that answers `stats`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::control_log::ControlLog;
use crate::reports::Reports;
use crate::service_info::ConfigInfo;

/// The log of the control thread and the reports of the shards.
#[derive(Debug)]
pub struct ProxyView {
    /// Changed configurations that could not be used.
    config_failures: AtomicU64,
    /// What is known of the configuration in use. The request path does not look at it.
    config_info: Mutex<ConfigInfo>,
    /// The log of the control thread.
    pub control_log: ControlLog,
    /// The reports of the shards.
    pub reports: Reports,
}

impl ProxyView {
    /// The view of a proxy of `shards` shards that has just started.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            config_failures: AtomicU64::new(0),
            config_info: Mutex::default(),
            control_log: ControlLog::default(),
            reports: Reports::new(shards),
        }
    }

    /// The number of changed configurations that could not be used.
    pub fn config_failures(&self) -> u64 {
        self.config_failures.load(Ordering::Relaxed)
    }

    /// What is known of the configuration in use.
    pub(crate) fn config_info(&self) -> ConfigInfo {
        self.config_info.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_config_info(&self, info: ConfigInfo) {
        *self.config_info.lock().unwrap_or_else(PoisonError::into_inner) = info;
    }

    pub(crate) fn count_config_failure(&self) {
        self.config_failures.fetch_add(1, Ordering::Relaxed);
    }
}
