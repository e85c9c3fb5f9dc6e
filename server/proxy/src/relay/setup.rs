//! What a [`Relay`](super::Relay) is built from.

use std::collections::HashMap;
use std::sync::Arc;

use corecached_net::tls::Trust;
use crossbeam_channel::Receiver;
use socket2::SockAddr;

use crate::config::Server;
use crate::merge::MergeOptions;
use crate::route::Tree;
use crate::spool::Spooler;
use crate::upstream::{ConnectionLimits, HealthOptions};

/// Where requests go: what the control thread builds whenever the configuration or an address changes.
#[derive(Debug)]
pub struct Snapshot {
    /// The routes.
    pub tree: Arc<Tree>,
    /// The addresses of the servers that the tree names. A server without one cannot be reached now.
    pub addresses: HashMap<Server, SockAddr>,
    /// How the certificates of servers are verified that are reached over TLS; `None` if TLS towards servers
    /// is not set up.
    pub trust: Option<Arc<Trust>>,
}

/// What the command line says about destinations; the rest of their options is in the tree.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// `--reset-inactive-connection-interval`, milliseconds; 0 is never.
    pub inactive_reset_ms: u64,
    /// `--connect-timeout-retries`
    pub connect_retries: u32,
    /// `--target-max-pending-requests` and `--target-max-inflight-requests`.
    pub limits: ConnectionLimits,
    /// `--timeouts-until-tko`, `--probe-timeout-*` and `--disable-tko-tracking`.
    pub health: HealthOptions,
    /// `--single-flight` and `--hot-*`.
    pub merge: MergeOptions,
}

/// What a shard builds its [`Relay`](super::Relay) from, on its own thread.
#[derive(Clone, Debug)]
pub struct RelaySetup {
    /// Where requests go at first.
    pub snapshot: Arc<Snapshot>,
    /// The snapshots that replace it, each of which is used from the next turn on.
    pub updates: Receiver<Arc<Snapshot>>,
    /// The options of all destinations.
    pub options: UpstreamOptions,
    /// Keeps the deletes that no destination took; `None` answers them with the error.
    pub spooler: Option<Spooler>,
    /// The seed of everything random.
    pub seed: u64,
}
