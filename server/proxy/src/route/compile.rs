//! What route handles have to work with while they are compiled into nodes of a tree.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Listed;
use super::node_set::{DestinationId, Node, NodeId, RingBelow};
use super::tree::Destination;
use crate::config::{
    Address, Child, Config, Handle, HandleId, Hash, Member, PoolId, ResolvedPools, Rings, Server,
};
use crate::hash::{Ring, RingError, RingServer, RingSpec, WEIGHT_MISSING, murmur};

/// Most destinations that one `Pool|A` may stand for, and most children of a handle.
const CHILDREN_MAX: usize = 1 << 16;

/// Why there is no tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct CompileError {
    /// The pool, or the type of the handle.
    pub place: String,
    /// What is wrong with it.
    pub reason: RingError,
}

pub(super) type Compiled<T> = Result<T, CompileError>;

/// One tree in the making.
pub(super) struct Compiler<'a> {
    pub config: &'a Config,
    pub rings: &'a Rings,
    resolved: &'a ResolvedPools,
    nodes: Vec<Node>,
    destinations: Vec<Destination>,
    /// By server, and whether keys keep their routing prefix.
    destination_nodes: HashMap<(Server, bool), NodeId>,
    destination_ids: HashMap<NodeId, DestinationId>,
    /// The node of each handle that was compiled.
    handle_nodes: Vec<NodeId>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(config: &'a Config, resolved: &'a ResolvedPools, rings: &'a Rings) -> Self {
        Self {
            config,
            rings,
            resolved,
            nodes: Vec::new(),
            destinations: Vec::new(),
            destination_nodes: HashMap::new(),
            destination_ids: HashMap::new(),
            handle_nodes: Vec::with_capacity(config.handles.len()),
        }
    }

    /// Compiles the next handle of the configuration.
    pub(super) fn compile(&mut self, handle: &Handle) -> Compiled<()> {
        let node = handle.compile(self)?;
        debug_assert!((node as usize) < self.nodes.len(), "{handle:?} has no node");
        self.handle_nodes.push(node);
        Ok(())
    }

    /// The nodes and destinations of all handles.
    pub(super) fn finish(self) -> (Vec<Node>, Vec<Destination>) {
        assert!(!self.nodes.is_empty(), "a configuration has a route");
        (self.nodes, self.destinations)
    }

    /// Adds a node.
    pub(super) fn push(&mut self, node: impl Listed) -> NodeId {
        self.push_any(node.into_node())
    }

    fn push_any(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() as NodeId - 1
    }

    /// The node of a handle that was compiled.
    pub(super) fn node(&self, handle: HandleId) -> NodeId {
        self.handle_nodes[handle.0 as usize]
    }

    /// Node `node`, if it is of the kind `N`.
    pub(super) fn get<N: Listed>(&self, node: NodeId) -> Option<&N> {
        N::in_node(&self.nodes[node as usize])
    }

    /// Adds a node that answers with an error.
    pub(super) fn error_node(&mut self, text: &str) -> NodeId {
        self.push_any(Node::error(text))
    }

    /// The servers that a pool's name resolved to; `None` when those written count.
    pub(super) fn resolved(&self, pool: PoolId) -> Option<&'a [Server]> {
        let pool = self.config.pool(pool);
        if pool.resolve { self.resolved.get(&pool.name).map(Vec::as_slice) } else { None }
    }

    /// A node for each member of a pool, in their order.
    pub(super) fn members(&mut self, id: PoolId) -> Vec<NodeId> {
        let pool = self.config.pool(id);
        match self.resolved(id) {
            Some(servers) => servers.iter().map(|server| self.destination(id, server)).collect(),
            None => {
                let node = |member: &Member| match member {
                    Member::Handle(handle) => self.node(*handle),
                    Member::Server(server) => self.destination(id, server),
                };
                pool.members.iter().map(node).collect()
            }
        }
    }

    /// The node of a server of a pool.
    pub(super) fn destination(&mut self, pool_id: PoolId, server: &Server) -> NodeId {
        let pool = self.config.pool(pool_id);
        let key = (server.clone(), pool.keep_routing_prefix);
        if let Some(&node) = self.destination_nodes.get(&key) {
            return node;
        }
        let known = self.destinations.iter().position(|known| known.server == *server);
        let at = known.unwrap_or_else(|| {
            self.destinations.push(Destination {
                server: server.clone(),
                pool: pool_id,
                ejected_limit: pool.ejected_limit,
                adaptive_concurrency: pool.adaptive_concurrency,
            });
            self.destinations.len() - 1
        });
        let id = DestinationId(at as u32);
        let node = self.push_any(Node::destination(id, pool.keep_routing_prefix));
        self.destination_nodes.insert(key, node);
        self.destination_ids.insert(node, id);
        node
    }

    /// The nodes of a handle's children, at least one.
    pub(super) fn children(&mut self, children: &[Child]) -> Box<[NodeId]> {
        let mut nodes = Vec::new();
        for child in children {
            match child {
                Child::Handle(handle) => nodes.push(self.node(*handle)),
                Child::PoolMembers(pool) => nodes.extend(self.members(*pool)),
            }
        }
        nodes.truncate(CHILDREN_MAX);
        if nodes.is_empty() {
            nodes.push(self.error_node("no destinations")); // all its pools are empty
        }
        nodes.into()
    }

    /// The ring of `servers`; `place` says in an error what it is the ring of.
    pub(super) fn ring(&self, hash: &Hash, servers: &[RingServer], place: &str) -> Compiled<Ring> {
        let spec = RingSpec {
            distribution: hash.distribution.clone(),
            key_part: hash.key_part.clone(),
            salt: hash.salt.clone().into_bytes(),
        };
        Ring::build(&spec, servers).map_err(|reason| CompileError { place: place.into(), reason })
    }

    /// What `nodes` hash by: their addresses where they are destinations, else their indices.
    pub(super) fn ring_servers(&self, hash: &Hash, nodes: &[NodeId]) -> Vec<RingServer> {
        let server = |(at, node): (usize, &NodeId)| {
            let destination = self.destination_ids.get(node).map(|id| &self.destinations[id.0 as usize]);
            let mut server = match destination.map(|destination| &destination.server.address) {
                Some(Address::Tcp { host, port }) => RingServer::new(host, *port),
                Some(Address::Unix { path }) => RingServer::new(path, 0),
                None => RingServer::new(&at.to_string(), 0),
            };
            if !hash.weights.is_empty() {
                server.weight = hash.weights.get(at).copied().unwrap_or(WEIGHT_MISSING);
            }
            server.tag = hash.tags.get(at).cloned();
            server
        };
        nodes.iter().enumerate().map(server).collect()
    }

    /// The ring of a pool under nodes that only limit or watch.
    pub(super) fn ring_below(&self, mut node: NodeId) -> Option<Arc<Ring>> {
        loop {
            match self.nodes[node as usize].ring_below() {
                RingBelow::Ring(ring) => return Some(ring),
                RingBelow::At(below) => node = below,
                RingBelow::None => return None,
            }
        }
    }

    /// The indices 0 to `count` in an order that differs from host to host and never changes on one.
    pub(super) fn order_of_host(&self, count: usize, salt: &str) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|at| {
            murmur::murmur64a(format!("{}:{salt}:{at}", self.config.options.host_id).as_bytes(), 0)
        });
        order
    }
}
