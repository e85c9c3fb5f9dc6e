//! The resolved tree as JSON, for `check-config`: macros expanded, defaults filled in, names shown once.

use std::fmt;

use serde_json::{Map, Value, json};

use super::checked::Config;
use super::handle::{Child, HandleId, Hash, Limit};
use super::pool::{Member, Pool};
use super::zone::Zones;

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools: Map<String, Value> =
            self.pools.iter().map(|pool| (pool.name.clone(), self.pool_json(pool))).collect();
        // Names stand for their handles everywhere, so that what is shared is shown once.
        let named: Map<String, Value> =
            self.names.iter().map(|(name, handle)| (name.clone(), self.handle_json(*handle))).collect();
        let routes: Map<String, Value> =
            self.routes.iter().map(|(prefix, handle)| (prefix.clone(), self.child_json(*handle))).collect();
        let all = json!({"pools": pools, "named_handles": named, "routes": routes});
        let text = serde_json::to_string_pretty(&all).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl Config {
    fn pool_json(&self, pool: &Pool) -> Value {
        let servers: Vec<Value> = pool
            .members
            .iter()
            .map(|member| match member {
                Member::Server(server) => json!({
                    "address": server.address.to_string(),
                    "tls": server.tls,
                    "server_timeout": server.reply_timeout_ms,
                    "connect_timeout": server.connect_timeout_ms,
                }),
                Member::Handle(handle) => self.child_json(*handle),
            })
            .collect();
        let (zones, zone_pattern) = match &pool.zones {
            Zones::Unknown => (None, None),
            Zones::Listed(zones) => (Some(zones), None),
            Zones::Named(pattern) => (None, Some(pattern.text())),
        };
        json!({
            "servers": servers,
            "zones": zones,
            "zone_pattern": zone_pattern,
            "resolve": pool.resolve,
            "warm_resize": pool.warm_resize.map(|times| json!({
                "window_ms": times.window_ms,
                "grace_ms": times.grace_ms,
                "invalidate_ms": times.invalidate_ms,
            })),
            "adaptive_concurrency": pool.adaptive_concurrency.map(|limit| json!({
                "min": limit.min,
                "max": limit.max,
            })),
            "endpoint_slices": pool.endpoint_slices.as_ref().map(ToString::to_string),
            "weights": pool.weights,
            "tags": pool.tags,
            "keep_routing_prefix": pool.keep_routing_prefix,
            "error_on_empty": pool.error_on_empty,
        })
    }

    /// A child: by its name, if it has one.
    pub(crate) fn child_json(&self, handle: HandleId) -> Value {
        match self.names.iter().find(|(_, named)| *named == handle) {
            Some((name, _)) => Value::from(name.as_str()),
            None => self.handle_json(handle),
        }
    }

    /// Children.
    pub(crate) fn children_json(&self, children: &[Child]) -> Value {
        let child = |child: &Child| match child {
            Child::Handle(handle) => self.child_json(*handle),
            Child::PoolMembers(pool) => Value::from(format!("Pool|{}", self.pool(*pool).name)),
        };
        children.iter().map(child).collect()
    }

    fn handle_json(&self, handle: HandleId) -> Value {
        let handle = self.handle(handle);
        let mut members = handle.show(self);
        if let Some(members) = members.as_object_mut() {
            members.insert("type".into(), handle.name().into());
        }
        members
    }
}

impl Hash {
    /// As JSON, for `check-config`.
    pub(crate) fn json(&self) -> Value {
        json!({
            "hash_func": format!("{:?}", self.distribution),
            "key_part": self.key_part.to_string(),
            "salt": self.salt,
            "weights": self.weights,
            "tags": self.tags,
        })
    }
}

impl Limit {
    /// As JSON, for `check-config`.
    pub(crate) fn json(self) -> Value {
        json!({"rate": self.rate, "burst": self.burst})
    }
}
