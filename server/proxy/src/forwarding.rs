//! What makes a server a proxy, from its start on: where requests go at first, and who hears of what follows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Sender, bounded};

use crate::relay::{RelaySetup, Snapshot, UpstreamOptions};
use crate::spool::Spooler;

/// Snapshots under way to one shard.
const SNAPSHOTS_MAX: usize = 16;

/// What the shards of a proxy are made from.
#[derive(Debug)]
pub struct Forwarding {
    /// Where requests go at first.
    snapshot: Arc<Snapshot>,
    /// Options of all destinations.
    options: UpstreamOptions,
    /// Takes the deletes that no destination takes.
    spooler: Option<Spooler>,
    /// Where each shard hears of new snapshots.
    subscribers: Mutex<Vec<Sender<Arc<Snapshot>>>>,
}

impl Forwarding {
    /// For shards that begin with `snapshot`.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, options: UpstreamOptions, spooler: Option<Spooler>) -> Self {
        Self { snapshot, options, spooler, subscribers: Mutex::default() }
    }

    /// Whether destinations may be reached over TLS.
    #[must_use]
    pub fn secures(&self) -> bool {
        self.snapshot.trust.is_some()
    }

    /// The channels to the shards that hear of new snapshots.
    pub(crate) fn subscribers(&self) -> MutexGuard<'_, Vec<Sender<Arc<Snapshot>>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one of `shards` shards forwards with. From now on it hears of new snapshots.
    #[must_use]
    pub fn relay(&self, seed: u64, shards: usize) -> RelaySetup {
        let (sender, updates) = bounded(SNAPSHOTS_MAX);
        self.subscribers().push(sender);
        let (snapshot, mut options) = (Arc::clone(&self.snapshot), self.options.clone());
        options.merge.hot = options.merge.hot.share(shards);
        RelaySetup { snapshot, updates, options, spooler: self.spooler.clone(), seed }
    }
}
