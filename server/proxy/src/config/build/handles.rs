//! Route handles in every form they can be written in, and what each type says.

use super::super::handle::{Child, FailoverPolicy, Handle, HandleId, Limit, Wait};
use super::super::json::{Json, Node};
use super::super::{Options, normal_prefix};
use super::{Builder, Checked};

/// Most handles of one configuration.
const HANDLES_MAX: usize = 1 << 20;
/// How long a `BlackholeRoute` says nothing where `--server-timeout` has no limit: mcrouter's default, ms.
const BLACKHOLE_MS: u32 = 1000;
/// Handles of mcrouter's that are known and not taken, each with what to write in its place.
const REFUSED: &[(&str, &str)] = &[
    (
        "HashStopAllowListRoute",
        "name its child; every pool heeds the hash stop, or none with \"hash_stop\": \"\"",
    ),
    ("OriginalClientHashRoute", "name its child; a HashRoute or PoolRoute hashes the key alone"),
    ("StagingRoute", "name its \"warm\" handle, and copy to the other with a ShadowRoute"),
    ("L1L2SizeSplitRoute", "name its l2 handle, or use a BigValueRoute"),
    ("CarbonLookasideRoute", "name its child, or use an L1L2CacheRoute"),
    ("CarbonLookasideRouter", "name its child, or use an L1L2CacheRoute"),
    ("KeyParseRoute", "name its child, or choose by key with a PrefixSelectorRoute"),
    ("DistributionRoute", "name its child, or copy deletes with an AllAsyncRoute"),
    ("McBucketRoute", "name its child, or use a HashRoute"),
    ("SRRoute", "name a PoolRoute; a pool with \"resolve\": true follows the addresses of a name"),
];
/// Deepest nesting of handles.
const DEPTH_MAX: usize = 250;

