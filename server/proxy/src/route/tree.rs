//! The compiled tree, immutable, and a shard's own state of it.

use std::sync::Arc;

use corecached_protocol::{Command, Exptime, Reply};

use super::super::config::{AdaptiveConcurrency, EjectedLimit, PoolId, Server};
use super::super::hash::Ring;
use super::super::request::{Operation, OperationClass};
use super::all::All;
use super::big_value::BigValue;
use super::bounded_load::BoundedLoad;
use super::bucket::Bucket;
use super::delay::Latency;
use super::failover::Failover;
use super::key_split::KeySplit;
use super::load_balancer::LoadBalancer;
use super::logging::Logging;
use super::lookaside::Lookaside;
use super::migrate::Migrate;
use super::modify::{ModifyExptime, ModifyKey};
use super::outstanding::Outstanding;
use super::rate_limit::RateLimit;
use super::replicated::Replicated;
use super::resize::Resize;
use super::shadow::Shadows;
use super::shard_split::ShardSplits;
use super::slow_warm_up::SlowWarmUp;

/// A destination of a tree: its place in [`Tree::destinations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(pub u32);

/// A server that requests are sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// Which; no two of a tree are equal.
    pub server: Server,
    /// The first pool that has it, for names.
    pub pool: PoolId,
    /// How many of that pool may be ejected at once.
    pub ejected_limit: Option<EjectedLimit>,
    /// That pool's word on how many gets may be under way.
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
}

/// A node in [`Tree::nodes`].
pub(super) type NodeId = u32;

/// One handle, compiled.
#[derive(Debug)]
pub(super) enum Node {
    Destination { id: DestinationId, keep_routing_prefix: bool },
    Hash { ring: Arc<Ring>, children: Box<[NodeId]> },
    Failover(Failover),
    MissFailover { children: Box<[NodeId]>, best: bool },
    All(All),
    Random { children: Box<[NodeId]> },
    Null,
    Error { reply: Reply },
    Operation { by_operation: [NodeId; Operation::NAMES.len()] },
    Prefix { policies: Box<[(Box<[u8]>, NodeId)]>, wildcard: NodeId },
    Lookaside(Lookaside),
    Migrate(Migrate),
    Shadow(Shadows),
    RateLimit(RateLimit),
    Outstanding(Outstanding),
    KeySplit(KeySplit),
    ModifyKey(ModifyKey),
    ModifyExptime(ModifyExptime),
    Spool { target: NodeId },
    Logging(Logging),
    Latency(Latency),
    Replicated(Replicated),
    BigValue(BigValue),
    LoadBalancer(LoadBalancer),
    Blackhole { after_ms: u64 },
    ShardSplits(ShardSplits),
    SlowWarmUp(SlowWarmUp),
    Resize(Resize),
    BoundedLoad(BoundedLoad),
}

/// The compiled tree: made on the control thread, shared by all shards.
#[derive(Debug)]
pub struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) destinations: Vec<Destination>,
    /// Routing prefixes, `/region/cluster/`.
    pub(super) roots: Vec<(String, NodeId)>,
    /// The root for keys without a routing prefix, in `roots`.
    pub(super) default_root: usize,
    pub(super) send_invalid_route_to_default: bool,
    pub(super) miss_on_get_errors: bool,
    pub(super) miss_on_arithmetic_errors: bool,
}

/// What the client gets in place of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Softening {
    /// The error.
    None,
    /// A retrieval: as if the key were not there.
    Miss,
    /// Arithmetic: `NOT_FOUND`.
    NotFound,
}

impl Softening {
    /// What the client gets for `reply`.
    #[must_use]
    pub fn apply(self, reply: Reply) -> Reply {
        match (self, &reply) {
            (Self::Miss, Reply::Error { .. }) => Reply::Miss,
            (Self::NotFound, Reply::Error { .. }) => Reply::NotFound,
            _ => reply,
        }
    }
}

