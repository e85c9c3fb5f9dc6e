//! What is written of hedged gets, bounded loads and adaptive concurrency.

use super::super::json::Json;
use super::super::tails::{AdaptiveConcurrency, Hedge};
use super::{Builder, Checked};

/// Most requests that one core may have under way to a destination under adaptive concurrency.
const CONCURRENCY_MAX: i64 = 1 << 20;

impl Builder<'_> {
    /// `hedge` of a `PoolRoute` with so many copies of each key.
    pub(super) fn hedge(&self, json: &Json, replicas: u32) -> Checked<Option<Hedge>> {
        let Some(written) = json.get("hedge") else { return Ok(None) };
        self.known(written, "hedge", &["percentile", "budget_percent", "min_delay_ms"])?;
        if replicas < 2 {
            let remedy = "needs a second copy to ask: give \"replicas\": 2 or more";
            return Err(self.wrong(written, "hedge", remedy));
        }
        Ok(Some(Hedge {
            percentile: self.number_at(written, "percentile", Hedge::PERCENTILE, 50.0, 99.9)?,
            budget: self.number_at(written, "budget_percent", Hedge::BUDGET_PERCENT, 0.1, 100.0)? / 100.0,
            min_delay_ms: self.int_at(written, "min_delay_ms", 1, 60_000)?.unwrap_or(1) as u32,
        }))
    }

    /// `bounded_load` of a `PoolRoute` or `SaltedFailoverRoute`.
    pub(super) fn bounded_load(&self, json: &Json, kind: &str, replicas: u32) -> Checked<Option<f64>> {
        let Some(written) = json.get("bounded_load") else { return Ok(None) };
        if kind == "SaltedFailoverRoute" {
            let remedy = "stands in a PoolRoute: a failover may stand around it";
            return Err(self.wrong(written, "SaltedFailoverRoute.bounded_load", remedy));
        }
        if replicas > 1 {
            let remedy =
                "is not to be had with replicas, whose copies gets may choose from: give one of the two";
            return Err(self.wrong(written, "bounded_load", remedy));
        }
        self.number(written, "bounded_load", 1.05, 100.0).map(Some)
    }

    /// `adaptive_concurrency` of a pool.
    pub(super) fn adaptive_concurrency(
        &self,
        json: &Json,
        pool: &str,
    ) -> Checked<Option<AdaptiveConcurrency>> {
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

    /// `value` is an object with no keys but these.
    fn known(&self, value: &Json, key: &str, known: &[&str]) -> Checked<()> {
        let unknown = self.object(value, key)?.iter().find(|(part, _)| !known.contains(&part.as_str()));
        match unknown {
            None => Ok(()),
            Some((part, value)) => {
                let remedy = format!("must be one of {}", known.join(" "));
                Err(self.fault(value, &format!("{key}.{part}"), &value.shown(), &remedy))
            }
        }
    }
}
