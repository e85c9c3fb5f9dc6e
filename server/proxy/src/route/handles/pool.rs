//! `PoolRoute`: the destination of a pool that the key belongs to. How keys are laid out over the pool, and
//! the handles around it that the same object may ask for.

use std::sync::Arc;

use serde_json::{Value, json};

use super::error::ErrorNode;
use super::failover::latest::LatestRoute;
use super::hash::HashNode;
use super::null::Null;
use super::outstanding::OutstandingLimitRoute;
use super::rate_limit::{RateLimitRoute, Rates};
use super::replicated::{self, Hedge, REPLICAS_MAX, Replication};
use super::shadow::{Shadow, ShadowRoute};
use super::shard_split::{ShardSplit, ShardSplitRoute};
use super::slow_warm_up::SlowWarmUpPart;
use super::spool::Spool;
use super::{bounded_load, resize};
use crate::config::{
    Builder, Checked, Child, Config, HandleId, Hash, Json, JsonNode, PoolId, PoolUse, WrittenHandle,
    WrittenHash,
};
use crate::hash::Distribution;
use crate::route::compile::{Compiled, Compiler};
use crate::route::handle::RouteHandle;
use crate::route::node_set::NodeId;

/// `PoolRoute`.
#[derive(Clone, Debug)]
pub(crate) struct PoolRoute {
    pub pool: PoolId,
    /// How keys are laid out over the pool.
    pub hash: Hash,
    /// Failed deletes are handed out for later delivery, and answered `NOT_FOUND`.
    pub spool_deletes: bool,
    /// Spare servers that find little.
    slow_warm_up: Option<SlowWarmUpPart>,
    /// Copies of each key, on as many servers; 1 to [`REPLICAS_MAX`].
    replicas: u32,
    /// Gets that wait are sent to a second copy.
    hedge: Option<Hedge>,
    /// A destination gets no more than so many times the average of what is under way.
    bounded_load: Option<f64>,
}

impl RouteHandle for PoolRoute {
    const NAMES: &'static [&'static str] = &["PoolRoute"];
    const SHORT_KEY: &'static str = "pool";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let handle = if hash_function(json) == Some("Latest") {
            let pool = Self::parse_name(builder, json, name)?;
            let at = json.get("hash").filter(|hash| hash.as_object().is_some()).unwrap_or(json).clone();
            LatestRoute::parse_over(builder, &at, vec![Child::PoolMembers(pool)])?
        } else {
            let route = Self::parse_pool(builder, json, name)?;
            builder.push(route, json)?
        };
        put_around(builder, json, handle)
    }

    fn children(&self) -> Vec<Child> {
        let spare = self.slow_warm_up.map(|part| Child::Handle(part.failover));
        std::iter::once(Child::PoolMembers(self.pool)).chain(spare).collect()
    }

    fn show(&self, config: &Config) -> Value {
        let mut pool = json!({
            "pool": config.pool(self.pool).name,
            "hash": self.hash.json(),
            "asynclog": self.spool_deletes,
        });
        if self.replicas > 1 {
            pool["replicas"] = json!(self.replicas);
        }
        if let Some(hedge) = self.hedge {
            pool["hedge"] = hedge.show();
        }
        if let Some(times) = self.bounded_load {
            pool["bounded_load"] = json!(times);
        }
        if let Some(part) = &self.slow_warm_up {
            pool["slow_warmup"] = part.show(config);
        }
        pool
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let pool = compiler.config.pool(self.pool);
        let resizes = self.slow_warm_up.is_none() && self.replicas <= 1 && self.bounded_load.is_none();
        let rings = compiler.rings;
        let rings =
            pool.warm_resize.filter(|_| resizes).and_then(|times| Some((times, rings.for_pool(&pool.name)?)));
        if let Some((times, rings)) = rings {
            let node = resize::push(compiler, self.pool, &self.hash, times, rings)?;
            let empty = compiler.get::<Null>(node).is_some() || compiler.get::<ErrorNode>(node).is_some();
            return Ok(if empty { node } else { self.keep_deletes(compiler, node) });
        }
        let mut children = compiler.members(self.pool);
        if let Some(part) = &self.slow_warm_up {
            part.put_in_front(compiler, &mut children);
        }
        let node = match children[..] {
            [] if pool.error_on_empty => {
                return Ok(compiler.error_node(&format!("pool {} is empty", pool.name)));
            }
            [] => return Ok(compiler.push(Null)),
            [only] => only,
            _ => {
                let servers = self.hash.ring_servers(pool, compiler.resolved(self.pool));
                let ring = Arc::new(compiler.ring(&self.hash, &servers, &pool.name)?);
                if self.replicas > 1 {
                    let &Self { replicas, hedge, spool_deletes, .. } = self;
                    let replication = Replication { replicas, hedge, spool_deletes };
                    return Ok(replicated::push(compiler, self.pool, ring, &children, replication));
                }
                if let Some(times) = self.bounded_load {
                    return Ok(bounded_load::push(compiler, ring, &children, times, self.spool_deletes));
                }
                compiler.push(HashNode { ring, children: children.into() })
            }
        };
        Ok(self.keep_deletes(compiler, node))
    }

    fn pool_use(&self) -> Option<PoolUse<'_>> {
        Some(PoolUse { pool: self.pool, hash: &self.hash, replicas: self.replicas })
    }
}

