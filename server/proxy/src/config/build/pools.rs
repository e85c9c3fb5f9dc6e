//! Pools: what is written of one, and of those it inherits from.

use std::collections::HashSet;

use super::builder::{Builder, Checked};
use crate::config::concurrency::AdaptiveConcurrency;
use crate::config::handle::PoolId;
use crate::config::json::{Json, JsonNode};
use crate::config::pool::{EjectedLimit, Member, Pool, Service};
use crate::config::server::{Address, Server, read_security, read_server};
use crate::config::warm_resize::WarmResize;
use crate::config::zone::{Pattern, Zones};

/// Most requests that one core may have under way to a destination under adaptive concurrency.
const CONCURRENCY_MAX: i64 = 1 << 20;

impl Builder<'_> {
    /// The pool of that name, read now if need be.
    pub(crate) fn pool(&mut self, name: &str, at: &Json) -> Checked<PoolId> {
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
                Some(Json { node: JsonNode::Object(own), .. }) => {
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

    /// The time for replies that the command line gives pools as far away as this one, if it gives one and the pool
    /// says where it is. It counts more than the pool's own, as in mcrouter.
    fn distance_timeout_ms(&self, json: &Json) -> Checked<Option<u32>> {
        let (region, cluster) = (self.text_at(json, "region")?, self.text_at(json, "cluster")?);
        let (Some(region), Some(cluster)) = (region, cluster) else { return Ok(None) };
        if region.is_empty() || cluster.is_empty() {
            return Ok(None);
        }
        let mut own = self.options.route_prefix.split('/').skip(1);
        let (own_region, own_cluster) = (own.next(), own.next());
        let times = &self.options.distance_timeouts;
        let ms = match (own_region == Some(&region), own_cluster == Some(&cluster)) {
            (true, true) => times.within_cluster_ms,
            (true, false) => times.cross_cluster_ms,
            (false, _) => times.cross_region_ms,
        };
        Ok((ms > 0).then_some(ms))
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
            "zones",
            "zone_pattern",
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
            "warm_resize",
            "adaptive_concurrency",
            "endpoint_slices",
            "name",
            "pool_locality",
            "pool_routing",
            "jitter_params",
            "failover_connection_timeout",
        ];
        // As in mcrouter they are no fault: people write comments so.
        let is_unknown = |part: &&(String, Json)| !known.contains(&part.0.as_str());
        for (unknown, value) in json.as_object().unwrap_or_default().iter().filter(is_unknown) {
            let fault = self.fault(value, &key(unknown), &value.shown(), "no pool has such a key; left out");
            tracing::warn!("{fault}");
        }
        if let Some(protocol) = json.get("protocol")
            && !matches!(protocol.as_str(), Some("ascii"))
        {
            return Err(self.fault(protocol, &key("protocol"), &protocol.shown(), "must be \"ascii\""));
        }
        let mut tls = self.flag_at(json, "use_ssl", false)?;
        if let Some(security) = json.get("security_mech") {
            tls = read_security(self.text(security, &key("security_mech"))?)
                .map_err(|fault| self.wrong(security, &key("security_mech"), &fault.to_string()))?;
        }
        let port_override = self.int_at(json, "port_override", 1, 65535)?.map(|port| port as u16);
        let timeout_ms = self.ms_at(json, "server_timeout", self.options.server_timeout_ms)?;
        let connect_timeout_ms = self.ms_at(json, "connect_timeout", timeout_ms)?;
        let reply_timeout_ms = self.distance_timeout_ms(json)?.unwrap_or(timeout_ms);
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
            let written = read_server(text, port_override)
                .map_err(|fault| self.wrong(server, &key, &fault.to_string()))?;
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
        let endpoint_slices = self.endpoint_slices(name, json, &members, resolve)?;
        let mut pool = Pool {
            name: name.into(),
            members,
            resolve,
            endpoint_slices,
            keep_routing_prefix: self.flag_at(json, "keep_routing_prefix", false)?,
            weights: self.numbers_at(json, "weights", 1e6)?,
            tags: self.texts_at(json, "tags")?,
            zones: self.zones(json, name, &servers, resolve)?,
            failure_domains: failure_domains.into_iter().map(|domain| domain as u32).collect(),
            error_on_empty: self.flag_at(json, "error_on_empty", true)?,
            ejected_limit: self.ejected_limit(json)?,
            adaptive_concurrency: self.adaptive_concurrency(json, name)?,
            warm_resize: None,
        };
        pool.warm_resize = self.warm_resize(name, json, &pool)?;
        Ok(pool)
    }

    fn endpoint_slices(
        &self,
        name: &str,
        json: &Json,
        members: &[Member],
        resolve: bool,
    ) -> Checked<Option<Service>> {
        let Some(written) = json.get("endpoint_slices") else { return Ok(None) };
        let key = format!("pools.{name}.endpoint_slices");
        let remedy = "must be \"NAMESPACE/SERVICE\", both of lower case letters, digits and -";
        let service = Service::named(self.text(written, &key)?);
        let service = service.ok_or_else(|| self.wrong(written, &key, remedy))?;
        let is_named = |address: &Address| matches!(address, Address::Tcp { host, .. } if host.parse::<std::net::IpAddr>().is_err());
        match members {
            [Member::Server(server)] if resolve && is_named(&server.address) => Ok(Some(service)),
            _ => {
                let remedy = "needs \"resolve\": true and one server, the Service's name and port: for when its cluster does not tell";
                Err(self.wrong(written, &key, remedy))
            }
        }
    }

    fn zones(&self, json: &Json, name: &str, servers: &Json, resolve: bool) -> Checked<Zones> {
        let key = |part: &str| format!("pools.{name}.{part}");
        match (json.get("zones"), json.get("zone_pattern")) {
            (None, None) => Ok(Zones::Unknown),
            (Some(zones), None) if resolve => {
                Err(self.wrong(zones, &key("zones"), "needs servers by place: give a \"zone_pattern\""))
            }
            (Some(zones), None) => {
                let listed = self.texts_at(json, "zones")?;
                if listed.len() != servers.as_array().map_or(0, <[Json]>::len) {
                    return Err(self.wrong(zones, &key("zones"), "must have a zone for each of \"servers\""));
                }
                Ok(Zones::Listed(listed))
            }
            (None, Some(pattern)) => {
                let text = self.text(pattern, &key("zone_pattern"))?;
                let remedy = "must have one {zone}: \"cache-{zone}-*\"";
                let read =
                    Pattern::new(text).ok_or_else(|| self.wrong(pattern, &key("zone_pattern"), remedy))?;
                Ok(Zones::Named(read))
            }
            (Some(zones), Some(_)) => {
                Err(self.wrong(zones, &key("zones"), "give either \"zones\" or \"zone_pattern\""))
            }
        }
    }

    fn warm_resize(&self, name: &str, json: &Json, pool: &Pool) -> Checked<Option<WarmResize>> {
        let key = |part: &str| format!("pools.{name}.warm_resize{part}");
        let written = json.get("warm_resize");
        if let Some(written) = written {
            let known = ["window_ms", "grace_ms", "invalidate_ms"];
            let members = self.object(written, &key(""))?;
            if let Some((unknown, value)) = members.iter().find(|(part, _)| !known.contains(&part.as_str())) {
                let remedy = "must be one of window_ms grace_ms invalidate_ms";
                return Err(self.fault(value, &key(&format!(".{unknown}")), &value.shown(), remedy));
            }
        }
        let at = |part: &str, default: u32| match written {
            Some(written) => self.ms_at(written, part, default),
            None => Ok(default),
        };
        let window_ms = at("window_ms", self.options.warm_resize_ms)?;
        let grace_ms = at("grace_ms", WarmResize::GRACE_MS.min(window_ms / 2))?;
        let invalidate_ms = at("invalidate_ms", grace_ms)?;
        if window_ms == 0 {
            return Ok(None);
        }
        if let Some(written) = written.filter(|_| grace_ms >= window_ms) {
            return Err(self.wrong(written, &key(".grace_ms"), "must be less than window_ms"));
        }
        if let Some(reason) = pool.never_resizes() {
            // A default for all pools leaves out those that cannot.
            return match written {
                Some(written) => Err(self.wrong(written, &key(""), reason)),
                None => Ok(None),
            };
        }
        let [window_ms, grace_ms, invalidate_ms] = [window_ms, grace_ms, invalidate_ms].map(u64::from);
        Ok(Some(WarmResize { window_ms, grace_ms, invalidate_ms }))
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

    /// A pool that is written in place, unless one of that name is known.
    pub(crate) fn keep_pool(&mut self, name: &str, written: &Json) {
        self.pools_written.entry(name.to_owned()).or_insert_with(|| written.clone());
    }

    /// Whether a pool that was read has one server.
    pub(crate) fn has_one_server(&self, pool: PoolId) -> bool {
        self.pools[pool.0 as usize].as_ref().is_some_and(|pool| pool.members.len() == 1)
    }

    /// The name of a pool that was read.
    pub(crate) fn pool_name(&self, pool: PoolId) -> String {
        self.pools[pool.0 as usize].as_ref().map(|pool| pool.name.clone()).unwrap_or_default()
    }

    /// Whether the servers of a pool that was read have weights.
    pub(crate) fn is_weighted(&self, pool: PoolId) -> bool {
        self.pools[pool.0 as usize].as_ref().is_some_and(|pool| !pool.weights.is_empty())
    }

    /// `adaptive_concurrency` of a pool.
    fn adaptive_concurrency(&self, json: &Json, pool: &str) -> Checked<Option<AdaptiveConcurrency>> {
        let Some(written) = json.get("adaptive_concurrency") else { return Ok(None) };
        let key = format!("pools.{pool}.adaptive_concurrency");
        self.known(written, &key, &["min", "max"])?;
        let bound = |name, default: u32| -> Checked<u32> {
            Ok(self.int_at(written, name, 1, CONCURRENCY_MAX)?.map_or(default, |bound| bound as u32))
        };
        let min = bound("min", 1)?;
        let max = bound("max", AdaptiveConcurrency::MAX.max(min))?;
        if min > max {
            return Err(self.wrong(written, &format!("{key}.min"), "must be at most max"));
        }
        Ok(Some(AdaptiveConcurrency { min, max }))
    }
}
