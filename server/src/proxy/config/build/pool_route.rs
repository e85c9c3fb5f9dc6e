//! PoolRoute: how keys are laid out over a pool, and the handles around it that the same object may ask for.

use super::super::super::hash::Distribution;
use super::super::handle::{Handle, HandleId, Hash, Limit, Rates, Shadow};
use super::super::hash::Written;
use super::super::json::{Json, Node};
use super::{Builder, Checked};

impl Builder<'_> {
    pub(super) fn pool_route(&mut self, json: &Json) -> Checked<HandleId> {
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
        let distribution = if unsaid && weighted { Distribution::WeightedCh3 } else { hash.distribution };
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