impl PoolRoute {
    /// Reads the pool. `kind` is the type of the handle.
    fn parse_name(builder: &mut Builder, json: &Json, kind: &str) -> Checked<PoolId> {
        let Some(pool) = json.get("pool") else {
            return Err(builder.fault(json, &format!("{kind}.pool"), "", "is missing: a pool's name"));
        };
        let name = match &pool.node {
            JsonNode::String(name) => name.clone(),
            // A pool written in place.
            JsonNode::Object(_) => {
                let name = builder.text_at(pool, "name")?;
                let name = name.ok_or_else(|| builder.wrong(pool, "PoolRoute.pool", "needs a \"name\""))?;
                builder.keep_pool(&name, pool);
                name
            }
            _ => return Err(builder.wrong(pool, "PoolRoute.pool", "must be a pool's name")),
        };
        builder.pool(&name, json)
    }

    /// Reads the pool and how it is sent to, without what [`put_around`] puts around it. `kind` is the type
    /// of the handle.
    pub(crate) fn parse_pool(builder: &mut Builder, json: &Json, kind: &str) -> Checked<Self> {
        let pool = Self::parse_name(builder, json, kind)?;
        let hash = match json.get("hash") {
            Some(hash) if hash.as_str().is_some() => {
                let function = hash.as_str().map(str::to_owned);
                builder.check_hash(WrittenHash { function, ..WrittenHash::default() }, hash)?
            }
            Some(hash) => builder.hash(hash)?,
            None => builder.hash(json)?,
        };
        let weighted = hash_function(json).is_none() && builder.is_weighted(pool);
        let distribution = if weighted { Distribution::WeightedCh3 } else { hash.distribution };
        let hash = Hash { distribution, ..hash };
        let spool_deletes = builder.options.spool_deletes && builder.flag_at(json, "asynclog", true)?;
        let slow_warm_up = SlowWarmUpPart::parse(builder, json)?;
        let replicas = builder.int_at(json, "replicas", 1, i64::from(REPLICAS_MAX))?.unwrap_or(1) as u32;
        if replicas > 1 && kind == "SaltedFailoverRoute" {
            let remedy = "stands in a PoolRoute, which fails over within its copies";
            return Err(builder.fault(json, "SaltedFailoverRoute.replicas", &replicas.to_string(), remedy));
        }
        let hedge = Hedge::parse(builder, json, replicas)?;
        let bounded_load = bounded_load::parse(builder, json, kind, replicas)?;
        Ok(Self { pool, hash, spool_deletes, slow_warm_up, replicas, hedge, bounded_load })
    }

    fn keep_deletes(&self, compiler: &mut Compiler, node: NodeId) -> NodeId {
        if self.spool_deletes { compiler.push(Spool { target: node }) } else { node }
    }
}

