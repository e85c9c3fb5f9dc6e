//! From expanded JSON to [`Config`]: every form a handle or a pool can be written in.

use std::collections::{HashMap, HashSet};

use corecached_protocol::ErrorKind;

use super::super::hash::{Ring, RingSpec, WEIGHT_MISSING};
use super::super::request::{Operation, OperationClass};
use super::handle::{
    Child, ErrorSet, FailoverErrors, FailoverPolicy, Handle, HandleId, Hash, Limit, PoolId, Rates, Shadow,
    Wait,
};
use super::hash::Written;
use super::json::{Json, Node, Sources};
use super::pool::{EjectedLimit, Member, Pool, Server, read_security, read_server};
use super::{Config, ConfigError, Options, normal_prefix};

/// Most handles of one configuration.
const HANDLES_MAX: usize = 1 << 20;
/// Deepest nesting of handles.
const DEPTH_MAX: usize = 250;

type Checked<T> = Result<T, ConfigError>;

/// Builds one configuration.
pub(super) struct Builder<'a> {
    sources: &'a Sources,
    options: &'a Options,
    pools_written: HashMap<String, Json>,
    pool_ids: HashMap<String, PoolId>,
    /// Pools being read, so that one that contains itself is noticed.
    pools_open: HashSet<String>,
    pools: Vec<Option<Pool>>,
    named_written: HashMap<String, Json>,
    named_open: HashSet<String>,
    names: HashMap<String, HandleId>,
    names_in_order: Vec<(String, HandleId)>,
    handles: Vec<Handle>,
    depth: usize,
}

impl<'a> Builder<'a> {
    pub fn new(sources: &'a Sources, options: &'a Options) -> Self {
        Self {
            sources,
            options,
            pools_written: HashMap::new(),
            pool_ids: HashMap::new(),
            pools_open: HashSet::new(),
            pools: Vec::new(),
            named_written: HashMap::new(),
            named_open: HashSet::new(),
            names: HashMap::new(),
            names_in_order: Vec::new(),
            handles: Vec::new(),
            depth: 0,
        }
    }

    pub fn build(mut self, json: &Json) -> Checked<Config> {
        let default_prefix = normal_prefix(&self.options.route_prefix).ok_or_else(|| {
            self.fault(json, "-R", &self.options.route_prefix, "must be \"/region/cluster/\"")
        })?;
        if let Some(pools) = json.get("pools") {
            for (name, pool) in self.object(pools, "pools")? {
                self.pools_written.insert(name.clone(), pool.clone());
            }
        }
        if let Some(named) = json.get("named_handles") {
            self.keep_named(named)?;
        }
        let written: Vec<(String, Json)> = match (json.get("route"), json.get("routes")) {
            (Some(route), None) => vec![(default_prefix.clone(), route.clone())],
            (None, Some(routes)) => self.aliases(routes)?,
            (None, None) => {
                return Err(self.fault(json, "route", "", "is missing: \"route\": \"PoolRoute|A\""));
            }
            (Some(route), Some(_)) => {
                return Err(self.fault(route, "route", "", "give either \"route\" or \"routes\""));
            }
        };
        // Every pool and named handle is checked, used or not.
        let pool_names = json.get("pools").and_then(Json::as_object).unwrap_or_default().iter();
        for (name, pool) in pool_names {
            self.pool(name, pool)?;
        }
        let mut named: Vec<String> = self.named_written.keys().cloned().collect();
        named.sort();
        for name in named {
            self.named(&name, json)?;
        }
        let mut routes: Vec<(String, HandleId)> = Vec::new();
        let mut same: Vec<(Json, HandleId)> = Vec::new();
        for (prefix, route) in written {
            let handle = match same.iter().find(|(known, _)| *known == route) {
                Some(&(_, handle)) => handle,
                None => {
                    let handle = self.handle(&route, &format!("route {prefix}"), true)?;
                    same.push((route.clone(), handle));
                    handle
                }
            };
            if routes.iter().any(|(known, _)| *known == prefix) {
                return Err(self.fault(&route, "routes", &prefix, "has a route already"));
            }
            routes.push((prefix, handle));
        }
        if !routes.iter().any(|(prefix, _)| *prefix == default_prefix) {
            let remedy = "needs a route: it is where keys without a routing prefix go (-R)";
            return Err(self.fault(json, "routes", &default_prefix, remedy));
        }
        let options = Options { route_prefix: default_prefix, ..self.options.clone() };
        let pools: Option<Vec<Pool>> = self.pools.into_iter().collect();
        let config = Config {
            pools: pools.unwrap_or_default(),
            handles: self.handles,
            names: self.names_in_order,
            routes,
            options,
        };
        check_rings(&config, |key, remedy| self.sources.error(json.place, key, "", remedy))?;
        Ok(config)
    }