/// `/region/cluster/` at the front of `key`: how many bytes.
#[inline]
pub(super) fn prefix_len(key: &[u8]) -> Option<usize> {
    if key.first() != Some(&b'/') {
        return None;
    }
    let region = memchr::memchr(b'/', &key[1..]).filter(|&len| len > 0)?;
    let cluster = memchr::memchr(b'/', &key[region + 2..]).filter(|&len| len > 0)?;
    Some(region + cluster + 3)
}

/// `key` without its `/region/cluster/`, if it has one.
#[must_use]
pub fn without_prefix(key: &[u8]) -> &[u8] {
    &key[prefix_len(key).unwrap_or(0)..]
}

impl Tree {
    /// Every server that requests may be sent to, each once.
    #[must_use]
    pub fn destinations(&self) -> &[Destination] {
        &self.destinations
    }

    /// The destination that alone decides what `command` on `key` is answered: its reply, softened by
    /// [`Tree::softening_of`], is the answer. `None` when [`super::Execution::begin`] is to be asked. Allocates nothing.
    ///
    /// The command is to be sent without `noreply` and `q`: every reply upstream is waited for.
    #[inline]
    #[must_use]
    pub fn direct(&self, key: &[u8], command: &Command) -> Option<DestinationId> {
        if key.first() == Some(&b'/') {
            return None; // perhaps a routing prefix, which is not sent
        }
        if let Command::Meta(meta) = command
            && meta.flags.has(b'b')
        {
            return None; // must be decoded
        }
        self.walk(self.roots[self.default_root].1, key, Operation::of(command)?)
    }

    /// Down to a destination, past nodes that only choose.
    #[inline]
    pub(super) fn walk(&self, mut node: NodeId, key: &[u8], operation: Operation) -> Option<DestinationId> {
        loop {
            node = match &self.nodes[node as usize] {
                Node::Destination { id, .. } => return Some(*id),
                Node::Hash { ring, children } => children[ring.pick(key)],
                Node::Operation { by_operation } => by_operation[operation as usize],
                Node::Prefix { policies, wildcard } => super::selector::by_prefix(policies, *wildcard, key),
                Node::Spool { target } if operation != Operation::Delete => *target,
                Node::SlowWarmUp(warm_up) if operation.class() != OperationClass::Get => warm_up.target,
                Node::Resize(resize) => resize.only(self, key)?,
                _ => return None,
            };
        }
    }

    /// The same for words about a request: past nodes that only limit or watch, too. Not for sending.
    pub(super) fn decided(
        &self,
        mut node: NodeId,
        key: &[u8],
        operation: Operation,
    ) -> Option<DestinationId> {
        loop {
            node = match &self.nodes[node as usize] {
                Node::Destination { id, .. } => return Some(*id),
                Node::Hash { ring, children } => children[ring.pick(key)],
                Node::Operation { by_operation } => by_operation[operation as usize],
                Node::Prefix { policies, wildcard } => super::selector::by_prefix(policies, *wildcard, key),
                Node::Spool { target } => *target,
                Node::RateLimit(limit) => limit.target,
                Node::Outstanding(limit) => limit.target,
                Node::Shadow(shadows) => shadows.target,
                Node::Logging(logging) => logging.target,
                Node::SlowWarmUp(warm_up) => warm_up.target,
                Node::Latency(latency) => latency.target,
                Node::BigValue(big) => big.target,
                Node::BoundedLoad(bounded) => bounded.children[bounded.ring.pick(key)],
                Node::Resize(resize) => resize.newest(),
                _ => return None,
            };
        }
    }

    /// The child of a pool's node that `key` belongs to; `None` when the pool has none.
    #[inline]
    pub(super) fn below(&self, node: NodeId, key: &[u8]) -> Option<NodeId> {
        match &self.nodes[node as usize] {
            Node::Destination { .. } => Some(node),
            Node::Hash { ring, children } => Some(children[ring.pick(key)]),
            _ => None,
        }
    }

    /// Whether keys may belong to `child` at a pool's `node`.
    pub(super) fn has_child(&self, node: NodeId, child: NodeId) -> bool {
        match &self.nodes[node as usize] {
            Node::Hash { children, .. } => children.contains(&child),
            _ => node == child,
        }
    }

