//! `LatencyInjectionRoute`: holds requests and replies back.

use corecached_protocol::Reply;

use crate::request::{Operation, OwnedRequest};
use crate::route::frame::{Frame, Parent, Step, Work};
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::{Next, NodeId};
use crate::route::slab::SlotId;

/// Holds requests and replies back.
#[derive(Debug)]
pub(in crate::route) struct Latency {
    pub target: NodeId,
    /// From the request to its being sent on.
    pub before_ms: u64,
    /// From its reply to the answer.
    pub after_ms: u64,
    /// From the request to the answer, at least.
    pub total_ms: u64,
}

/// When the request came, unix milliseconds.
#[derive(Debug)]
pub(in crate::route) struct HeldSince(u64);

/// When `delay_ms` have passed for certain since it was `now_ms`, which is whole milliseconds, rounded down.
const fn after(now_ms: u64, delay_ms: u64) -> u64 {
    let rounding_ms = (delay_ms > 0) as u64;
    now_ms.saturating_add(delay_ms).saturating_add(rounding_ms)
}

impl RouteNode for Latency {
    type State = ();
    type Progress = HeldSince;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let asked_ms = step.now_ms;
        let routes = std::rc::Rc::clone(step.routes);
        let progress = Self::waiting(HeldSince(asked_ms));
        let Some(slot) = step.open(node, request.clone(), parent, progress) else { return };
        let parent = Parent::Frame { frame: slot, child: 0 };
        step.expect(slot, 1);
        let work = Work::Start { routes, node: self.target, request, parent };
        step.later(after(asked_ms, self.before_ms), work);
    }

    fn replied(&self, (): &(), frame: &mut Frame, step: &mut Step, _: SlotId, _: u32, reply: Reply) {
        let asked_ms = Self::in_progress(&mut frame.progress).map_or(step.now_ms, |since| since.0);
        let at_ms = after(step.now_ms, self.after_ms).max(after(asked_ms, self.total_ms));
        let parent = std::mem::replace(&mut frame.parent, Parent::Nobody);
        step.later(at_ms, Work::Deliver { parent, reply });
    }

    fn usual(&self, _: &[u8], _: Operation) -> Next {
        Next::Node(self.target)
    }
}

#[cfg(test)]
mod tests {
    use crate::route::tests::{Bench, value};

    #[test]
    fn a_request_is_held_before_it_goes_and_its_reply_after_it_came() {
        let mut bench = Bench::new(
            r#"{"type": "LatencyInjectionRoute", "child": "PoolRoute|a", "before_latency_ms": 10, "after_latency_ms": 5}"#,
        );
        assert_eq!(bench.get(), None);
        assert_eq!(bench.waiting(), Vec::<&str>::new());
        assert_eq!(bench.pass(10), None);
        assert_eq!(bench.waiting(), Vec::<&str>::new());
        assert_eq!(bench.pass(1), None);
        assert_eq!(bench.reply("a get k", value("v")), None);
        assert_eq!(bench.pass(5), None);
        assert_eq!(bench.pass(1), Some(value("v")));
        bench.done();
    }

    #[test]
    fn a_total_latency_is_the_least_and_adds_nothing_to_what_is_slower() {
        let mut bench = Bench::new(
            r#"{"type": "LatencyInjectionRoute", "target": "PoolRoute|a", "total_latency_ms": 20}"#,
        );
        bench.get();
        bench.pass(5);
        assert_eq!(bench.reply("a get k", value("v")), None);
        assert_eq!(bench.pass(15), None);
        assert_eq!(bench.pass(1), Some(value("v")));
        bench.get();
        bench.pass(30);
        assert_eq!(bench.reply("a get k", value("v")), Some(value("v")));
        bench.done();
    }
}
