//! PoolRoute and SaltedFailoverRoute: how keys are laid out over a pool, and the handles around it that the same object
//! may ask for.

use super::super::super::hash::Distribution;
use super::super::handle::{
    FailoverPolicy, Handle, HandleId, Hash, Limit, PoolRoute, REPLICAS_MAX, Rates, Shadow, ShardSplit,
    SlowWarmUp, WarmUpSettings,
};
use super::super::hash::Written;
use super::super::json::{Json, Node};
use super::{Builder, Checked};

impl Builder<'_> {
    pub(super) fn pool_route(&mut self, json: &Json, kind: &str) -> Checked<HandleId> {
        let Some(pool) = json.get("pool") else {
            return Err(self.fault(json, &format!("{kind}.pool"), "", "is missing: a pool's name"));
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
        let distribution = if unsaid && weighted { Distribution::WeightedCh3 } else { hash.distribution };
        let spool_deletes = self.options.spool_deletes && self.flag_at(json, "asynclog", true)?;
        let hash = Hash { distribution, ..hash };
        let slow_warm_up = self.slow_warm_up(json)?;
        let replicas = self.int_at(json, "replicas", 1, i64::from(REPLICAS_MAX))?.unwrap_or(1) as u32;
        if replicas > 1 && kind == "SaltedFailoverRoute" {
            let remedy = "stands in a PoolRoute, which fails over within its copies";
            return Err(self.fault(json, "SaltedFailoverRoute.replicas", &replicas.to_string(), remedy));
        }
        let hedge = self.hedge(json, replicas)?;
        let bounded_load = self.bounded_load(json, kind, replicas)?;
        let route = PoolRoute { spool_deletes, slow_warm_up, replicas, hedge, bounded_load };
        let mut handle = self.push(Handle::Pool { pool, hash, route }, json)?;
        if kind == "SaltedFailoverRoute" {
            let (max_tries, max_error_tries) = match self.failover_policy(json)? {
                FailoverPolicy::InOrder { max_tries } => (max_tries, usize::MAX),
                FailoverPolicy::Deterministic { max_tries, max_error_tries, .. } => {
                    (max_tries, max_error_tries)
                }
                FailoverPolicy::LeastFailures { .. } | FailoverPolicy::Rendezvous { .. } => {
                    let remedy =
                        "must be DeterministicOrderPolicy: its order is that of the pool's hash, salted";
                    return Err(self.fault(json, "SaltedFailoverRoute.failover_policy.type", "", remedy));
                }
            };
            let (errors, limit) = (self.failover_errors(json)?, self.failover_limit(json)?);
            let salted =
                Handle::SaltedFailover { route: handle, pool, errors, max_tries, max_error_tries, limit };
            handle = self.push(salted, json)?;
        }
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
        let splits = self.shard_splits(json)?;
        if self.options.shard_splits && !splits.is_empty() {
            handle = self.push(Handle::ShardSplits { target: handle, splits }, json)?;
        }
        Ok(handle)
    }

    fn slow_warm_up(&mut self, json: &Json) -> Checked<Option<SlowWarmUp>> {
        let Some(written) = json.get("slow_warmup").cloned() else { return Ok(None) };
        self.object(&written, "slow_warmup")?;
        let none = Json { place: written.place, node: Node::Object(Vec::new()) };
        let settings = written.get("settings").unwrap_or(&none);
        self.object(settings, "slow_warmup.settings")?;
        let settings = WarmUpSettings {
            enable_threshold: self.number_at(settings, "enable_threshold", 0.7, 0.0, 1.0)?,
            disable_threshold: self.number_at(settings, "disable_threshold", 0.9, 0.0, 1.0)?,
            start: self.number_at(settings, "start", 0.1, 0.0, 1.0)?,
            step: self.number_at(settings, "step", 1.0, 0.0, 1e6)?,
            min_requests: self.int_at(settings, "min_requests", 1, 1 << 24)?.unwrap_or(100) as u32,
        };
        if settings.disable_threshold <= settings.enable_threshold {
            let remedy = "must be more than enable_threshold: between them nothing changes";
            let value = settings.disable_threshold.to_string();
            return Err(self.fault(&written, "slow_warmup.settings.disable_threshold", &value, remedy));
        }
        if settings.start <= 0.0 {
            let remedy = "must be more than 0: a server that gets nothing never fills";
            return Err(self.fault(&written, "slow_warmup.settings.start", "0", remedy));
        }
        let failover = self.handle_at(&written, "slow_warmup", "failoverTarget")?;
        Ok(Some(SlowWarmUp { failover, settings }))
    }

    fn shard_splits(&self, json: &Json) -> Checked<Vec<(String, ShardSplit)>> {
        let Some(written) = json.get("shard_splits") else { return Ok(Vec::new()) };
        let mut splits = Vec::new();
        for (shard, split) in self.object(written, "shard_splits")? {
            let key = format!("shard_splits.{shard}");
            let most = i64::from(ShardSplit::MAX);
            if shard.is_empty() || !shard.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(self.fault(split, &key, shard, "must be the number of a shard"));
            }
            let split = match split.node {
                Node::Int(copies) if (1..=most).contains(&copies) => ShardSplit::constant(copies as u32),
                Node::Object(_) => {
                    let part = |name: &str, min: i64, max: i64| -> Checked<i64> {
                        let missing =
                            || self.fault(split, &format!("{key}.{name}"), "", "is missing: a number");
                        self.int_at(split, name, min, max)?.ok_or_else(missing)
                    };
                    ShardSplit {
                        old: part("old_split_size", 1, most)? as u32,
                        new: part("new_split_size", 1, most)? as u32,
                        start_s: part("split_start", 0, i64::from(u32::MAX))?,
                        period_s: part("migration_period", 0, i64::from(u32::MAX))?,
                    }
                }
                _ => {
                    let remedy = "must be a whole number from 1 to 677, or an object with old_split_size";
                    return Err(self.wrong(split, &key, remedy));
                }
            };
            splits.push((shard.clone(), split));
        }
        Ok(splits)
    }

    pub(super) fn hash(&self, json: &Json, kind: &str) -> Checked<Hash> {
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

    pub(super) fn check_hash(&self, written: Written, at: &Json) -> Checked<Hash> {
        written.check().map_err(|(key, value, remedy)| self.fault(at, key, &value, &remedy))
    }

    pub(super) fn rates(&self, json: &Json) -> Checked<Rates> {
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

    pub(super) fn shadows(&mut self, json: &Json) -> Checked<Vec<Shadow>> {
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
}