    /// What becomes of an error before the client of `command` gets it: with the options of old, a miss.
    #[inline]
    #[must_use]
    pub fn softening_of(&self, command: &Command) -> Softening {
        let meta = matches!(command, Command::Meta(_));
        Operation::of(command).map_or(Softening::None, |operation| self.softening(operation, meta))
    }

    pub(super) const fn softening(&self, operation: Operation, meta: bool) -> Softening {
        // A meta client is told: there is no old one that knows it otherwise.
        match operation.class() {
            _ if meta => Softening::None,
            OperationClass::Get if self.miss_on_get_errors => Softening::Miss,
            OperationClass::Arithmetic if self.miss_on_arithmetic_errors => Softening::NotFound,
            _ => Softening::None,
        }
    }
}

/// What one shard keeps of a node.
#[derive(Debug)]
pub(super) enum NodeState {
    None,
    Failover(super::failover::State),
    Buckets([Option<Bucket>; 3]),
    Outstanding(super::outstanding::State),
    LoadBalancer(super::load_balancer::State),
    Logging(super::logging::State),
    SlowWarmUp(super::slow_warm_up::State),
    Lookaside { marks_met: std::cell::Cell<u32> },
    Resize(super::resize::Busy),
    Hedged(super::hedge::State),
    BoundedLoad(super::bounded_load::State),
}

/// A shard's tree.
#[derive(Debug)]
pub struct Routes {
    pub(super) tree: Arc<Tree>,
    pub(super) states: Box<[NodeState]>,
    /// Where the caller keeps each of the tree's destinations.
    places: Box<[u32]>,
}

impl Routes {
    /// With every bucket full and no failure remembered. Destinations are numbered as the tree has them.
    #[must_use]
    pub fn new(tree: Arc<Tree>) -> Self {
        let places = (0..tree.destinations.len() as u32).collect();
        Self::at(tree, places)
    }

    /// The same with destinations numbered by `places`, which has one for each of the tree's: numbers that outlive it.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn at(tree: Arc<Tree>, places: Box<[u32]>) -> Self {
        assert_eq!(places.len(), tree.destinations.len());
        let state = |node: &Node| match node {
            Node::Failover(failover) => NodeState::Failover(failover.state()),
            Node::RateLimit(limit) => NodeState::Buckets(limit.buckets()),
            Node::Outstanding(_) => NodeState::Outstanding(super::outstanding::State::default()),
            Node::Logging(logging) => NodeState::Logging(logging.state()),
            Node::SlowWarmUp(_) => NodeState::SlowWarmUp(super::slow_warm_up::State::default()),
            Node::LoadBalancer(balancer) => NodeState::LoadBalancer(balancer.state()),
            Node::Replicated(replicated) => match replicated.hedge {
                Some(hedge) => NodeState::Hedged(super::hedge::State::new(hedge, replicated.servers.len())),
                None => NodeState::None,
            },
            Node::BoundedLoad(bounded) => NodeState::BoundedLoad(bounded.state()),
            Node::Resize(_) => NodeState::Resize(super::resize::Busy::default()),
            Node::Lookaside(_) => NodeState::Lookaside { marks_met: std::cell::Cell::new(0) },
            _ => NodeState::None,
        };
        let states = tree.nodes.iter().map(state).collect();
        Self { tree, states, places }
    }

    /// The tree.
    #[must_use]
    pub const fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// See [`Tree::destinations`].
    #[must_use]
    pub fn destinations(&self) -> &[Destination] {
        self.tree.destinations()
    }

    /// The number of a destination of the tree.
    #[inline]
    #[must_use]
    pub fn place(&self, id: DestinationId) -> u32 {
        self.places[id.0 as usize]
    }

    /// See [`Tree::direct`].
    #[inline]
    #[must_use]
    pub fn direct(&self, key: &[u8], command: &Command) -> Option<DestinationId> {
        self.tree.direct(key, command)
    }
}

/// The shorter of two lives; 0 is for ever, and what is past stays past.
pub(super) const fn shorter(own: Exptime, max_s: i64) -> Exptime {
    match (own.0, max_s) {
        (_, 0) => own,
        (0, max) => Exptime(max),
        (own, max) => Exptime(if own < max { own } else { max }),
    }
}