    fn fault(&self, at: &Json, key: &str, value: &str, remedy: &str) -> ConfigError {
        self.sources.error(at.place, key, value, remedy)
    }

    fn wrong(&self, value: &Json, key: &str, remedy: &str) -> ConfigError {
        self.fault(value, key, &value.shown(), remedy)
    }

    fn object<'j>(&self, value: &'j Json, key: &str) -> Checked<&'j [(String, Json)]> {
        value.as_object().ok_or_else(|| self.wrong(value, key, "must be an object"))
    }

    fn list<'j>(&self, value: &'j Json, key: &str) -> Checked<&'j [Json]> {
        value.as_array().ok_or_else(|| self.wrong(value, key, "must be a list"))
    }

    fn text<'j>(&self, value: &'j Json, key: &str) -> Checked<&'j str> {
        value.as_str().ok_or_else(|| self.wrong(value, key, "must be text"))
    }

    fn text_at(&self, json: &Json, key: &str) -> Checked<Option<String>> {
        json.get(key).map(|value| self.text(value, key).map(str::to_owned)).transpose()
    }

    fn texts_at(&self, json: &Json, key: &str) -> Checked<Vec<String>> {
        let Some(value) = json.get(key) else { return Ok(Vec::new()) };
        self.list(value, key)?.iter().map(|text| self.text(text, key).map(str::to_owned)).collect()
    }

    fn flag_at(&self, json: &Json, key: &str, default: bool) -> Checked<bool> {
        match json.get(key).map(|value| (value, &value.node)) {
            None => Ok(default),
            Some((_, Node::Bool(on))) => Ok(*on),
            Some((value, _)) => Err(self.wrong(value, key, "must be true or false")),
        }
    }

    /// A whole number from `min` to `max`.
    fn int_at(&self, json: &Json, key: &str, min: i64, max: i64) -> Checked<Option<i64>> {
        match json.get(key).map(|value| (value, &value.node)) {
            None => Ok(None),
            Some((_, Node::Int(int))) if (min..=max).contains(int) => Ok(Some(*int)),
            Some((value, _)) => {
                Err(self.wrong(value, key, &format!("must be a whole number from {min} to {max}")))
            }
        }
    }

    fn ms_at(&self, json: &Json, key: &str, default: u32) -> Checked<u32> {
        Ok(self.int_at(json, key, 0, 24 * 60 * 60 * 1000)?.map_or(default, |ms| ms as u32))
    }

    fn number(&self, value: &Json, key: &str, min: f64, max: f64) -> Checked<f64> {
        let number = match value.node {
            Node::Int(int) => int as f64,
            Node::Double(double) => double,
            _ => f64::NAN,
        };
        if (min..=max).contains(&number) {
            return Ok(number);
        }
        Err(self.wrong(value, key, &format!("must be a number from {min} to {max}")))
    }

    fn number_at(&self, json: &Json, key: &str, default: f64, min: f64, max: f64) -> Checked<f64> {
        json.get(key).map_or(Ok(default), |value| self.number(value, key, min, max))
    }

    fn numbers_at(&self, json: &Json, key: &str, max: f64) -> Checked<Vec<f64>> {
        let Some(value) = json.get(key) else { return Ok(Vec::new()) };
        self.list(value, key)?.iter().map(|number| self.number(number, key, 0.0, max)).collect()
    }

    // Routes and names.

    /// `routes` as pairs of prefix and handle.
    fn aliases(&self, routes: &Json) -> Checked<Vec<(String, Json)>> {
        let normal = |value: &Json, prefix: &str| {
            normal_prefix(prefix)
                .ok_or_else(|| self.fault(value, "routes", prefix, "must be \"/region/cluster/\""))
        };
        let mut found = Vec::new();
        if let Some(members) = routes.as_object() {
            for (prefix, route) in members {
                found.push((normal(route, prefix)?, route.clone()));
            }
            return Ok(found);
        }
        for one in self.list(routes, "routes")? {
            let route =
                one.get("route").ok_or_else(|| self.wrong(one, "routes", "each needs a \"route\""))?;
            let aliases =
                one.get("aliases").ok_or_else(|| self.wrong(one, "routes", "each needs \"aliases\""))?;
            for alias in self.list(aliases, "aliases")? {
                found.push((normal(alias, self.text(alias, "aliases")?)?, route.clone()));
            }
        }
        Ok(found)
    }

    fn keep_named(&mut self, named: &Json) -> Checked<()> {
        if let Some(members) = named.as_object() {
            for (name, handle) in members {
                if let Some(own) = handle.get("name").and_then(Json::as_str)
                    && own != name
                {
                    return Err(self.fault(
                        handle,
                        "named_handles",
                        own,
                        &format!("must be named \"{name}\", as its key"),
                    ));
                }
                self.named_written.insert(name.clone(), handle.clone());
            }
            return Ok(());
        }
        for handle in self.list(named, "named_handles")? {
            let name = self.text_at(handle, "name")?;
            let name = name.ok_or_else(|| self.wrong(handle, "named_handles", "each needs a \"name\""))?;
            self.named_written.insert(name, handle.clone());
        }
        Ok(())
    }

    /// The handle registered as `name`, read now if need be.
    fn named(&mut self, name: &str, at: &Json) -> Checked<Option<HandleId>> {
        if let Some(&handle) = self.names.get(name) {
            return Ok(Some(handle));
        }
        let Some(written) = self.named_written.get(name).cloned() else { return Ok(None) };
        if !self.named_open.insert(name.to_owned()) {
            return Err(self.fault(at, "named_handles", name, "contains itself"));
        }
        let handle = self.handle(&written, &format!("named_handles.{name}"), false)?;
        self.register(name, handle);
        Ok(Some(handle))
    }

    fn register(&mut self, name: &str, handle: HandleId) {
        if self.names.insert(name.to_owned(), handle).is_none() {
            self.names_in_order.push((name.to_owned(), handle));
        }
    }

    // Pools.

    fn pool(&mut self, name: &str, at: &Json) -> Checked<PoolId> {
        if let Some(&id) = self.pool_ids.get(name) {
            if self.pools_open.contains(name) {
                return Err(self.fault(at, &format!("pools.{name}"), name, "contains itself"));
            }
            return Ok(id);
        }
        if !self.pools_written.contains_key(name) {
            let remedy = "there is no such pool: name one of \"pools\"";
            return Err(self.fault(at, "pool", name, remedy));
        }
        let written = self.inherited(name, at)?;
        let id = PoolId(self.pools.len() as u32);
        self.pool_ids.insert(name.to_owned(), id);
        self.pools.push(None);
        self.pools_open.insert(name.to_owned());
        let pool = self.read_pool(name, &written)?;
        self.pools[id.0 as usize] = Some(pool);
        self.pools_open.remove(name);
        Ok(id)
    }

    /// What is written of a pool, and of those it inherits from.
    fn inherited(&self, name: &str, at: &Json) -> Checked<Json> {
        let mut merged: Option<Json> = None;
        let (mut next, mut seen) = (Some(name.to_owned()), HashSet::new());
        while let Some(name) = next {
            let key = format!("pools.{name}.inherit");
            if !seen.insert(name.clone()) {
                return Err(self.fault(at, &key, &name, "inherits from itself"));
            }
            let written = self
                .pools_written
                .get(&name)
                .ok_or_else(|| self.fault(at, "inherit", &name, "there is no such pool"))?;
            let members = self.object(written, &format!("pools.{name}"))?;
            next = self.text_at(written, "inherit")?;
            match &mut merged {
                None => merged = Some(written.clone()),
                Some(Json { node: Node::Object(own), .. }) => {
                    for (key, value) in members {
                        if !own.iter().any(|(known, _)| known == key) {
                            own.push((key.clone(), value.clone()));
                        }
                    }
                }
                Some(_) => {}
            }
        }
        merged.ok_or_else(|| self.fault(at, "pool", name, "there is no such pool"))
    }

    fn read_pool(&mut self, name: &str, json: &Json) -> Checked<Pool> {
        let key = |part: &str| format!("pools.{name}.{part}");
        let known = [
            "servers",
            "inherit",
            "protocol",
            "server_timeout",
            "connect_timeout",
            "keep_routing_prefix",
            "region",
            "cluster",
            "weights",
            "tags",
            "hostnames",
            "failure_domains",
            "qos",
            "use_ssl",
            "security_mech",
            "port_override",
            "enable_compression",
            "tko_tracker",
            "additional_fanout",
            "error_on_empty",
            "resolve",
            "name",
            "pool_locality",
            "pool_routing",
            "jitter_params",
            "failover_connection_timeout",
        ];
        if let Some((unknown, value)) =
            json.as_object().unwrap_or_default().iter().find(|(part, _)| !known.contains(&part.as_str()))
        {
            return Err(self.fault(value, &key(unknown), &value.shown(), "no pool has such a key"));
        }
        if let Some(protocol) = json.get("protocol")
            && !matches!(protocol.as_str(), Some("ascii"))
        {
            return Err(self.fault(protocol, &key("protocol"), &protocol.shown(), "must be \"ascii\""));
        }
        let mut tls = self.flag_at(json, "use_ssl", false)?;
        if let Some(security) = json.get("security_mech") {
            tls = read_security(self.text(security, &key("security_mech"))?)
                .map_err(|remedy| self.wrong(security, &key("security_mech"), remedy))?;
        }
        let port_override = self.int_at(json, "port_override", 1, 65535)?.map(|port| port as u16);
        let reply_timeout_ms = self.ms_at(json, "server_timeout", self.options.server_timeout_ms)?;
        let connect_timeout_ms = self.ms_at(json, "connect_timeout", reply_timeout_ms)?;
        let servers = json
            .get("servers")
            .ok_or_else(|| self.fault(json, &key("servers"), "", "is missing: a list of \"host:port\""))?
            .clone();
        let mut members = Vec::new();
        for (at, server) in self.list(&servers, &key("servers"))?.iter().enumerate() {
            let key = key(&format!("servers[{at}]"));
            let Some(text) = server.as_str() else {
                members.push(Member::Handle(self.handle(server, &key, false)?));
                continue;
            };
            let written =
                read_server(text, port_override).map_err(|remedy| self.wrong(server, &key, remedy))?;
            members.push(Member::Server(Server {
                address: written.address,
                tls: written.tls.unwrap_or(tls),
                reply_timeout_ms,
                connect_timeout_ms,
            }));
        }
        let resolve = self.flag_at(json, "resolve", false)?;
        let failure_domains = match json.get("failure_domains") {
            None => Vec::new(),
            Some(_) => self.numbers_at(json, "failure_domains", f64::from(u32::MAX))?,
        };
        Ok(Pool {
            name: name.into(),
            members,
            resolve,
            keep_routing_prefix: self.flag_at(json, "keep_routing_prefix", false)?,
            weights: self.numbers_at(json, "weights", 1e6)?,
            tags: self.texts_at(json, "tags")?,
            failure_domains: failure_domains.into_iter().map(|domain| domain as u32).collect(),
            error_on_empty: self.flag_at(json, "error_on_empty", true)?,
            ejected_limit: self.ejected_limit(json)?,
        })
    }

    fn ejected_limit(&self, json: &Json) -> Checked<Option<EjectedLimit>> {
        let Some(tracker) = json.get("tko_tracker") else { return Ok(None) };
        let servers = json.get("servers").and_then(Json::as_array).map_or(0, <[Json]>::len);
        let bound = |which: &str| -> Checked<Option<u32>> {
            let count =
                self.int_at(tracker, &format!("num_tko_threshold_{which}"), 0, i64::from(u32::MAX))?;
            let percent = self.int_at(tracker, &format!("percent_tko_threshold_{which}"), 0, 100)?;
            let of_percent = percent.map(|percent| (servers as i64 * percent) / 100);
            Ok(count.or(of_percent).map(|bound| bound as u32))
        };
        let Some(upper) = bound("upper")? else {
            return Err(self.wrong(
                tracker,
                "tko_tracker",
                "needs num_tko_threshold_upper or percent_tko_threshold_upper",
            ));
        };
        let lower = bound("lower")?.unwrap_or(upper).min(upper);
        Ok(Some(EjectedLimit { upper, lower }))
    }

    // Handles.

    fn push(&mut self, handle: Handle, at: &Json) -> Checked<HandleId> {
        if self.handles.len() >= HANDLES_MAX {
            return Err(self.fault(at, "route", "", "more than 1048576 route handles"));
        }
        self.handles.push(handle);
        Ok(HandleId(self.handles.len() as u32 - 1))
    }

    /// One handle in any form. `top` is whether it stands directly under a route.
    fn handle(&mut self, json: &Json, key: &str, top: bool) -> Checked<HandleId> {
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
    fn children(&mut self, json: &Json, key: &str, top: bool) -> Checked<Vec<Child>> {
        if self.depth >= DEPTH_MAX {
            return Err(self.wrong(json, key, "handles nested more than 250 deep"));
        }
        self.depth += 1;
        let children = self.children_in(json, key, top);
        self.depth -= 1;
        children
    }

    fn children_in(&mut self, json: &Json, key: &str, top: bool) -> Checked<Vec<Child>> {
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
    fn children_at(&mut self, json: &Json, kind: &str) -> Checked<Vec<Child>> {
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

    fn handle_at(&mut self, json: &Json, kind: &str, part: &str) -> Checked<HandleId> {
        let key = format!("{kind}.{part}");
        let value = json.get(part).ok_or_else(|| self.fault(json, &key, "", "is missing: a handle"))?.clone();
        self.handle(&value, &key, false)
    }

    fn typed(&mut self, kind: &str, json: &Json, key: &str, top: bool) -> Checked<HandleId> {
        let handle = match kind {
            "PoolRoute" => return self.pool_route(json),
            "HashRoute" => {
                let children = self.children_at(json, kind)?;
                if json.get("hash_func").and_then(Json::as_str) == Some("Latest") {
                    self.latest(json, children)?
                } else {
                    Handle::Hash { children, hash: self.hash(json, kind)? }
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
            // It only writes to mcrouter's log.
            "LoggingRoute" => {
                let part = if json.get("target").is_some() { "target" } else { "child" };
                return if json.get(part).is_some() {
                    self.handle_at(json, kind, part)
                } else {
                    self.push(Handle::Null, json)
                };
            }
            _ => {
                let remedy = "no route handle, pool or named handle of that name is known here";
                return Err(self.fault(json, key, kind, remedy));
            }
        };
        self.push(handle, json)
    }

    fn pool_route(&mut self, json: &Json) -> Checked<HandleId> {
        let Some(pool) = json.get("pool") else {
            return Err(self.fault(json, "PoolRoute.pool", "", "is missing: a pool's name"));
        };
        let name = match &pool.node {
            Node::String(name) => name.clone(),
            // A pool written in place.
            Node::Object(_) => {
                let name = self.text_at(pool, "name")?;
                let name = name.ok_or_else(|| self.wrong(pool, "PoolRoute.pool", "needs a \"name\""))?;
                self.pools_written.entry(name.clone()).or_insert_with(|| pool.clone());
                name
            }
            _ => return Err(self.wrong(pool, "PoolRoute.pool", "must be a pool's name")),
        };
        let pool = self.pool(&name, json)?;
        for unsupported in ["slow_warmup", "shard_splits"] {
            if let Some(value) = json.get(unsupported) {
                return Err(self.wrong(
                    value,
                    &format!("PoolRoute.{unsupported}"),
                    "is not supported: leave it out",
                ));
            }
        }
        let hash = match json.get("hash") {
            Some(hash) if hash.as_str().is_some() => {
                let function = hash.as_str().map(str::to_owned);
                self.check_hash(Written { function, ..Written::default() }, hash)?
            }
            Some(hash) => self.hash(&hash.clone(), "PoolRoute.hash")?,
            None => self.hash(json, "PoolRoute")?,
        };
        let weighted = self.pools[pool.0 as usize].as_ref().is_some_and(|pool| !pool.weights.is_empty());
        let unsaid = json.get("hash").is_none() && json.get("hash_func").is_none();
        let distribution = if unsaid && weighted {
            super::super::hash::Distribution::WeightedCh3
        } else {
            hash.distribution
        };
        let spool_deletes = self.options.spool_deletes && self.flag_at(json, "asynclog", true)?;
        let mut handle =
            self.push(Handle::Pool { pool, hash: Hash { distribution, ..hash }, spool_deletes }, json)?;
        if let Some(max) = self.int_at(json, "max_outstanding", 1, i64::from(u32::MAX))? {
            handle = self.push(Handle::OutstandingLimit { target: handle, max: max as u32 }, json)?;
        }
        if let Some(rates) = json.get("rates") {
            let rates = self.rates(rates)?;
            handle = self.push(Handle::RateLimit { target: handle, rates }, json)?;
        }
        if json.get("shadows").is_some() {
            let shadows = self.shadows(json)?;
            handle = self.push(Handle::Shadow { target: handle, shadows }, json)?;
        }
        Ok(handle)
    }

    fn hash(&self, json: &Json, kind: &str) -> Checked<Hash> {
        let written = Written {
            function: self.text_at(json, "hash_func")?,
            key_hash: self.text_at(json, "key_hash")?,
            seed: self.text_at(json, "seed")?,
            points: self.int_at(json, "points", 1, 100_000)?.map(|points| points as u32),
            hash_tag: self.text_at(json, "hash_tag")?,
            hash_stop: self.text_at(json, "hash_stop")?,
            salt: self.text_at(json, "salt")?.unwrap_or_default(),
            weights: self.numbers_at(json, "weights", 1e6)?,
            tags: self.texts_at(json, "tags")?,
        };
        let _ = kind;
        self.check_hash(written, json)
    }

    fn check_hash(&self, written: Written, at: &Json) -> Checked<Hash> {
        written.check().map_err(|(key, value, remedy)| self.fault(at, key, &value, &remedy))
    }

    fn latest(&self, json: &Json, children: Vec<Child>) -> Checked<Handle> {
        Ok(Handle::Latest {
            children,
            count: self.int_at(json, "failover_count", 1, 10_000)?.unwrap_or(5) as usize,
            salt: self.text_at(json, "salt")?.unwrap_or_default(),
            errors: self.failover_errors(json)?,
        })
    }

    fn failover_errors(&self, json: &Json) -> Checked<FailoverErrors> {
        let Some(value) = json.get("failover_errors") else { return Ok(FailoverErrors::default()) };
        if value.as_array().is_some() {
            let set = self.error_set(value)?;
            return Ok(FailoverErrors { gets: set, updates: set, deletes: set });
        }
        self.object(value, "failover_errors")?;
        let part = |name: &str| value.get(name).map_or(Ok(ErrorSet::DEFAULT), |list| self.error_set(list));
        Ok(FailoverErrors { gets: part("gets")?, updates: part("updates")?, deletes: part("deletes")? })
    }

    fn error_set(&self, list: &Json) -> Checked<ErrorSet> {
        self.list(list, "failover_errors")?.iter().try_fold(ErrorSet::EMPTY, |set, value| {
            Ok(set.with(match value.as_str() {
                Some("tko") => ErrorKind::Ejected,
                Some("connect_error") => ErrorKind::Connect,
                Some("connect_timeout") => ErrorKind::ConnectTimeout,
                Some("timeout" | "deadline_exceeded") => ErrorKind::Timeout,
                Some("busy") => ErrorKind::Busy,
                Some("try_again") => ErrorKind::TryAgain,
                Some("shutdown") => ErrorKind::Shutdown,
                Some("local_error") => ErrorKind::Local,
                Some("remote_error") => ErrorKind::Remote,
                Some("client_error") => ErrorKind::Client,
                Some("bad_key") => ErrorKind::BadKey,
                _ => {
                    let remedy = "must be one of tko connect_error connect_timeout timeout deadline_exceeded busy \
                                  try_again shutdown local_error remote_error client_error bad_key";
                    return Err(self.wrong(value, "failover_errors", remedy));
                }
            }))
        })
    }

    fn failover_policy(&self, json: &Json) -> Checked<FailoverPolicy> {
        let Some(policy) = json.get("failover_policy") else {
            return Ok(FailoverPolicy::InOrder { max_tries: usize::MAX });
        };
        let tries = |key: &str, default: usize| -> Checked<usize> {
            Ok(self.int_at(policy, key, 1, 100_000)?.map_or(default, |tries| tries as usize))
        };
        Ok(match self.text_at(policy, "type")?.as_deref() {
            None | Some("InOrderPolicy") => {
                FailoverPolicy::InOrder { max_tries: tries("max_tries", usize::MAX)? }
            }
            Some("LeastFailuresPolicy") => {
                FailoverPolicy::LeastFailures { max_tries: tries("max_tries", usize::MAX)? }
            }
            Some("DeterministicOrderPolicy") => FailoverPolicy::Deterministic {
                max_tries: tries("max_tries", usize::MAX)?,
                max_error_tries: tries("max_error_tries", usize::MAX)?,
                hash: match policy.get("hash") {
                    Some(hash) => self.hash(hash, "failover_policy.hash")?,
                    None => self.check_hash(Written::default(), policy)?,
                },
            },
            Some("RendezvousPolicy") => FailoverPolicy::Rendezvous { tags: self.texts_at(policy, "tags")? },
            Some(other) => {
                let remedy = "must be LeastFailuresPolicy, DeterministicOrderPolicy or RendezvousPolicy";
                return Err(self.fault(policy, "failover_policy.type", other, remedy));
            }
        })
    }

    fn failover_limit(&self, json: &Json) -> Checked<Option<Limit>> {
        let Some(value) = json.get("failover_limit") else { return Ok(None) };
        if value.as_object().is_none() {
            return Ok(Some(Limit { rate: self.number(value, "failover_limit", 0.0, 1.0)?, burst: 1000.0 }));
        }
        Ok(Some(Limit {
            rate: self.number_at(value, "rate", 1.0, 0.0, 1.0)?,
            burst: self.number_at(value, "burst", 1000.0, 1.0, 1e9)?,
        }))
    }

    fn rates(&self, json: &Json) -> Checked<Rates> {
        self.object(json, "rates")?;
        let limit = |class: &str| -> Checked<Option<Limit>> {
            let key = format!("{class}_rate");
            let Some(rate) = json.get(&key) else { return Ok(None) };
            let rate = self.number(rate, &key, f64::MIN_POSITIVE, 1e12)?;
            Ok(Some(Limit {
                rate,
                burst: self.number_at(json, &format!("{class}_burst"), rate.max(1.0), 1.0, 1e12)?,
            }))
        };
        Ok(Rates { gets: limit("gets")?, sets: limit("sets")?, deletes: limit("deletes")? })
    }

    fn shadows(&mut self, json: &Json) -> Checked<Vec<Shadow>> {
        let Some(list) = json.get("shadows").cloned() else { return Ok(Vec::new()) };
        let mut shadows = Vec::new();
        for one in self.list(&list, "shadows")? {
            let target = self.handle_at(one, "shadows", "target")?;
            let index_range = match &self.numbers_at(one, "index_range", f64::from(u32::MAX))?[..] {
                [] => None,
                &[from, to] if from <= to => Some((from as u32, to as u32)),
                _ => return Err(self.wrong(one, "shadows.index_range", "must be [from, to]")),
            };
            let fraction = self.numbers_at(one, "key_fraction_range", 1.0)?;
            let rv = self.numbers_at(one, "key_fraction_range_rv", 1.0)?;
            let key_fraction = match (&fraction[..], &rv[..]) {
                ([], []) => (0.0, 1.0),
                (&[from, to], []) | ([], &[from, to]) if from <= to => (from, to),
                _ => {
                    return Err(self.wrong(
                        one,
                        "shadows.key_fraction_range",
                        "must be [from, to] within 0 to 1",
                    ));
                }
            };
            shadows.push(Shadow {
                target,
                index_range,
                key_fraction,
                keys: self.texts_at(one, "keys_to_shadow")?,
                requests_fraction: self.number_at(one, "requests_fraction", 1.0, 0.0, 1.0)?,
            });
        }
        Ok(shadows)
    }

    fn operation_selector(&mut self, json: &Json, kind: &str) -> Checked<Handle> {
        let default = match json.get("default_policy").cloned() {
            Some(default) => Some(self.handle(&default, &format!("{kind}.default_policy"), false)?),
            None => None,
        };
        let mut policies = Vec::new();
        if let Some(written) = json.get("operation_policies").cloned() {
            for (name, handle) in self.object(&written, "operation_policies")? {
                let key = format!("operation_policies.{name}");
                let target = self.handle(handle, &key, false)?;
                match Operation::named(name) {
                    Some(operation) => policies.push((operation, target)),
                    // Facebook's own commands, which no client can send here.
                    None if matches!(
                        name.as_str(),
                        "lease-get" | "lease-set" | "flushall" | "flushre" | "metaget" | "version"
                    ) => {}
                    None => return Err(self.fault(handle, &key, name, "is no command")),
                }
            }
        }
        Ok(Handle::OperationSelector { default, policies })
    }

    /// An operation selector by class.
    fn routing_group(&mut self, json: &Json, kind: &str) -> Checked<Handle> {
        let Handle::OperationSelector { default, mut policies } = self.operation_selector(json, kind)? else {
            return Ok(Handle::Null);
        };
        if let Some(written) = json.get("routing_group_policies").cloned() {
            for (name, handle) in self.object(&written, "routing_group_policies")? {
                let key = format!("routing_group_policies.{name}");
                let class = match name.as_str() {
                    "get_like" => OperationClass::Get,
                    "update_like" => OperationClass::Update,
                    "delete_like" => OperationClass::Delete,
                    "arithmetic_like" => OperationClass::Arithmetic,
                    _ => {
                        let remedy = "must be get_like, update_like, delete_like or arithmetic_like";
                        return Err(self.fault(handle, &key, name, remedy));
                    }
                };
                let target = self.handle(handle, &key, false)?;
                let members = Operation::NAMES.iter().map(|&(_, operation)| operation);
                policies.extend(
                    members
                        .filter(|operation| operation.class() == class)
                        .map(|operation| (operation, target)),
                );
            }
        }
        Ok(Handle::OperationSelector { default, policies })
    }

    fn prefix_selector(&mut self, json: &Json) -> Checked<Handle> {
        let mut policies: Vec<(String, HandleId)> = Vec::new();
        if let Some(written) = json.get("policies").cloned() {
            for (prefix, handle) in self.object(&written, "PrefixSelectorRoute.policies")? {
                let handle = self.handle(handle, &format!("policies.{prefix}"), false)?;
                policies.push((prefix.clone(), handle));
            }
        }
        policies.sort_by(|one, other| other.0.len().cmp(&one.0.len()).then(one.0.cmp(&other.0)));
        let wildcard = match json.get("wildcard").cloned() {
            Some(wildcard) => Some(self.handle(&wildcard, "PrefixSelectorRoute.wildcard", false)?),
            None => None,
        };
        Ok(Handle::PrefixSelector { policies, wildcard })
    }

    fn modify_key(&mut self, json: &Json) -> Checked<Handle> {
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
        "PoolRoute" => "pool",
        "ErrorRoute" => "response",
        "HashRoute" | "FailoverRoute" | "LatestRoute" | "MissFailoverRoute" | "AllSyncRoute"
        | "AllAsyncRoute" | "AllFastestRoute" | "AllInitialRoute" | "AllMajorityRoute" | "RandomRoute"
        | "HostIdRoute" => "children",
        _ => "target",
    };
    let members = argument.map(|argument| (key.to_owned(), Json::string(at.place, argument)));
    Json { place: at.place, node: Node::Object(members.into_iter().collect()) }
}

/// Tries every ring over the members as written, so that a configuration that loads also routes.
fn check_rings(config: &Config, fault: impl Fn(&str, &str) -> ConfigError) -> Checked<()> {
    for handle in &config.handles {
        let Handle::Pool { pool, hash, .. } = handle else { continue };
        let pool = config.pool(*pool);
        let servers = hash.ring_servers(pool, None);
        if servers.is_empty() {
            continue;
        }
        let spec = RingSpec {
            distribution: hash.distribution.clone(),
            key_part: hash.key_part.clone(),
            salt: hash.salt.clone().into_bytes(),
        };
        Ring::build(&spec, &servers)
            .map_err(|error| fault(&format!("pools.{}", pool.name), &error.to_string()))?;
    }
    Ok(())
}

impl Hash {
    /// The members of `pool` as hashing sees them; `resolved` in place of those written.
    pub(in super::super) fn ring_servers(
        &self,
        pool: &Pool,
        resolved: Option<&[Server]>,
    ) -> Vec<super::super::hash::RingServer> {
        use super::super::hash::RingServer;
        use super::pool::Address;
        let weights = if self.weights.is_empty() { &pool.weights } else { &self.weights };
        let tags = if self.tags.is_empty() { &pool.tags } else { &self.tags };
        let server = |at: usize, server: Option<&Server>| {
            let mut ring = match server.map(|server| &server.address) {
                Some(Address::Tcp { host, port }) => RingServer::new(host, *port),
                Some(Address::Unix { path }) => RingServer::new(path, 0),
                None => RingServer::new(&at.to_string(), 0),
            };
            // Resolved members have no places in a list of weights.
            if !weights.is_empty() && resolved.is_none() {
                ring.weight = weights.get(at).copied().unwrap_or(WEIGHT_MISSING);
            }
            if resolved.is_none() {
                ring.tag = tags.get(at).cloned();
            }
            ring
        };
        match resolved {
            Some(servers) => servers.iter().enumerate().map(|(at, one)| server(at, Some(one))).collect(),
            None => pool
                .members
                .iter()
                .enumerate()
                .map(|(at, member)| match member {
                    Member::Server(one) => server(at, Some(one)),
                    Member::Handle(_) => server(at, None),
                })
                .collect(),
        }
    }
}
