//! Pools: named sets of servers, as written and as checked.

use std::collections::HashMap;
use std::fmt;

use super::concurrency::AdaptiveConcurrency;
use super::handle::HandleId;
use super::server::Server;
use super::warm_resize::WarmResize;
use super::zone::Zones;

/// What a pool sends to.
#[derive(Clone, Debug, PartialEq)]
pub enum Member {
    /// A server.
    Server(Server),
    /// A route handle in place of one.
    Handle(HandleId),
}

/// A pool, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// In the order written, which hashing depends on.
    pub members: Vec<Member>,
    /// Each server is a DNS name that stands for all its addresses.
    pub resolve: bool,
    /// The Service of Kubernetes that its one server names, whose endpoints its cluster is asked for.
    pub endpoint_slices: Option<Service>,
    /// Send keys with the routing prefix they came with.
    pub keep_routing_prefix: bool,
    /// Weights for hashing, one for each server; empty when not given.
    pub weights: Vec<f64>,
    /// Tags for rendezvous hashing, one for each server; empty when not given.
    pub tags: Vec<String>,
    /// Which zones the servers are in.
    pub zones: Zones,
    /// Failure domains, one for each server; empty when not given.
    pub failure_domains: Vec<u32>,
    /// An empty pool answers with an error; else as if nothing were found.
    pub error_on_empty: bool,
    /// From how many ejected servers on no more are ejected, and to how many that must fall again.
    pub ejected_limit: Option<EjectedLimit>,
    /// Gets that each of its servers may have under way follow from how fast it answers; `None`: they do not.
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// How keys follow when the servers change; `None`: they do not.
    pub warm_resize: Option<WarmResize>,
}

/// A Service of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Where it is.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl Service {
    /// Reads `NAMESPACE/SERVICE`; `None` unless both are labels of DNS.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        let is_label = |label: &str| {
            let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(named)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        (is_label(namespace) && is_label(name))
            .then(|| Self { namespace: namespace.into(), name: name.into() })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Bounds of how many servers of a pool may be ejected at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectedLimit {
    /// From this many on no server is ejected.
    pub upper: u32,
    /// Until there are no more than this.
    pub lower: u32,
}

/// Members of pools that were found since the configuration was read, in place of those written.
pub(crate) type ResolvedPools = HashMap<String, Vec<Server>>;
