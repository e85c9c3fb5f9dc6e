//! What the shards of a proxy are built from, and how they get new snapshots.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Sender, bounded};

use crate::relay::{RelaySetup, Snapshot, UpstreamOptions};
use crate::spool::Spooler;

/// Most snapshots that one shard has not taken yet.
const SNAPSHOTS_MAX: usize = 16;

/// What the shards of a proxy are built from.
#[derive(Debug)]
pub struct Forwarding {
    /// Where requests go at first.
    snapshot: Arc<Snapshot>,
    /// The options of all destinations.
    options: UpstreamOptions,
    /// Keeps the deletes that no destination took.
    spooler: Option<Spooler>,
    /// The channels by which the shards get new snapshots.
    subscribers: Mutex<Vec<Sender<Arc<Snapshot>>>>,
}

impl Forwarding {
    /// Shards are built with `snapshot`, `options` and `spooler`.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, options: UpstreamOptions, spooler: Option<Spooler>) -> Self {
        Self { snapshot, options, spooler, subscribers: Mutex::default() }
    }

    /// Whether destinations may be reached over TLS.
    #[must_use]
    pub fn secures(&self) -> bool {
        self.snapshot.trust.is_some()
    }

    /// The channels by which the shards get new snapshots.
    pub(crate) fn subscribers(&self) -> MutexGuard<'_, Vec<Sender<Arc<Snapshot>>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one of `shards` shards builds its relay from. From now on new snapshots are sent to it.
    #[must_use]
    pub fn relay(&self, seed: u64, shards: usize) -> RelaySetup {
        let (sender, updates) = bounded(SNAPSHOTS_MAX);
        self.subscribers().push(sender);
        let (snapshot, mut options) = (Arc::clone(&self.snapshot), self.options.clone());
        options.merge.hot = options.merge.hot.share(shards);
        RelaySetup { snapshot, updates, options, spooler: self.spooler.clone(), seed }
    }
}
