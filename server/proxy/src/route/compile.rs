//! From the configuration, and what its names resolved to, to a [`Tree`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::handles;
use super::handles::all::All;
use super::handles::big_value::BigValue;
use super::handles::blackhole::Blackhole;
use super::handles::bounded_load::BoundedLoad;
use super::handles::destination::DestinationNode;
use super::handles::error::ErrorNode;
use super::handles::failover::node::{Failover, Order};
use super::handles::failover::salted_order::SaltedOrder;
use super::handles::hash::HashNode;
use super::handles::key_split::KeySplit;
use super::handles::latency::Latency;
use super::handles::load_balancer::LoadBalancer;
use super::handles::logging::Logging;
use super::handles::lookaside::Lookaside;
use super::handles::migrate::Migrate;
use super::handles::miss_failover::MissFailover;
use super::handles::modify_exptime::ModifyExptime;
use super::handles::modify_key::ModifyKey;
use super::handles::null::Null;
use super::handles::operation_selector::OperationSelector;
use super::handles::outstanding::Outstanding;
use super::handles::prefix_selector::PrefixSelector;
use super::handles::random::Random;
use super::handles::rate_limit::RateLimit;
use super::handles::replicated::{CopyServer, Replicated};
use super::handles::resize::{Resize, RingGeneration};
use super::handles::shadow::{ShadowNode, Shadows};
use super::handles::shard_split::ShardSplits;
use super::handles::slow_warm_up::SlowWarmUp;
use super::handles::spool::Spool;
use super::node::Listed;
use super::node_set::{DestinationId, Node, NodeId, RingBelow};
use super::outcome;
use super::tree::{Destination, Tree};
use crate::config::{
    self, Child, Config, FailoverPolicy, Handle, HandleId, Hash, Limit, Member, Pool, PoolId, PoolRoute,
    ResolvedPools, Rings, Server,
};
use crate::hash::{KeyPart, Ring, RingError, RingServer, RingSpec, murmur, rendezvous};
use crate::request::Operation;
use corecached_protocol::Exptime;

/// Most destinations one `Pool|A` may come to, and children of a handle.
const CHILDREN_MAX: usize = 1 << 16;
/// Salts that a failover by hash tries, at most.
const SALTS_MAX: usize = 64;

/// Why there is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// The pool or the type of the handle.
    pub place: String,
    /// What is wrong with it.
    pub reason: RingError,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

impl std::error::Error for CompileError {}

impl Tree {
    /// Compiles `config`, with `resolved` in place of the members of the pools it names.
    ///
    /// # Errors
    /// The members that were found cannot make a ring.
    pub fn compile(config: &Config, resolved: &ResolvedPools) -> Result<Self, CompileError> {
        Self::compile_over(config, resolved, &Rings::default())
    }

    /// The same, and pools of which `rings` knows several go from one to the next.
    ///
    /// # Errors
    /// As [`Tree::compile`].
    pub fn compile_over(
        config: &Config,
        resolved: &ResolvedPools,
        rings: &Rings,
    ) -> Result<Self, CompileError> {
        let mut compiler = Compiler {
            config,
            resolved,
            rings,
            nodes: Vec::new(),
            destinations: Vec::new(),
            destination_nodes: HashMap::new(),
            of_handle: Vec::with_capacity(config.handles.len()),
            roots: Vec::new(),
        };
        for handle in &config.handles {
            let node = compiler.handle(handle)?;
            compiler.of_handle.push(node);
        }
        let mut roots: Vec<(String, NodeId)> = Vec::with_capacity(config.routes.len());
        for (prefix, handle) in &config.routes {
            roots.push((prefix.clone(), compiler.root(*handle)));
        }
        // The check saw to it that the default prefix is among the routes.
        let default_root =
            roots.iter().position(|(prefix, _)| *prefix == config.options.route_prefix).unwrap_or_default();
        Ok(Self {
            nodes: compiler.nodes,
            destinations: compiler.destinations,
            roots,
            default_root,
            send_invalid_route_to_default: config.options.send_invalid_route_to_default,
            miss_on_get_errors: config.options.miss_on_get_errors,
            miss_on_arithmetic_errors: config.options.miss_on_arithmetic_errors,
        })
    }
}

