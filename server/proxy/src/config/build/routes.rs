//! The whole of a configuration: routing prefixes, names, and what is checked at the end.

use super::builder::{Builder, Checked};
use crate::config::checked::Config;
use crate::config::error::ConfigError;
use crate::config::handle::{HandleId, PoolUse};
use crate::config::json::Json;
use crate::config::options::{Options, normal_prefix};
use crate::config::pool::Pool;
use crate::hash::{Ring, RingSpec};

impl Builder<'_> {
    pub(crate) fn build(mut self, json: &Json) -> Checked<Config> {
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
        check_rings(&config, |key, remedy| self.sources.error(json.position, key, "", remedy))?;
        Ok(config)
    }

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
    pub(super) fn named(&mut self, name: &str, at: &Json) -> Checked<Option<HandleId>> {
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

    pub(super) fn register(&mut self, name: &str, handle: HandleId) {
        if self.names.insert(name.to_owned(), handle).is_none() {
            self.names_in_order.push((name.to_owned(), handle));
        }
    }
}

/// Tries every ring over the members as written, so that a configuration that loads also routes.
fn check_rings(config: &Config, fault: impl Fn(&str, &str) -> ConfigError) -> Checked<()> {
    for handle in &config.handles {
        let Some(PoolUse { pool, hash, .. }) = handle.pool_use() else { continue };
        let pool = config.pool(pool);
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
