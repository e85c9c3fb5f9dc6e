//! The life of a server, as its shards and other threads see it: ready, draining, stopping.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::mesh::Presence;

/// Whether the server runs, drains or stops. Wakes the shards when that changes.
#[derive(Debug)]
pub struct Lifecycle {
    presence: Arc<[Presence]>,
    /// Time from the announcement of the stop to the stop itself (`--drain-delay-ms`).
    drain_delay: Duration,
    stopping: AtomicBool,
    /// Shards that have no connection left while the server stops.
    drained: AtomicUsize,
    /// When the stop was announced.
    announced: OnceLock<Instant>,
    /// How often files were to be read again.
    reloads: AtomicUsize,
    /// A pool of a proxy has no server yet, and clients should not be sent here before it has.
    awaits_servers: AtomicBool,
}

impl Lifecycle {
    /// The lifecycle of a server that runs. `presence` says how to wake its shards.
    #[must_use]
    pub const fn new(presence: Arc<[Presence]>, drain_delay: Duration, awaits_servers: bool) -> Self {
        Self {
            presence,
            drain_delay,
            stopping: AtomicBool::new(false),
            drained: AtomicUsize::new(0),
            announced: OnceLock::new(),
            reloads: AtomicUsize::new(0),
            awaits_servers: AtomicBool::new(awaits_servers),
        }
    }

    /// How to wake each shard.
    #[must_use]
    pub const fn presence(&self) -> &Arc<[Presence]> {
        &self.presence
    }

    /// Wakes every shard.
    pub fn wake_all(&self) {
        self.presence.iter().for_each(Presence::wake);
    }

    /// Announces that the server will stop. It still serves.
    pub fn announce_stop(&self) {
        self.announced.get_or_init(Instant::now);
    }

    /// What is left of the time between the announcement and the stop.
    #[must_use]
    pub fn drain_time_left(&self) -> Duration {
        let passed = self.announced.get().map_or(Duration::ZERO, Instant::elapsed);
        self.drain_delay.saturating_sub(passed)
    }

    /// Stops: the shards accept nothing more, answer what they have read, and close their connections.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether the server is stopping.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Counts a shard that has no connection left while the server stops.
    pub(crate) fn count_drained(&self) {
        let before = self.drained.fetch_add(1, Ordering::AcqRel);
        debug_assert!(before < self.presence.len(), "a shard drains once");
    }

    /// Shards that have no connection left while the server stops.
    pub(crate) fn drained(&self) -> usize {
        self.drained.load(Ordering::Acquire)
    }

    /// Counts one more time that files are to be read again; the control thread of a proxy looks at the
    /// count.
    pub fn count_reload(&self) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// How often files were to be read again.
    #[must_use]
    pub fn reloads(&self) -> usize {
        self.reloads.load(Ordering::Relaxed)
    }

    /// Every pool of a proxy has a server, so clients may be sent here.
    pub fn servers_are_found(&self) {
        self.awaits_servers.store(false, Ordering::Relaxed);
    }

    /// Why clients should not be sent here; `None` when they may be.
    #[must_use]
    pub fn unready(&self) -> Option<&'static str> {
        if self.announced.get().is_some() || self.is_stopping() {
            return Some("draining");
        }
        self.awaits_servers.load(Ordering::Relaxed).then_some("a pool has no server yet")
    }
}
