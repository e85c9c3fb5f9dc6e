//! `LatencyInjectionRoute`: holds requests and replies back.

use corecached_protocol::Reply;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::{Operation, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Frame, Parent, Step, Work};
use crate::route::handle::RouteHandle;
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::{Next, NodeId};
use crate::route::slab::SlotId;

/// `LatencyInjectionRoute`.
#[derive(Clone, Debug)]
pub(crate) struct LatencyInjectionRoute {
    target: HandleId,
    /// From the request to its being sent on.
    before_ms: u32,
    /// From its reply to the answer.
    after_ms: u32,
    /// From the request to the answer, at least.
    total_ms: u32,
}

impl RouteHandle for LatencyInjectionRoute {
    const NAMES: &'static [&'static str] = &["LatencyInjectionRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let route = Self {
            target: builder.handle_at(json, name, Builder::target_part(json))?,
            before_ms: builder.ms_at(json, "before_latency_ms", 0)?,
            after_ms: builder.ms_at(json, "after_latency_ms", 0)?,
            total_ms: builder.ms_at(json, "total_latency_ms", 0)?,
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.target)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "target": config.child_json(self.target),
            "before_latency_ms": self.before_ms,
            "after_latency_ms": self.after_ms,
            "total_latency_ms": self.total_ms,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let node = Latency {
            target: compiler.node(self.target),
            before_ms: u64::from(self.before_ms),
            after_ms: u64::from(self.after_ms),
            total_ms: u64::from(self.total_ms),
        };
        Ok(compiler.push(node))
    }
}

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