/// The hash function that is written in a handle or in its `hash`.
fn hash_function(json: &Json) -> Option<&str> {
    let Some(hash) = json.get("hash") else { return json.get("hash_func")?.as_str() };
    hash.as_str().or_else(|| hash.get("hash_func")?.as_str())
}

/// Puts the handles around a pool's `handle` that the same object asks for.
pub(super) fn put_around(builder: &mut Builder, json: &Json, mut handle: HandleId) -> Checked<HandleId> {
    if let Some(max) = OutstandingLimitRoute::parse_max(builder, json)? {
        handle = builder.push(OutstandingLimitRoute { target: handle, max }, json)?;
    }
    if let Some(rates) = json.get("rates") {
        let rates = Rates::parse(builder, rates)?;
        handle = builder.push(RateLimitRoute { target: handle, rates }, json)?;
    }
    if json.get("shadows").is_some() {
        let shadows = Shadow::parse_all(builder, json)?;
        handle = builder.push(ShadowRoute { target: handle, shadows }, json)?;
    }
    let splits = ShardSplit::parse_all(builder, json)?;
    if builder.options.shard_splits && !splits.is_empty() {
        handle = builder.push(ShardSplitRoute { target: handle, splits }, json)?;
    }
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use crate::route::tests::{Bench, TIMEOUT, error, options};

    /// Where each of some keys goes under `route`.
    fn servers(route: &str) -> String {
        let pools = r#""p": {"servers": ["a:1", "b:1", "c:1"]}, "w": {"servers": ["a:1", "b:1", "c:1"], "weights": [1, 0.1, 0.1]}"#;
        let mut bench = Bench::with(&format!("{{\"pools\": {{{pools}}}, \"route\": {route}}}"), &options());
        let mut servers = String::new();
        for key in 0..60 {
            bench.ask(&format!("get k{key}"), "");
            let sent = bench.waiting()[0].to_owned();
            servers.push_str(&sent[..1]);
            while let Some(sent) = bench.waiting().first().map(|&sent| sent.to_owned()) {
                bench.reply(&sent, error(TIMEOUT));
            }
        }
        servers
    }

    #[test]
    fn weights_decide_where_a_pool_or_a_hash_function_asks_for_them() {
        let plain = servers(r#""PoolRoute|p""#);
        let weighted = servers(
            r#"{"type": "PoolRoute", "pool": "p", "hash": {"hash_func": "WeightedCh3", "weights": [1, 0.1, 0.1]}}"#,
        );
        assert_ne!(plain, weighted);
        for (route, expected) in [
            (r#""PoolRoute|w""#, &weighted),
            (r#"{"type": "PoolRoute", "pool": "w", "hash": {}}"#, &weighted),
            (r#"{"type": "PoolRoute", "pool": "w", "hash": {"salt": ""}}"#, &weighted),
            (r#"{"type": "PoolRoute", "pool": "w", "hash": "Ch3"}"#, &plain),
            (r#"{"type": "PoolRoute", "pool": "w", "hash_func": "Ch3"}"#, &plain),
            (r#"{"type": "PoolRoute", "pool": "p", "hash": {"weights": [1, 0.1, 0.1]}}"#, &plain),
            (r#"{"type": "HashRoute", "children": "Pool|p", "weights": [1, 0.1, 0.1]}"#, &plain),
            (
                r#"{"type": "HashRoute", "children": "Pool|p", "hash_func": "WeightedCh3", "weights": [1, 0.1, 0.1]}"#,
                &weighted,
            ),
        ] {
            assert_eq!(servers(route), *expected, "{route}");
        }
    }

    #[test]
    fn a_pool_by_latest_is_a_latest_route_over_its_servers() {
        let latest =
            servers(r#"{"type": "LatestRoute", "children": "Pool|p", "failover_count": 2, "salt": "x"}"#);
        for route in [
            r#"{"type": "PoolRoute", "pool": "p", "hash": "Latest", "failover_count": 2, "salt": "x"}"#,
            r#"{"type": "PoolRoute", "pool": "p", "hash": {"hash_func": "Latest", "failover_count": 2, "salt": "x"}}"#,
        ] {
            assert_eq!(servers(route), latest, "{route}");
        }
    }
}
