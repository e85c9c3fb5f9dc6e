//! RateLimitRoute: requests above a rate are refused.

use super::super::config::{Limit, Rates};
use super::super::request::{OperationClass, OwnedRequest};
use super::bucket::Bucket;
use super::frame::{Parent, Step};
use super::outcome;
use super::tree::{NodeId, NodeState};

/// See [`super::super::config::Handle::RateLimit`].
#[derive(Debug)]
pub(super) struct RateLimit {
    pub target: NodeId,
    pub rates: Rates,
}

impl RateLimit {
    const fn limits(&self) -> [Option<Limit>; 3] {
        [self.rates.gets, self.rates.sets, self.rates.deletes]
    }

    pub fn buckets(&self) -> [Option<Bucket>; 3] {
        self.limits().map(|limit| limit.map(Bucket::full))
    }

    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let class = match request.class() {
            OperationClass::Get => 0,
            OperationClass::Update | OperationClass::Arithmetic | OperationClass::Touch => 1,
            OperationClass::Delete => 2,
        };
        if let (NodeState::Buckets(buckets), Some(limit)) = (step.state(node), self.limits()[class])
            && let Some(bucket) = &buckets[class]
        {
            bucket.fill_by_time(limit, step.now_ms);
            if !bucket.take() {
                return step.answer(parent, outcome::local_error("Rate limited"));
            }
        }
        step.start(self.target, request, parent);
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use super::super::tests::Bench;

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
