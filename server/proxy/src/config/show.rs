//! The resolved tree as JSON, for `check-config`: macros expanded, defaults filled in, names shown once.

use std::fmt;

use serde_json::{Map, Value, json};

use super::{Child, Config, Handle, HandleId, Hash, Member, Pool, SlowWarmUp, zone::Zones};

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

    fn child_json(&self, handle: HandleId) -> Value {
        match self.names.iter().find(|(_, named)| *named == handle) {
            Some((name, _)) => Value::from(name.as_str()),
            None => self.handle_json(handle),
        }
    }

    fn children_json(&self, children: &[Child]) -> Value {
        let child = |child: &Child| match child {
            Child::Handle(handle) => self.child_json(*handle),
            Child::PoolMembers(pool) => Value::from(format!("Pool|{}", self.pool(*pool).name)),
        };
        children.iter().map(child).collect()
    }

    fn handle_json(&self, handle: HandleId) -> Value {
        let handle = self.handle(handle);
        let one = |handle: &HandleId| self.child_json(*handle);
        let mut members = match handle {
            Handle::Pool { pool, hash, route } => {
                let mut pool = json!({
                    "pool": self.pool(*pool).name,
                    "hash": hash_json(hash),
                    "asynclog": route.spool_deletes,
                });
                if route.replicas > 1 {
                    pool["replicas"] = json!(route.replicas);
                }
                if let Some(hedge) = route.hedge {
                    pool["hedge"] = json!({
                        "percentile": hedge.percentile,
                        "budget_percent": hedge.budget * 100.0,
                        "min_delay_ms": hedge.min_delay_ms,
                    });
                }
                if let Some(times) = route.bounded_load {
                    pool["bounded_load"] = json!(times);
                }
                if let Some(SlowWarmUp { failover, settings }) = &route.slow_warm_up {
                    pool["slow_warmup"] = json!({
                        "failoverTarget": one(failover),
                        "settings": {
                            "enable_threshold": settings.enable_threshold,
                            "disable_threshold": settings.disable_threshold,
                            "start": settings.start,
                            "step": settings.step,
                            "min_requests": settings.min_requests,
                        },
                    });
                }
                pool
            }
            Handle::SaltedFailover { route, pool, max_tries, max_error_tries, limit, .. } => json!({
                "route": one(route),
                "pool": self.pool(*pool).name,
                "max_tries": (*max_tries < usize::MAX).then_some(max_tries),
                "max_error_tries": (*max_error_tries < usize::MAX).then_some(max_error_tries),
                "failover_limit": limit.map(|limit| json!({"rate": limit.rate, "burst": limit.burst})),
            }),
            Handle::ShardSplits { target, splits } => {
                let split = |(shard, split): &(String, super::ShardSplit)| {
                    let split = json!({
                        "old_split_size": split.old,
                        "new_split_size": split.new,
                        "split_start": split.start_s,
                        "migration_period": split.period_s,
                    });
                    (shard.clone(), split)
                };
                let splits: Map<String, Value> = splits.iter().map(split).collect();
                json!({"target": one(target), "shard_splits": splits})
            }
            Handle::Hash { children, hash } => {
                json!({"children": self.children_json(children), "hash": hash_json(hash)})
            }
            Handle::Failover { children, policy, limit, exptime_max_s, .. } => json!({
                "children": self.children_json(children),
                "failover_policy": format!("{policy:?}"),
                "failover_limit": limit.map(|limit| json!({"rate": limit.rate, "burst": limit.burst})),
                "failover_exptime": exptime_max_s,
            }),
            Handle::Latest { children, count, salt, .. } => {
                json!({"children": self.children_json(children), "failover_count": count, "salt": salt})
            }
            Handle::MissFailover { children, return_best_on_error } => {
                json!({"children": self.children_json(children), "return_best_on_error": return_best_on_error})
            }
            Handle::All { children, .. } | Handle::Random { children } => {
                json!({"children": self.children_json(children)})
            }
            Handle::HostId { children, salt } => {
                json!({"children": self.children_json(children), "salt": salt})
            }
            Handle::Null => json!({}),
            Handle::Error { response } => json!({"response": response}),
            Handle::OperationSelector { default, policies } => {
                let policies: Map<String, Value> = policies
                    .iter()
                    .map(|(operation, handle)| (format!("{operation:?}").to_lowercase(), one(handle)))
                    .collect();
                json!({"default_policy": default.as_ref().map(one), "operation_policies": policies})
            }
            Handle::PrefixSelector { policies, wildcard } => {
                let policies: Map<String, Value> =
                    policies.iter().map(|(prefix, handle)| (prefix.clone(), one(handle))).collect();
                json!({"policies": policies, "wildcard": wildcard.as_ref().map(one)})
            }
            Handle::WarmUp { cold, warm, exptime_s } => {
                json!({"cold": one(cold), "warm": one(warm), "exptime": exptime_s})
            }
            Handle::Migrate { from, to, start_s, interval_s } => {
                json!({"from": one(from), "to": one(to), "start_time": start_s, "interval": interval_s})
            }
            Handle::Shadow { target, shadows } => {
                let shadow = |shadow: &super::Shadow| {
                    json!({
                        "target": one(&shadow.target),
                        "index_range": shadow.index_range.map(|(from, to)| [from, to]),
                        "key_fraction_range": [shadow.key_fraction.0, shadow.key_fraction.1],
                        "keys_to_shadow": shadow.keys,
                        "requests_fraction": shadow.requests_fraction,
                    })
                };
                json!({"target": one(target), "shadows": shadows.iter().map(shadow).collect::<Vec<_>>()})
            }
            Handle::RateLimit { target, rates } => {
                json!({"target": one(target), "rates": format!("{rates:?}")})
            }
            Handle::OutstandingLimit { target, max } => {
                json!({"target": one(target), "max_outstanding": max})
            }
            Handle::L1L2 { l1, l2, upgrading_exptime_s, negative_exptime_s, negative_refresh } => json!({
                "l1": one(l1),
                "l2": one(l2),
                "upgradingL1Exptime": upgrading_exptime_s,
                "ncacheExptime": negative_exptime_s,
                "ncacheUpdatePeriod": negative_refresh,
            }),
            Handle::KeySplit { target, replicas, all_sync, first_hit } => {
                json!({"destination": one(target), "replicas": replicas, "all_sync": all_sync, "first_hit": first_hit})
            }
            Handle::ModifyKey {
                target,
                set_routing_prefix,
                ensure_key_prefix,
                replace_key_prefix,
                set_key_suffix,
            } => json!({
                "target": one(target),
                "set_routing_prefix": set_routing_prefix,
                "ensure_key_prefix": ensure_key_prefix,
                "replace_key_prefix": replace_key_prefix,
                "set_key_suffix": set_key_suffix,
            }),
            Handle::LoadBalancer { children, algorithm, salt, ttl_ms, tries_max, .. } => json!({
                "children": self.children_json(children),
                "algorithm": algorithm.name(),
                "salt": salt,
                "load_ttl_ms": ttl_ms,
                "failover_count": tries_max,
            }),
            Handle::BigValue { target, threshold, batch } => {
                json!({"target": one(target), "split_threshold": threshold, "batch_size": batch})
            }
            Handle::Latency { target, before_ms, after_ms, total_ms } => json!({
                "target": one(target),
                "before_latency_ms": before_ms,
                "after_latency_ms": after_ms,
                "total_latency_ms": total_ms,
            }),
            Handle::Blackhole { after_ms } => json!({"timeout_ms": after_ms}),
            Handle::Logging { target, lines } => {
                json!({"target": one(target), "lines_rate": lines.rate, "lines_burst": lines.burst})
            }
            Handle::ModifyExptime { target, exptime_s, min } => {
                json!({"target": one(target), "exptime": exptime_s, "action": if *min { "min" } else { "set" }})
            }
        };
        if let Some(members) = members.as_object_mut() {
            members.insert("type".into(), handle.type_name().into());
        }
        members
    }
}

fn hash_json(hash: &Hash) -> Value {
    json!({
        "hash_func": format!("{:?}", hash.distribution),
        "key_part": format!("{:?}", hash.key_part),
        "salt": hash.salt,
        "weights": hash.weights,
        "tags": hash.tags,
    })
}
