//! `RateLimitRoute`: requests above a rate are refused.

use std::convert::Infallible;

use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, Json, Limit, WrittenHandle};
use crate::request::{OperationClass, OwnedRequest};
use crate::route::bucket::Bucket;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::outcome;

/// `RateLimitRoute`, and `rates` of a pool.
#[derive(Clone, Debug)]
pub(crate) struct RateLimitRoute {
    pub target: HandleId,
    pub rates: Rates,
}

/// Rates of requests, by class; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub(crate) struct Rates {
    /// Retrievals.
    gets: Option<Limit>,
    /// Commands that store, count or touch.
    sets: Option<Limit>,
    /// Deletes.
    deletes: Option<Limit>,
}

impl RouteHandle for RateLimitRoute {
    const NAMES: &'static [&'static str] = &["RateLimitRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let target = builder.handle_at(json, name, "target")?;
        let Some(rates) = json.get("rates") else {
            let remedy = "is missing: {\"gets_rate\": 100}";
            return Err(builder.fault(json, "RateLimitRoute.rates", "", remedy));
        };
        let rates = Rates::parse(builder, rates)?;
        builder.push(Self { target, rates }, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.target)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({"target": config.child_json(self.target), "rates": format!("{:?}", self.rates)})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let target = compiler.node(self.target);
        Ok(compiler.push(RateLimit { target, rates: self.rates }))
    }
}

impl Rates {
    /// Reads the value of `rates`.
    pub(crate) fn parse(builder: &Builder, json: &Json) -> Checked<Self> {
        builder.object(json, "rates")?;
        let limit = |class: &str| -> Checked<Option<Limit>> {
            let key = format!("{class}_rate");
            let Some(rate) = json.get(&key) else { return Ok(None) };
            let rate = builder.number(rate, &key, f64::MIN_POSITIVE, 1e12)?;
            let burst = builder.number_at(json, &format!("{class}_burst"), rate.max(1.0), 1.0, 1e12)?;
            Ok(Some(Limit { rate, burst }))
        };
        Ok(Self { gets: limit("gets")?, sets: limit("sets")?, deletes: limit("deletes")? })
    }
}

/// Refuses requests above a rate.
#[derive(Debug)]
pub(in crate::route) struct RateLimit {
    pub target: NodeId,
    pub rates: Rates,
}

impl RateLimit {
    const fn limits(&self) -> [Option<Limit>; 3] {
        [self.rates.gets, self.rates.sets, self.rates.deletes]
    }
}

impl RouteNode for RateLimit {
    /// For gets, sets and deletes.
    type State = [Option<Bucket>; 3];
    type Progress = Infallible;

    fn state(&self) -> [Option<Bucket>; 3] {
        self.limits().map(|limit| limit.map(Bucket::full))
    }

    fn start(
        &self,
        buckets: &[Option<Bucket>; 3],
        step: &mut Step,
        _: NodeId,
        request: OwnedRequest,
        parent: Parent,
    ) {
        let class = match request.class() {
            OperationClass::Get => 0,
            OperationClass::Update | OperationClass::Arithmetic | OperationClass::Touch => 1,
            OperationClass::Delete => 2,
        };
        if let (Some(limit), Some(bucket)) = (self.limits()[class], &buckets[class]) {
            bucket.fill_by_time(limit, step.now_ms);
            if !bucket.take() {
                return step.answer(parent, outcome::local_error("Rate limited"));
            }
        }
        step.start(self.target, request, parent);
    }

    fn only_child(&self) -> Option<NodeId> {
        Some(self.target)
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use crate::route::tests::Bench;

    #[test]
    fn requests_above_a_rate_are_refused_until_time_passes() {
        let mut bench = Bench::new(
            r#"{"type": "RateLimitRoute", "target": "NullRoute", "rates": {"gets_rate": 10, "gets_burst": 2}}"#,
        );
        let passed =
            |bench: &mut Bench, asked: usize| (0..asked).filter(|_| bench.get() == Some(Reply::Miss)).count();
        assert_eq!(passed(&mut bench, 5), 2);
        bench.now_ms += 100;
        assert_eq!(passed(&mut bench, 5), 1);
        bench.now_ms += 60_000;
        assert_eq!(passed(&mut bench, 5), 2);
        assert_eq!(bench.ask("set k 0 0 1", "x"), Some(Reply::NotStored)); // no limit for these
    }
}
