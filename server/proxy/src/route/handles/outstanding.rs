//! `OutstandingLimitRoute`: a bounded number of requests at a time; further ones wait in the order they came.

use std::cell::RefCell;
use std::collections::VecDeque;

use corecached_protocol::Reply;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, Json, WrittenHandle};
use crate::request::OwnedRequest;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::NodeId;
use crate::route::outcome;
use crate::route::slab::SlotId;

/// `OutstandingLimitRoute`, and `max_outstanding` of a pool.
#[derive(Clone, Debug)]
pub(crate) struct OutstandingLimitRoute {
    pub target: HandleId,
    /// Requests let through at a time; at least 1.
    pub max: u32,
}

impl RouteHandle for OutstandingLimitRoute {
    const NAMES: &'static [&'static str] = &["OutstandingLimitRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let target = builder.handle_at(json, name, "target")?;
        let Some(max) = Self::parse_max(builder, json)? else {
            return Err(builder.fault(json, "OutstandingLimitRoute.max_outstanding", "", "is missing"));
        };
        builder.push(Self { target, max }, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.target)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({"target": config.child_json(self.target), "max_outstanding": self.max})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let target = compiler.node(self.target);
        Ok(compiler.push(Outstanding { target, max: self.max }))
    }
}

impl OutstandingLimitRoute {
    /// `max_outstanding`.
    pub(crate) fn parse_max(builder: &Builder, json: &Json) -> Checked<Option<u32>> {
        let max = builder.int_at(json, "max_outstanding", 1, i64::from(u32::MAX))?;
        Ok(max.map(|max| max as u32))
    }
}

/// Most requests that wait at one node of a shard. Past it clients get `SERVER_ERROR 307 busy`.
const QUEUE_MAX: usize = 1 << 16;

/// Lets so many requests through at a time.
#[derive(Debug)]
pub(in crate::route) struct Outstanding {
    pub target: NodeId,
    /// At least 1.
    pub max: u32,
}

/// Requests of a shard that were let through, and those that wait.
#[derive(Debug, Default)]
pub(in crate::route) struct OutstandingQueue(RefCell<Queue>);

#[derive(Debug, Default)]
struct Queue {
    under_way: u32,
    waiting: VecDeque<(OwnedRequest, Parent)>,
}

/// A request that was let through.
#[derive(Debug)]
pub(in crate::route) struct LetThrough;

impl Outstanding {
    fn let_through(&self, step: &mut Step, node: NodeId, request: &OwnedRequest, parent: Parent) -> bool {
        let room = step.frames.has_room(1);
        let sent = [(self.target, request.clone())];
        step.open_with(node, request, parent, Self::waiting(LetThrough), sent);
        room
    }
}

impl RouteNode for Outstanding {
    type State = OutstandingQueue;
    type Progress = LetThrough;

    fn state(&self) -> OutstandingQueue {
        debug_assert!(self.max > 0);
        OutstandingQueue::default()
    }

    fn start(
        &self,
        queue: &OutstandingQueue,
        step: &mut Step,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
    ) {
        let mut queue = queue.0.borrow_mut();
        if queue.under_way >= self.max {
            if queue.waiting.len() >= QUEUE_MAX {
                return step.answer(parent, outcome::busy());
            }
            queue.waiting.push_back((request, parent));
            return;
        }
        if self.let_through(step, node, &request, parent) {
            queue.under_way += 1;
        }
    }

    fn replied(
        &self,
        queue: &OutstandingQueue,
        frame: &mut Frame,
        step: &mut Step,
        _: SlotId,
        _: u32,
        reply: Reply,
    ) {
        frame.answer(step, reply);
        let mut queue = queue.0.borrow_mut();
        debug_assert!((1..=self.max).contains(&queue.under_way));
        queue.under_way -= 1;
        while queue.under_way < self.max
            && let Some((request, parent)) = queue.waiting.pop_front()
        {
            if self.let_through(step, frame.node, &request, parent) {
                queue.under_way += 1;
            }
        }
    }

    fn only_child(&self) -> Option<NodeId> {
        Some(self.target)
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use crate::route::tests::{Bench, TIMEOUT, error};

    #[test]
    fn requests_above_the_outstanding_limit_wait_in_order() {
        let mut bench = Bench::new(r#"{"type": "PoolRoute", "pool": "a", "max_outstanding": 2}"#);
        for key in 0..5 {
            assert_eq!(bench.ask(&format!("get k{key}"), ""), None);
        }
        assert_eq!(bench.waiting(), ["a get k0", "a get k1"]);
        bench.reply("a get k1", Reply::Miss);
        assert_eq!(bench.waiting(), ["a get k0", "a get k2"]);
        bench.reply("a get k0", error(TIMEOUT));
        bench.reply("a get k2", Reply::Miss);
        assert_eq!(bench.waiting(), ["a get k3", "a get k4"]);
        bench.reply("a get k3", Reply::Miss);
        bench.reply("a get k4", Reply::Miss);
        bench.done();
    }
}
