//! `SaltedFailoverRoute`: a pool, and while the reply is an error the pool's own servers, in the order that
//! the pool's hash gives with a salt more.

use serde_json::{Value, json};

use super::super::pool::{self, PoolRoute};
use super::node::{Failover, Order};
use super::policy::FailoverPolicy;
use super::salted_order::SaltedOrder;
use crate::config::{
    Builder, Checked, Child, Config, FailoverErrors, HandleId, Hash, Limit, PoolId, WrittenHandle,
    WrittenHash,
};
use crate::hash::Distribution;
use crate::route::compile::{Compiled, Compiler};
use crate::route::handle::RouteHandle;
use crate::route::node_set::NodeId;

/// `SaltedFailoverRoute`.
#[derive(Clone, Debug)]
pub(crate) struct SaltedFailoverRoute {
    /// The pool's handle.
    route: HandleId,
    /// The pool whose servers follow.
    pool: PoolId,
    /// What orders these servers; `None` when only the pool's own ring can.
    hash: Option<Hash>,
    errors: FailoverErrors,
    /// Servers tried at most.
    max_tries: usize,
    /// Errors at most, ejected destinations not counted.
    max_error_tries: usize,
    /// How often it fails over.
    limit: Option<Limit>,
}

impl RouteHandle for SaltedFailoverRoute {
    const NAMES: &'static [&'static str] = &["SaltedFailoverRoute"];
    const SHORT_KEY: &'static str = "pool";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let own = PoolRoute::parse_pool(builder, json, name)?;
        let pool = own.pool;
        // That of the pool is used where it is written here, as in mcrouter, which knows these two.
        let written = json
            .get("hash")
            .map_or_else(|| builder.check_hash(WrittenHash::default(), json), |_| Ok(own.hash.clone()))?;
        let is_consistent =
            |hash: &Hash| matches!(hash.distribution, Distribution::Ch3 | Distribution::WeightedCh3);
        let hash = (is_consistent(&own.hash) && is_consistent(&written)).then_some(written);
        let route = builder.push(own, json)?;
        let (max_tries, max_error_tries) = match FailoverPolicy::parse(builder, json)? {
            FailoverPolicy::InOrder { max_tries } => (max_tries, usize::MAX),
            FailoverPolicy::Deterministic { max_tries, max_error_tries, .. } => (max_tries, max_error_tries),
            FailoverPolicy::LeastFailures { .. } | FailoverPolicy::Rendezvous { .. } => {
                let remedy = "must be DeterministicOrderPolicy: its order is that of the pool's hash, salted";
                return Err(builder.fault(json, "SaltedFailoverRoute.failover_policy.type", "", remedy));
            }
        };
        let (errors, limit) = (builder.failover_errors(json)?, builder.failover_limit(json)?);
        let salted = Self { route, pool, hash, errors, max_tries, max_error_tries, limit };
        let salted = builder.push(salted, json)?;
        pool::put_around(builder, json, salted)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.route), Child::PoolMembers(self.pool)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "route": config.child_json(self.route),
            "pool": config.pool(self.pool).name,
            "max_tries": (self.max_tries < usize::MAX).then_some(self.max_tries),
            "max_error_tries": (self.max_error_tries < usize::MAX).then_some(self.max_error_tries),
            "failover_limit": self.limit.map(Limit::json),
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let servers = compiler.members(self.pool);
        let own = compiler.node(self.route);
        if servers.is_empty() {
            return Ok(own);
        }
        let ring = compiler.ring_below(own);
        let count = servers.len() as u32;
        let children: Vec<NodeId> = std::iter::once(own).chain(servers).collect();
        let order = match &self.hash {
            Some(hash) if ring.is_some() => {
                Order::Hashed(FailoverPolicy::hashed(compiler, hash, &children, ring, "SaltedFailoverRoute")?)
            }
            _ => Order::Salted(SaltedOrder { own: ring, servers: count }),
        };
        Ok(compiler.push(Failover {
            children: children.into(),
            errors: self.errors.clone(),
            order,
            tries_max: self.max_tries,
            error_tries_max: self.max_error_tries,
            limit: self.limit,
            exptime_max_s: None,
        }))
    }
}
