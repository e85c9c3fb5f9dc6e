//! OutstandingLimitRoute: so many requests at a time, further ones wait in the order they came.

use std::cell::RefCell;
use std::collections::VecDeque;

use corecached_protocol::Reply;

use super::super::request::OwnedRequest;
use super::frame::{Frame, Parent, State as FrameState, Step};
use super::outcome;
use super::tree::{Node, NodeId, NodeState};

/// Most requests that wait at one node of a shard. Past it clients get `SERVER_ERROR 307 busy`.
const QUEUE_MAX: usize = 1 << 16;

/// See [`super::super::config::Handle::OutstandingLimit`].
#[derive(Debug)]
pub(super) struct Outstanding {
    pub target: NodeId,
    pub max: u32,
}

/// What a shard keeps of one.
#[derive(Debug, Default)]
pub(super) struct State(RefCell<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    under_way: u32,
    queue: VecDeque<(OwnedRequest, Parent)>,
}

impl Outstanding {
    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let routes = std::rc::Rc::clone(step.routes);
        let NodeState::Outstanding(State(state)) = &routes.states[node as usize] else { return };
        let mut waiting = state.borrow_mut();
        if waiting.under_way >= self.max {
            if waiting.queue.len() >= QUEUE_MAX {
                return step.answer(parent, outcome::busy());
            }
            waiting.queue.push_back((request, parent));
            return;
        }
        if self.let_through(step, node, &request, parent) {
            waiting.under_way += 1;
        }
    }

    fn let_through(&self, step: &mut Step, node: NodeId, request: &OwnedRequest, parent: Parent) -> bool {
        let room = step.frames.has_room(1);
        step.open_with(node, request, parent, FrameState::Outstanding, [(self.target, request.clone())]);
        room
    }
}

pub(super) fn replied(frame: &mut Frame, step: &mut Step, reply: Reply) {
    frame.answer(step, reply);
    let routes = std::rc::Rc::clone(&frame.routes);
    let node = frame.node;
    let (Node::Outstanding(limit), NodeState::Outstanding(State(state))) =
        (&routes.tree.nodes[node as usize], &routes.states[node as usize])
    else {
        return;
    };
    let mut waiting = state.borrow_mut();
    waiting.under_way -= 1;
    while waiting.under_way < limit.max
        && let Some((request, parent)) = waiting.queue.pop_front()
    {
        if limit.let_through(step, node, &request, parent) {
            waiting.under_way += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use super::super::tests::{Bench, TIMEOUT, error};

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
