//! The compiled tree, which is immutable, and what one shard keeps of it.

use std::sync::Arc;

use corecached_protocol::{Command, Exptime};

use super::error_downgrade::ErrorDowngrade;
use super::node_set::{DestinationId, Next, Node, NodeId, NodeState};
use crate::config::{AdaptiveConcurrency, EjectedLimit, PoolId, Server};
use crate::request::{Operation, OperationClass};

/// A server that requests are sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// The server; no two destinations of a tree have the same.
    pub server: Server,
    /// The first pool that has it, for names.
    pub pool: PoolId,
    /// How many servers of that pool may be ejected at once.
    pub ejected_limit: Option<EjectedLimit>,
    /// That pool's bounds on how many gets may be under way.
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
}

/// The compiled tree: made on the control thread, shared by all shards.
#[derive(Debug)]
pub struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) destinations: Vec<Destination>,
    /// Routing prefixes, `/region/cluster/`.
    pub(super) roots: Vec<(String, NodeId)>,
    /// The index in `roots` of the root for keys without a routing prefix.
    pub(super) default_root: usize,
    pub(super) send_invalid_route_to_default: bool,
    pub(super) miss_on_get_errors: bool,
    pub(super) miss_on_arithmetic_errors: bool,
    pub(super) group_errors: bool,
}

impl Tree {
    /// Every server that requests may be sent to, each once.
    #[must_use]
    pub fn destinations(&self) -> &[Destination] {
        &self.destinations
    }

    /// Whether `node` is the index of a node.
    pub(super) const fn has(&self, node: NodeId) -> bool {
        (node as usize) < self.nodes.len()
    }

    /// The destination that alone decides what `command` on `key` is answered: its reply, with the error
    /// downgrade of [`Tree::downgrade_of`], is the answer. `None` when [`super::Execution::begin`] is to be
    /// called. Allocates nothing.
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
        self.walk(self.roots[self.default_root].1, key, Operation::from_command(command)?)
    }

    /// The destination below `node` that alone decides what is answered, past nodes that only choose.
    #[inline]
    pub(super) fn walk(&self, mut node: NodeId, key: &[u8], operation: Operation) -> Option<DestinationId> {
        loop {
            match self.nodes[node as usize].direct(self, key, operation) {
                Next::Node(next) => node = next,
                Next::Destination(id) => return Some(id),
                Next::Undecided => return None,
            }
        }
    }

    /// The destination below `node` to which a request goes in most cases, past nodes that limit or watch
    /// too. For log lines, not for sending.
    pub(super) fn usual(&self, mut node: NodeId, key: &[u8], operation: Operation) -> Option<DestinationId> {
        loop {
            match self.nodes[node as usize].usual(key, operation) {
                Next::Node(next) => node = next,
                Next::Destination(id) => return Some(id),
                Next::Undecided => return None,
            }
        }
    }

    /// The error downgrade of `command`: a retrieval that failed is a miss where the options say so.
    #[inline]
    #[must_use]
    pub fn downgrade_of(&self, command: &Command) -> ErrorDowngrade {
        let meta = matches!(command, Command::Meta(_));
        Operation::from_command(command)
            .map_or(self.least_downgrade(), |operation| self.downgrade(operation, meta))
    }

    /// The error downgrade of a request of the binary protocol that is sent as `command`. A retrieval is that of a
    /// text client. Arithmetic is not: the protocol has a status for a value that is no number.
    #[must_use]
    pub fn downgrade_of_binary(&self, command: &Command) -> ErrorDowngrade {
        match Operation::from_command(command) {
            Some(operation) if operation.class() == OperationClass::Get => self.downgrade(operation, false),
            _ => self.least_downgrade(),
        }
    }

    pub(super) const fn downgrade(&self, operation: Operation, meta: bool) -> ErrorDowngrade {
        // Clients of meta commands expect errors.
        match operation.class() {
            _ if meta => self.least_downgrade(),
            OperationClass::Get if self.miss_on_get_errors => ErrorDowngrade::Miss,
            OperationClass::Arithmetic if self.miss_on_arithmetic_errors => ErrorDowngrade::NotFound,
            _ => self.least_downgrade(),
        }
    }

    /// That of requests whose errors are shown.
    const fn least_downgrade(&self) -> ErrorDowngrade {
        if self.group_errors { ErrorDowngrade::Grouped } else { ErrorDowngrade::None }
    }
}

/// A shard's tree: the tree that all shards share, and what this one keeps of its nodes.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(super) tree: Arc<Tree>,
    pub(super) states: Box<[NodeState]>,
    /// The caller's number of each of the tree's destinations.
    places: Box<[u32]>,
}

impl Routes {
    #[cfg(test)]
    /// With every bucket full and no failure remembered. Destinations are numbered as the tree has them.
    #[must_use]
    pub(crate) fn new(tree: Arc<Tree>) -> Self {
        let places = (0..tree.destinations.len() as u32).collect();
        Self::with_places(tree, places)
    }

    /// With every bucket full and no failure remembered. Destinations are numbered by `places`, which has one
    /// number for each of the tree's: numbers that outlive the tree.
    ///
    /// # Panics
    /// When there are fewer or more numbers than destinations.
    #[must_use]
    pub(crate) fn with_places(tree: Arc<Tree>, places: Box<[u32]>) -> Self {
        assert_eq!(places.len(), tree.destinations.len());
        assert!(tree.default_root < tree.roots.len(), "a tree has a default root");
        debug_assert!(tree.roots.iter().all(|&(_, root)| tree.has(root)));
        let states: Box<[NodeState]> = tree.nodes.iter().map(Node::state).collect();
        Self { tree, states, places }
    }

    /// The tree.
    #[must_use]
    pub(crate) const fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Every server that requests may be sent to, each once.
    #[must_use]
    pub(crate) fn destinations(&self) -> &[Destination] {
        self.tree.destinations()
    }

    /// The caller's number of a destination of the tree.
    #[inline]
    #[must_use]
    pub(crate) fn place(&self, id: DestinationId) -> u32 {
        self.places[id.0 as usize]
    }

    /// As [`Tree::direct`].
    #[inline]
    #[must_use]
    pub(crate) fn direct(&self, key: &[u8], command: &Command) -> Option<DestinationId> {
        self.tree.direct(key, command)
    }
}

/// The shorter of two TTLs in seconds; 0 is for ever, and a time in the past stays in the past.
pub(super) const fn shorter(own: Exptime, max_s: i64) -> Exptime {
    match (own.0, max_s) {
        (_, 0) => own,
        (0, max) => Exptime(max),
        (own, max) => Exptime(if own < max { own } else { max }),
    }
}