impl Builder<'_> {
    pub(super) fn push(&mut self, handle: Handle, at: &Json) -> Checked<HandleId> {
        if self.handles.len() >= HANDLES_MAX {
            return Err(self.fault(at, "route", "", "more than 1048576 route handles"));
        }
        self.handles.push(handle);
        Ok(HandleId(self.handles.len() as u32 - 1))
    }

    /// One handle in any form. `top` is whether it stands directly under a route.
    pub(super) fn handle(&mut self, json: &Json, key: &str, top: bool) -> Checked<HandleId> {
        let mut children = self.children(json, key, top)?;
        match (children.pop(), children.is_empty()) {
            (Some(Child::Handle(handle)), true) => Ok(handle),
            (Some(Child::PoolMembers(_)), true) => {
                Err(self.wrong(json, key, "one handle is needed, not all destinations: \"PoolRoute|NAME\""))
            }
            (None, _) => self.push(Handle::Null, json),
            (Some(_), false) => Err(self.wrong(json, key, "one handle is needed, not a list")),
        }
    }

    /// Handles in any form.
    pub(super) fn children(&mut self, json: &Json, key: &str, top: bool) -> Checked<Vec<Child>> {
        if self.depth >= DEPTH_MAX {
            return Err(self.wrong(json, key, "handles nested more than 250 deep"));
        }
        self.depth += 1;
        let children = self.children_in(json, key, top);
        self.depth -= 1;
        children
    }

    pub(super) fn children_in(&mut self, json: &Json, key: &str, top: bool) -> Checked<Vec<Child>> {
        match &json.node {
            Node::Null => Ok(Vec::new()),
            Node::String(text) if text.is_empty() => Ok(Vec::new()),
            Node::String(text) => {
                if let Some(handle) = self.named(text, json)? {
                    return Ok(vec![Child::Handle(handle)]);
                }
                let (kind, argument) =
                    text.split_once('|').map_or((text.as_str(), None), |(kind, rest)| (kind, Some(rest)));
                if kind == "Pool" {
                    let name = argument
                        .ok_or_else(|| self.wrong(json, key, "a pool's name is missing: \"Pool|NAME\""))?;
                    return Ok(vec![Child::PoolMembers(self.pool(name, json)?)]);
                }
                let written = short_form(kind, argument, json);
                Ok(vec![Child::Handle(self.typed(kind, &written, key, top)?)])
            }
            Node::Array(elements) => {
                let mut children = Vec::new();
                for element in elements {
                    children.extend(self.children(element, key, top)?);
                }
                Ok(children)
            }
            Node::Object(_) => {
                let name = self.text_at(json, "name")?;
                let kind = self.text_at(json, "type")?;
                let kind = kind.ok_or_else(|| self.wrong(json, key, "a handle needs a \"type\""))?;
                if kind == "Pool" {
                    let name = name.ok_or_else(|| self.wrong(json, key, "a pool needs a \"name\""))?;
                    if json.get("servers").is_some() && !self.pools_written.contains_key(&name) {
                        let members = self.object(json, key)?.iter().filter(|(part, _)| part != "type");
                        let node = Node::Object(members.cloned().collect());
                        self.pools_written.insert(name.clone(), Json { place: json.place, node });
                    }
                    return Ok(vec![Child::PoolMembers(self.pool(&name, json)?)]);
                }
                if let Some(&known) = name.as_ref().and_then(|name| self.names.get(name)) {
                    return Ok(vec![Child::Handle(known)]);
                }
                let handle = self.typed(&kind, json, key, top)?;
                if let Some(name) = name {
                    self.register(&name, handle);
                }
                Ok(vec![Child::Handle(handle)])
            }
            _ => Err(self.wrong(json, key, "a route handle is an object, text, or a list of these")),
        }
    }

    /// The children of a handle, at least one.
    pub(super) fn children_at(&mut self, json: &Json, kind: &str) -> Checked<Vec<Child>> {
        let key = format!("{kind}.children");
        let Some(value) = json.get("children") else {
            return Err(self.fault(json, &key, "", "is missing: a list of handles"));
        };
        let children = self.children(&value.clone(), &key, false)?;
        if children.is_empty() {
            return Err(self.wrong(value, &key, "must not be empty"));
        }
        Ok(children)
    }

    pub(super) fn handle_at(&mut self, json: &Json, kind: &str, part: &str) -> Checked<HandleId> {
        let key = format!("{kind}.{part}");
        let value = json.get(part).ok_or_else(|| self.fault(json, &key, "", "is missing: a handle"))?.clone();
        self.handle(&value, &key, false)
    }

    pub(super) fn typed(&mut self, kind: &str, json: &Json, key: &str, top: bool) -> Checked<HandleId> {
        let handle = match kind {
            "PoolRoute" | "SaltedFailoverRoute" => return self.pool_route(json, kind),
            "HashRoute" => {
                let children = self.children_at(json, kind)?;
                match json.get("hash_func").and_then(Json::as_str) {
                    Some("Latest") => self.latest(json, children)?,
                    Some("LoadBalancer") => self.load_balancer(json, children)?,
                    _ => Handle::Hash { children, hash: self.hash(json, kind)? },
                }
            }
            "FailoverRoute" => {
                let children = self.children_at(json, kind)?;
                Handle::Failover {
                    children,
                    errors: self.failover_errors(json)?,
                    policy: self.failover_policy(json)?,
                    limit: self.failover_limit(json)?,
                    exptime_max_s: None,
                }
            }
            "FailoverWithExptimeRoute" => {
                let mut children = vec![Child::Handle(self.handle_at(json, kind, "normal")?)];
                if let Some(failover) = json.get("failover") {
                    children.extend(self.children(
                        &failover.clone(),
                        "FailoverWithExptimeRoute.failover",
                        false,
                    )?);
                }
                Handle::Failover {
                    children,
                    errors: self.failover_errors(json)?,
                    policy: FailoverPolicy::InOrder { max_tries: usize::MAX },
                    limit: self.failover_limit(json)?,
                    exptime_max_s: Some(self.int_at(json, "failover_exptime", 0, i64::MAX)?.unwrap_or(60)),
                }
            }
            "LatestRoute" => {
                let children = self.children_at(json, kind)?;
                self.latest(json, children)?
            }
            "LoadBalancerRoute" => {
                let children = self.children_at(json, kind)?;
                self.load_balancer(json, children)?
            }
            "MissFailoverRoute" => Handle::MissFailover {
                children: self.children_at(json, kind)?,
                return_best_on_error: self.flag_at(json, "return_best_on_error", false)?,
            },
            "AllSyncRoute" => Handle::All { children: self.children_at(json, kind)?, wait: Wait::Worst },
            "AllAsyncRoute" => Handle::All { children: self.children_at(json, kind)?, wait: Wait::None },
            "AllFastestRoute" => Handle::All { children: self.children_at(json, kind)?, wait: Wait::Fastest },
            "AllInitialRoute" => Handle::All { children: self.children_at(json, kind)?, wait: Wait::Initial },
            "AllMajorityRoute" => {
                Handle::All { children: self.children_at(json, kind)?, wait: Wait::Majority }
            }
            "RandomRoute" => Handle::Random { children: self.children_at(json, kind)? },
            "HostIdRoute" => Handle::HostId {
                children: self.children_at(json, kind)?,
                salt: self.text_at(json, "salt")?.unwrap_or_default(),
            },
            "NullRoute" | "DevNullRoute" => Handle::Null,
            "ErrorRoute" => {
                let response = self.text_at(json, "response")?.unwrap_or_default();
                if let Some(value) = json.get("response")
                    && !response.bytes().all(|byte| (b' '..=b'~').contains(&byte))
                {
                    return Err(self.wrong(value, "ErrorRoute.response", "must be one line of ASCII"));
                }
                Handle::Error { response }
            }
            "OperationSelectorRoute" | "PrefixPolicyRoute" => self.operation_selector(json, kind)?,
            "RoutingGroupRoute" => self.routing_group(json, kind)?,
            "PrefixSelectorRoute" if top => self.prefix_selector(json)?,
            "PrefixSelectorRoute" => {
                return Err(self.fault(json, key, kind, "may only stand directly under a route"));
            }
            "WarmUpRoute" if self.flag_at(json, "enable_metaget", false)? => {
                let remedy = "is not supported: give \"exptime\", the life of what is filled in";
                return Err(self.fault(json, "WarmUpRoute.enable_metaget", "true", remedy));
            }
            "WarmUpRoute" => Handle::WarmUp {
                cold: self.handle_at(json, kind, "cold")?,
                warm: self.handle_at(json, kind, "warm")?,
                exptime_s: self.int_at(json, "exptime", 0, i64::MAX)?.unwrap_or(0),
            },
            "MigrateRoute" => Handle::Migrate {
                from: self.handle_at(json, kind, "from")?,
                to: self.handle_at(json, kind, "to")?,
                start_s: self.int_at(json, "start_time", 0, i64::from(u32::MAX))?.ok_or_else(|| {
                    self.fault(json, "MigrateRoute.start_time", "", "is missing: unix seconds")
                })?,
                interval_s: self.int_at(json, "interval", 1, i64::from(u32::MAX))?.unwrap_or(3600),
            },
            "ShadowRoute" => {
                let part = if json.get("target").is_some() { "target" } else { "child" };
                Handle::Shadow { target: self.handle_at(json, kind, part)?, shadows: self.shadows(json)? }
            }
            "RateLimitRoute" => Handle::RateLimit {
                target: self.handle_at(json, kind, "target")?,
                rates: match json.get("rates") {
                    Some(rates) => self.rates(rates)?,
                    None => {
                        return Err(self.fault(
                            json,
                            "RateLimitRoute.rates",
                            "",
                            "is missing: {\"gets_rate\": 100}",
                        ));
                    }
                },
            },
            "OutstandingLimitRoute" => Handle::OutstandingLimit {
                target: self.handle_at(json, kind, "target")?,
                max: self.int_at(json, "max_outstanding", 1, i64::from(u32::MAX))?.ok_or_else(|| {
                    self.fault(json, "OutstandingLimitRoute.max_outstanding", "", "is missing")
                })? as u32,
            },
            "L1L2CacheRoute" => Handle::L1L2 {
                l1: self.handle_at(json, kind, "l1")?,
                l2: self.handle_at(json, kind, "l2")?,
                upgrading_exptime_s: self.int_at(json, "upgradingL1Exptime", 0, i64::MAX)?.ok_or_else(
                    || self.fault(json, "L1L2CacheRoute.upgradingL1Exptime", "", "is missing: seconds"),
                )?,
                negative_exptime_s: self.int_at(json, "ncacheExptime", 0, i64::MAX)?.unwrap_or(0),
                negative_refresh: self
                    .int_at(json, "ncacheUpdatePeriod", 0, i64::from(u32::MAX))?
                    .unwrap_or(0) as u32,
            },
            "KeySplitRoute" => Handle::KeySplit {
                target: self.handle_at(json, kind, "destination")?,
                replicas: self
                    .int_at(json, "replicas", 2, 1000)?
                    .ok_or_else(|| self.fault(json, "KeySplitRoute.replicas", "", "is missing: 2 to 1000"))?
                    as u32,
                all_sync: self.flag_at(json, "all_sync", false)?,
                first_hit: self.flag_at(json, "first_hit", false)?,
            },
            "ModifyKeyRoute" => self.modify_key(json)?,
            "ModifyExptimeRoute" => Handle::ModifyExptime {
                target: self.handle_at(json, kind, "target")?,
                exptime_s: self.int_at(json, "exptime", 0, i64::MAX)?.ok_or_else(|| {
                    self.fault(json, "ModifyExptimeRoute.exptime", "", "is missing: seconds")
                })?,
                min: match self.text_at(json, "action")?.as_deref() {
                    None | Some("set") => false,
                    Some("min") => true,
                    Some(action) => {
                        return Err(self.fault(
                            json,
                            "ModifyExptimeRoute.action",
                            action,
                            "must be \"set\" or \"min\"",
                        ));
                    }
                },
            },
            "BigValueRoute" => {
                let part = if json.get("target").is_some() { "target" } else { "child" };
                let missing = || self.fault(json, "BigValueRoute.split_threshold", "", "is missing: bytes");
                let threshold = self.int_at(json, "split_threshold", 1, 64 << 20)?.ok_or_else(missing)?;
                let batch = self.int_at(json, "batch_size", 0, 1 << 16)?;
                Handle::BigValue {
                    target: self.handle_at(json, kind, part)?,
                    threshold: threshold as u32,
                    batch: batch.map_or(Options::BIG_VALUE_BATCH, |batch| batch as u32),
                }
            }
            "LatencyInjectionRoute" => {
                let part = if json.get("target").is_some() { "target" } else { "child" };
                Handle::Latency {
                    target: self.handle_at(json, kind, part)?,
                    before_ms: self.ms_at(json, "before_latency_ms", 0)?,
                    after_ms: self.ms_at(json, "after_latency_ms", 0)?,
                    total_ms: self.ms_at(json, "total_latency_ms", 0)?,
                }
            }
            "BlackholeRoute" => Handle::Blackhole {
                after_ms: match self.options.server_timeout_ms {
                    0 => BLACKHOLE_MS,
                    after_ms => after_ms,
                },
            },
            "LoggingRoute" => {
                let part = if json.get("target").is_some() { "target" } else { "child" };
                let target = match json.get(part) {
                    Some(_) => self.handle_at(json, kind, part)?,
                    None => self.push(Handle::Null, json)?,
                };
                let Limit { rate, burst } = Limit::LINES;
                let rate = self.number_at(json, "lines_rate", rate, 0.001, 1e6)?;
                let burst = self.number_at(json, "lines_burst", burst, 1.0, 1e6)?;
                Handle::Logging { target, lines: Limit { rate, burst } }
            }
            _ if let Some((_, remedy)) = REFUSED.iter().find(|(known, _)| *known == kind) => {
                return Err(self.fault(json, key, kind, &format!("is not supported: {remedy}")));
            }
            _ => {
                let remedy = "no route handle, pool or named handle of that name is known here";
                return Err(self.fault(json, key, kind, remedy));
            }
        };
        self.push(handle, json)
    }

    pub(super) fn modify_key(&mut self, json: &Json) -> Checked<Handle> {
        let part = |this: &Self, key: &str| -> Checked<Option<String>> {
            let text = this.text_at(json, key)?;
            match &text {
                Some(text) if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) || text.len() > 250 => {
                    Err(this.fault(json, &format!("ModifyKeyRoute.{key}"), text, "must be a part of a key"))
                }
                _ => Ok(text),
            }
        };
        let set_routing_prefix = match self.text_at(json, "set_routing_prefix")? {
            None => None,
            Some(prefix) if prefix.is_empty() => Some(prefix),
            Some(prefix) => Some(normal_prefix(&prefix).ok_or_else(|| {
                self.fault(json, "ModifyKeyRoute.set_routing_prefix", &prefix, "must be \"/region/cluster/\"")
            })?),
        };
        let (ensure, replace) = (part(self, "ensure_key_prefix")?, part(self, "replace_key_prefix")?);
        if replace.is_some() && ensure.is_none() {
            let remedy = "needs ensure_key_prefix, which comes in its place";
            return Err(self.fault(json, "ModifyKeyRoute.replace_key_prefix", "", remedy));
        }
        Ok(Handle::ModifyKey {
            target: self.handle_at(json, "ModifyKeyRoute", "target")?,
            set_routing_prefix,
            ensure_key_prefix: ensure,
            replace_key_prefix: replace,
            set_key_suffix: part(self, "set_key_suffix")?,
        })
    }
}

/// `"Type|argument"` as the object it is short for.
fn short_form(kind: &str, argument: Option<&str>, at: &Json) -> Json {
    let key = match kind {
        "PoolRoute" | "SaltedFailoverRoute" => "pool",
        "ErrorRoute" => "response",
        "HashRoute" | "LoadBalancerRoute" | "FailoverRoute" | "LatestRoute" | "MissFailoverRoute"
        | "AllSyncRoute" | "AllAsyncRoute" | "AllFastestRoute" | "AllInitialRoute" | "AllMajorityRoute"
        | "RandomRoute" | "HostIdRoute" => "children",
        _ => "target",
    };
    let members = argument.map(|argument| (key.to_owned(), Json::string(at.place, argument)));
    Json { place: at.place, node: Node::Object(members.into_iter().collect()) }
}
