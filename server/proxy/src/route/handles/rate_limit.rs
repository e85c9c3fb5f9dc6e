//! `RateLimitRoute`: requests above a rate are refused.

use std::convert::Infallible;

use crate::config::{Limit, Rates};
use crate::request::{Operation, OperationClass, OwnedRequest};
use crate::route::bucket::Bucket;
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::{Next, NodeId, RingBelow};
use crate::route::outcome;

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

    fn usual(&self, _: &[u8], _: Operation) -> Next {
        Next::Node(self.target)
    }

    fn late_delete(&self, _: &[u8], _: u64) -> Next {
        Next::Node(self.target)
    }

    fn ring_below(&self) -> RingBelow {
        RingBelow::At(self.target)
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