struct Compiler<'a> {
    config: &'a Config,
    resolved: &'a ResolvedPools,
    rings: &'a Rings,
    nodes: Vec<Node>,
    destinations: Vec<Destination>,
    /// By server, and whether keys keep their routing prefix.
    destination_nodes: HashMap<(Server, bool), NodeId>,
    of_handle: Vec<NodeId>,
    /// Of routes.
    roots: Vec<(HandleId, NodeId)>,
}

type Compiled<T> = Result<T, CompileError>;

impl Compiler<'_> {
    fn push(&mut self, node: impl Listed) -> NodeId {
        self.push_any(node.into_node())
    }

    fn push_any(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() as NodeId - 1
    }

    fn node(&self, handle: HandleId) -> NodeId {
        self.of_handle[handle.0 as usize]
    }

    /// The handle of a route, below what the options put in front of it.
    fn root(&mut self, handle: HandleId) -> NodeId {
        if let Some(&(_, root)) = self.roots.iter().find(|(known, _)| *known == handle) {
            return root; // routes with equal handles count as one for a `*`
        }
        let mut root = self.node(handle);
        let config::Options { big_value_threshold: threshold, big_value_batch: batch, .. } =
            self.config.options;
        if threshold > 0 {
            root = self.push(BigValue { target: root, threshold, batch });
        }
        if self.config.options.log_all {
            root = self.push(Logging { target: root, lines: Limit::LINES });
        }
        self.roots.push((handle, root));
        root
    }

    fn error_node(&mut self, text: &str) -> NodeId {
        self.push(ErrorNode { reply: outcome::local_error(text) })
    }

    fn resolved(&self, pool: PoolId) -> Option<&[Server]> {
        let pool = self.config.pool(pool);
        if pool.resolve { self.resolved.get(&pool.name).map(Vec::as_slice) } else { None }
    }

    /// A node for each member of a pool, in their order.
    fn members(&mut self, id: PoolId) -> Vec<NodeId> {
        let pool = self.config.pool(id);
        let resolved = self.resolved(id).map(<[Server]>::to_vec);
        let members = match resolved {
            Some(servers) => servers.into_iter().map(Member::Server).collect(),
            None => pool.members.clone(),
        };
        let node = |member: Member| match member {
            Member::Handle(handle) => self.node(handle),
            Member::Server(server) => self.destination(id, server),
        };
        members.into_iter().map(node).collect()
    }

    fn destination(&mut self, pool_id: PoolId, server: Server) -> NodeId {
        let pool = self.config.pool(pool_id);
        let key = (server.clone(), pool.keep_routing_prefix);
        if let Some(&node) = self.destination_nodes.get(&key) {
            return node;
        }
        let known = self.destinations.iter().position(|known| known.server == server);
        let at = known.unwrap_or_else(|| {
            self.destinations.push(Destination {
                server,
                pool: pool_id,
                ejected_limit: pool.ejected_limit,
                adaptive_concurrency: pool.adaptive_concurrency,
            });
            self.destinations.len() - 1
        });
        let id = DestinationId(at as u32);
        let node = self.push(DestinationNode { id, keep_routing_prefix: pool.keep_routing_prefix });
        self.destination_nodes.insert(key, node);
        node
    }

    fn children(&mut self, children: &[Child]) -> Box<[NodeId]> {
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

    fn ring(&self, hash: &Hash, servers: &[RingServer], place: &str) -> Compiled<Ring> {
        let spec = RingSpec {
            distribution: hash.distribution.clone(),
            key_part: hash.key_part.clone(),
            salt: hash.salt.clone().into_bytes(),
        };
        Ring::build(&spec, servers).map_err(|reason| CompileError { place: place.into(), reason })
    }

    /// What `nodes` hash by: their addresses where they are destinations, else their places.
    fn ring_servers(&self, hash: &Hash, nodes: &[NodeId]) -> Vec<RingServer> {
        let server = |(at, node): (usize, &NodeId)| {
            let destination = DestinationNode::in_node(&self.nodes[*node as usize]);
            let address =
                destination.map(|destination| &self.destinations[destination.id.0 as usize].server.address);
            let mut server = match address {
                Some(crate::config::Address::Tcp { host, port }) => RingServer::new(host, *port),
                Some(crate::config::Address::Unix { path }) => RingServer::new(path, 0),
                None => RingServer::new(&at.to_string(), 0),
            };
            if !hash.weights.is_empty() {
                server.weight = hash.weights.get(at).copied().unwrap_or(crate::hash::WEIGHT_MISSING);
            }
            server.tag = hash.tags.get(at).cloned();
            server
        };
        nodes.iter().enumerate().map(server).collect()
    }

    fn pool(&mut self, id: PoolId, hash: &Hash, route: &PoolRoute) -> Compiled<NodeId> {
        let config = self.config;
        let pool = config.pool(id);
        let &PoolRoute { spool_deletes: spool, slow_warm_up: slow, replicas, bounded_load, .. } = route;
        let resizes = slow.is_none() && replicas <= 1 && bounded_load.is_none();
        let rings =
            pool.warm_resize.filter(|_| resizes).and_then(|times| Some((times, self.rings.of(&pool.name)?)));
        if let Some((times, rings)) = rings {
            let node = self.resizing(id, hash, times, rings)?;
            let pool = &self.nodes[node as usize];
            let empty = Null::in_node(pool).is_some() || ErrorNode::in_node(pool).is_some();
            return Ok(if spool && !empty { self.push(Spool { target: node }) } else { node });
        }
        let mut children = self.members(id);
        if let Some(config::SlowWarmUp { failover, settings }) = slow {
            let failover = self.node(failover);
            for target in &mut children {
                *target = self.push(SlowWarmUp { target: *target, failover, settings });
            }
        }
        let node = match children[..] {
            [] if pool.error_on_empty => return Ok(self.error_node(&format!("pool {} is empty", pool.name))),
            [] => return Ok(self.push(Null)),
            [only] => only,
            _ => {
                let servers = hash.ring_servers(pool, self.resolved(id));
                let ring = Arc::new(self.ring(hash, &servers, &pool.name)?);
                if replicas > 1 {
                    return Ok(self.replicated(id, ring, &children, route));
                }
                match bounded_load {
                    Some(times) => return Ok(self.bounded(ring, &children, times, spool)),
                    None => self.push(HashNode { ring, children: children.into() }),
                }
            }
        };
        Ok(if spool { self.push(Spool { target: node }) } else { node })
    }

    /// A pool that goes from ring to ring.
    fn resizing(
        &mut self,
        id: PoolId,
        hash: &Hash,
        times: config::WarmResize,
        rings: &[config::Ring],
    ) -> Compiled<NodeId> {
        let config = self.config;
        let pool = config.pool(id);
        let mut generations = Vec::new();
        for ring in rings {
            let children: Vec<NodeId> =
                ring.members.iter().map(|server| self.destination(id, server.clone())).collect();
            let servers = hash.ring_servers(pool, Some(&ring.members));
            generations.push(RingGeneration {
                node: self.pool_of(pool, hash, children, &servers)?,
                since_ms: ring.since_ms,
            });
        }
        Ok(match generations[..] {
            [only] => only.node,
            _ => self.push(Resize { generations: generations.into(), times }),
        })
    }

    /// A pool whose keys have several copies, on `nodes`.
    fn replicated(&mut self, id: PoolId, ring: Arc<Ring>, nodes: &[NodeId], route: &PoolRoute) -> NodeId {
        let config = self.config;
        let pool = config.pool(id);
        let resolved = self.resolved(id);
        let mut names: Vec<&str> = Vec::new();
        let mut zones = Vec::with_capacity(nodes.len());
        for at in 0..nodes.len() {
            let address = match (resolved, pool.members.get(at)) {
                (Some(servers), _) => servers.get(at).map(|server| &server.address),
                (None, Some(Member::Server(server))) => Some(&server.address),
                (None, _) => None,
            };
            let name = pool.zones.of(at, address);
            let known = names.iter().position(|known| *known == name);
            zones.push(known.unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            }) as u32);
        }
        let own = config.options.zone.as_str();
        let own_zone = names.iter().position(|name| !own.is_empty() && *name == own).map(|zone| zone as u32);
        let count = names.len();
        let server = |(&node, zone): (&NodeId, u32)| {
            let keeping = if route.spool_deletes { self.push(Spool { target: node }) } else { node };
            CopyServer { node, keeping, zone }
        };
        let servers = nodes.iter().zip(zones).map(server).collect();
        self.push(Replicated {
            ring,
            servers,
            copies: route.replicas as usize,
            zones: count,
            own_zone,
            hedge: route.hedge,
        })
    }

    /// A pool whose servers have only so much under way.
    fn bounded(&mut self, ring: Arc<Ring>, children: &[NodeId], times: f64, spool: bool) -> NodeId {
        let keep = |&node: &NodeId| if spool { self.push(Spool { target: node }) } else { node };
        let keeping = children.iter().map(keep).collect();
        self.push(BoundedLoad { ring, children: children.into(), keeping, times })
    }

    /// The node of a pool that has these children, which hash by `servers`.
    fn pool_of(
        &mut self,
        pool: &Pool,
        hash: &Hash,
        children: Vec<NodeId>,
        servers: &[RingServer],
    ) -> Compiled<NodeId> {
        Ok(match children[..] {
            [] if pool.error_on_empty => self.error_node(&format!("pool {} is empty", pool.name)),
            [] => self.push(Null),
            [only] => only,
            _ => {
                let ring = Arc::new(self.ring(hash, servers, &pool.name)?);
                self.push(HashNode { ring, children: children.into() })
            }
        })
    }

    /// The ring of a pool under nodes that only limit or watch.
    fn ring_below(&self, mut node: NodeId) -> Option<Arc<Ring>> {
        loop {
            match self.nodes[node as usize].ring_below() {
                RingBelow::Ring(ring) => return Some(ring),
                RingBelow::At(below) => node = below,
                RingBelow::None => return None,
            }
        }
    }

    /// Places 0 to `count` in an order that differs from host to host and never changes on one.
    fn order_of_host(&self, count: usize, salt: &str) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|at| {
            murmur::murmur64a(format!("{}:{salt}:{at}", self.config.options.host_id).as_bytes(), 0)
        });
        order
    }

    fn failover(&mut self, children: Box<[NodeId]>, handle: &Handle) -> Compiled<Failover> {
        let (errors, policy, limit, exptime_max_s) = match handle {
            Handle::Failover { errors, policy, limit, exptime_max_s, .. } => {
                (errors.clone(), policy.clone(), *limit, *exptime_max_s)
            }
            Handle::Latest { errors, .. } => {
                (errors.clone(), FailoverPolicy::InOrder { max_tries: usize::MAX }, None, None)
            }
            _ => (Default::default(), FailoverPolicy::InOrder { max_tries: usize::MAX }, None, None),
        };
        let (mut tries_max, mut error_tries_max) = (usize::MAX, usize::MAX);
        let order = match policy {
            FailoverPolicy::InOrder { max_tries } => {
                tries_max = max_tries;
                Order::Written
            }
            FailoverPolicy::LeastFailures { max_tries } => {
                tries_max = max_tries;
                Order::LeastFailures
            }
            FailoverPolicy::Deterministic { max_tries, max_error_tries, hash } => {
                (tries_max, error_tries_max) = (max_tries, max_error_tries);
                let servers = self.ring_servers(&hash, &children);
                let salts = 1..=(children.len() * 4).min(SALTS_MAX);
                let ring = |salt: usize| {
                    let hash = Hash { salt: format!("{}{salt}", hash.salt), ..hash.clone() };
                    self.ring(&hash, &servers, handle.type_name())
                };
                Order::Hashed(salts.map(ring).collect::<Compiled<_>>()?)
            }
            FailoverPolicy::Rendezvous { tags } => {
                let tag = |at: usize| match tags.get(at) {
                    Some(tag) => rendezvous::tag_hash(tag.as_bytes()),
                    None => rendezvous::tag_hash(at.to_string().as_bytes()),
                };
                Order::Rendezvous((0..children.len()).map(tag).collect())
            }
        };
        Ok(Failover { children, errors, order, tries_max, error_tries_max, limit, exptime_max_s })
    }

    fn handle(&mut self, handle: &Handle) -> Compiled<NodeId> {
        let node = match handle {
            Handle::Pool { pool, hash, route } => return self.pool(*pool, hash, route),
            Handle::SaltedFailover { route, pool, errors, max_tries, max_error_tries, limit } => {
                let servers = self.members(*pool);
                let own = self.node(*route);
                if servers.is_empty() {
                    return Ok(own);
                }
                let salted = SaltedOrder { own: self.ring_below(own), servers: servers.len() as u32 };
                handles::Node::Failover(Failover {
                    children: std::iter::once(own).chain(servers).collect(),
                    errors: errors.clone(),
                    order: Order::Salted(salted),
                    tries_max: *max_tries,
                    error_tries_max: *max_error_tries,
                    limit: *limit,
                    exptime_max_s: None,
                })
            }
            Handle::ShardSplits { target, splits } => handles::Node::ShardSplit(ShardSplits {
                target: self.node(*target),
                splits: splits.iter().map(|(shard, split)| (shard.as_bytes().into(), *split)).collect(),
                host_id: self.config.options.host_id,
            }),
            Handle::Hash { children, hash } => {
                let children = self.children(children);
                let servers = self.ring_servers(hash, &children);
                let ring = Arc::new(self.ring(hash, &servers, handle.type_name())?);
                handles::Node::Hash(HashNode { ring, children })
            }
            Handle::Failover { children, .. } => {
                let children = self.children(children);
                handles::Node::Failover(self.failover(children, handle)?)
            }
            Handle::Latest { children, count, salt, .. } => {
                let all = self.children(children);
                let order = self.order_of_host(all.len(), salt);
                let chosen = order.iter().take(*count).map(|&at| all[at]).collect();
                handles::Node::Failover(self.failover(chosen, handle)?)
            }
            Handle::MissFailover { children, return_best_on_error } => {
                handles::Node::MissFailover(MissFailover {
                    children: self.children(children),
                    best: *return_best_on_error,
                })
            }
            Handle::All { children, wait } => {
                handles::Node::All(All { children: self.children(children), wait: *wait })
            }
            Handle::Random { children } => {
                handles::Node::Random(Random { children: self.children(children) })
            }
            Handle::HostId { children, salt } => {
                let children = self.children(children);
                return Ok(children[self.order_of_host(children.len(), salt)[0]]);
            }
            Handle::Null => handles::Node::Null(Null),
            Handle::Error { response } => {
                handles::Node::Error(ErrorNode { reply: outcome::local_error(response) })
            }
            Handle::OperationSelector { default, policies } => {
                let default = match default {
                    Some(handle) => self.node(*handle),
                    None => self.error_node("no route for this command"),
                };
                let mut by_operation = [default; Operation::NAMES.len()];
                for (operation, handle) in policies {
                    by_operation[*operation as usize] = self.node(*handle);
                }
                handles::Node::OperationSelector(OperationSelector { by_operation })
            }
            Handle::PrefixSelector { policies, wildcard } => {
                let wildcard = match wildcard {
                    Some(handle) => self.node(*handle),
                    None => self.error_node("no route for this key"),
                };
                let policy =
                    |(prefix, handle): &(String, HandleId)| (prefix.as_bytes().into(), self.node(*handle));
                handles::Node::PrefixSelector(PrefixSelector {
                    policies: policies.iter().map(policy).collect(),
                    wildcard,
                })
            }
            Handle::WarmUp { cold, warm, exptime_s } => handles::Node::Lookaside(Lookaside {
                front: self.node(*cold),
                back: self.node(*warm),
                exptime: Exptime(*exptime_s),
                get_only: false,
                back_on_error: true,
                mark_s: 0,
                mark_refresh: 0,
            }),
            Handle::L1L2 { l1, l2, upgrading_exptime_s, negative_exptime_s, negative_refresh } => {
                handles::Node::Lookaside(Lookaside {
                    front: self.node(*l1),
                    back: self.node(*l2),
                    exptime: Exptime(*upgrading_exptime_s),
                    get_only: true,
                    back_on_error: true,
                    mark_s: *negative_exptime_s,
                    mark_refresh: *negative_refresh,
                })
            }
            Handle::Migrate { from, to, start_s, interval_s } => handles::Node::Migrate(Migrate {
                from: self.node(*from),
                to: self.node(*to),
                start_s: *start_s,
                interval_s: (*interval_s).max(1),
                key_part: KeyPart::hash_stop(),
            }),
            Handle::Shadow { target, shadows } => {
                let target = self.node(*target);
                let whole = 2_f64.powi(32);
                let shadow = |shadow: &crate::config::Shadow| ShadowNode {
                    target: self.node(shadow.target),
                    index_range: shadow.index_range,
                    hashes: ((shadow.key_fraction.0 * whole) as u64, (shadow.key_fraction.1 * whole) as u64),
                    keys: shadow.keys.iter().map(|key| key.as_bytes().into()).collect(),
                    requests_fraction: shadow.requests_fraction,
                };
                handles::Node::Shadow(Shadows {
                    target,
                    ring: self.ring_below(target),
                    shadows: shadows.iter().map(shadow).collect(),
                    key_part: KeyPart::hash_stop(),
                })
            }
            Handle::RateLimit { target, rates } => {
                handles::Node::RateLimit(RateLimit { target: self.node(*target), rates: *rates })
            }
            Handle::OutstandingLimit { target, max } => {
                handles::Node::Outstanding(Outstanding { target: self.node(*target), max: *max })
            }
            Handle::LoadBalancer { children, algorithm, salt, ttl_ms, tries_max, errors } => {
                handles::Node::LoadBalancer(LoadBalancer {
                    children: self.children(children),
                    algorithm: *algorithm,
                    salt: salt.as_bytes().into(),
                    key_part: KeyPart::hash_stop(),
                    ttl_ms: u64::from(*ttl_ms).max(1),
                    tries_max: *tries_max,
                    errors: errors.clone(),
                })
            }
            Handle::BigValue { target, threshold, batch } => handles::Node::BigValue(BigValue {
                target: self.node(*target),
                threshold: *threshold,
                batch: *batch,
            }),
            Handle::Latency { target, before_ms, after_ms, total_ms } => handles::Node::Latency(Latency {
                target: self.node(*target),
                before_ms: u64::from(*before_ms),
                after_ms: u64::from(*after_ms),
                total_ms: u64::from(*total_ms),
            }),
            Handle::Blackhole { after_ms } => {
                handles::Node::Blackhole(Blackhole { after_ms: u64::from(*after_ms) })
            }
            Handle::Logging { target, lines } => {
                handles::Node::Logging(Logging { target: self.node(*target), lines: *lines })
            }
            Handle::KeySplit { target, replicas, all_sync, first_hit } => handles::Node::KeySplit(KeySplit {
                target: self.node(*target),
                replicas: *replicas,
                own: (self.config.options.host_id % u64::from(*replicas)) as u32,
                all_sync: *all_sync,
                first_hit: *first_hit,
            }),
            Handle::ModifyKey {
                target,
                set_routing_prefix,
                ensure_key_prefix,
                replace_key_prefix,
                set_key_suffix,
            } => {
                let bytes = |text: &Option<String>| text.clone().map(Into::into);
                handles::Node::ModifyKey(ModifyKey {
                    target: self.node(*target),
                    set_routing_prefix: bytes(set_routing_prefix),
                    ensure_key_prefix: bytes(ensure_key_prefix),
                    replace_key_prefix: bytes(replace_key_prefix),
                    set_key_suffix: bytes(set_key_suffix),
                })
            }
            Handle::ModifyExptime { target, exptime_s, min } => handles::Node::ModifyExptime(ModifyExptime {
                target: self.node(*target),
                exptime_s: *exptime_s,
                min: *min,
            }),
        };
        Ok(self.push_any(node))
    }
}
