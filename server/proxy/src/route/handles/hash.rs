//! The node of a pool, and of `HashRoute`: a request goes to the child that its key belongs to.

use std::convert::Infallible;
use std::sync::Arc;

use serde_json::{Value, json};

use super::failover::latest::LatestRoute;
use super::load_balancer::LoadBalancerRoute;
use super::null::Null;
use crate::config::{Builder, Checked, Child, Config, HandleId, Hash, Json, Pool, WrittenHandle};
use crate::hash::{Ring, RingServer};
use crate::request::{Operation, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::{Next, NodeId, RingBelow};
use crate::route::tree::Tree;

/// `HashRoute`.
#[derive(Clone, Debug)]
pub(crate) struct HashRoute {
    children: Vec<Child>,
    /// How keys are laid out over them.
    hash: Hash,
}

impl RouteHandle for HashRoute {
    const NAMES: &'static [&'static str] = &["HashRoute"];
    const SHORT_KEY: &'static str = "children";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let children = builder.children_at(json, name)?;
        match json.get("hash_func").and_then(Json::as_str) {
            Some("Latest") => LatestRoute::parse_over(builder, json, children),
            Some("LoadBalancer") => LoadBalancerRoute::parse_over(builder, json, children),
            _ => {
                let hash = builder.hash(json)?;
                builder.push(Self { children, hash }, json)
            }
        }
    }

    fn children(&self) -> Vec<Child> {
        self.children.clone()
    }

    fn show(&self, config: &Config) -> Value {
        json!({"children": config.children_json(&self.children), "hash": self.hash.json()})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let children = compiler.children(&self.children);
        let servers = compiler.ring_servers(&self.hash, &children);
        let ring = Arc::new(compiler.ring(&self.hash, &servers, self.name())?);
        Ok(compiler.push(HashNode { ring, children }))
    }
}

/// Adds the node of a pool that has these children, which hash by `servers`.
pub(super) fn push_pool(
    compiler: &mut Compiler,
    pool: &Pool,
    hash: &Hash,
    children: Vec<NodeId>,
    servers: &[RingServer],
) -> Compiled<NodeId> {
    debug_assert_eq!(children.len(), servers.len());
    Ok(match children[..] {
        [] if pool.error_on_empty => compiler.error_node(&format!("pool {} is empty", pool.name)),
        [] => compiler.push(Null),
        [only] => only,
        _ => {
            let ring = Arc::new(compiler.ring(hash, servers, &pool.name)?);
            compiler.push(HashNode { ring, children: children.into() })
        }
    })
}

/// To the child that the key belongs to.
#[derive(Debug)]
pub(in crate::route) struct HashNode {
    pub ring: Arc<Ring>,
    pub children: Box<[NodeId]>,
}

impl HashNode {
    #[inline]
    pub(crate) fn child(&self, key: &[u8]) -> NodeId {
        self.children[self.ring.pick(key)]
    }
}

impl RouteNode for HashNode {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {
        debug_assert!(!self.children.is_empty(), "a ring has members");
    }

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        step.start(self.child(request.key()), request, parent);
    }

    #[inline]
    fn direct(&self, _: &Tree, key: &[u8], _: Operation) -> Next {
        Next::Node(self.child(key))
    }

    fn usual(&self, key: &[u8], _: Operation) -> Next {
        Next::Node(self.child(key))
    }

    fn late_delete(&self, key: &[u8], _: u64) -> Next {
        Next::Node(self.child(key))
    }

    fn ring_below(&self) -> RingBelow {
        RingBelow::Ring(Arc::clone(&self.ring))
    }
}
