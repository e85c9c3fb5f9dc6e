//! What a tree does later: LatencyInjectionRoute, and BlackholeRoute, which answers as a server that takes everything
//! and says nothing.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use corecached_protocol::{ErrorKind, Reply};

use super::super::request::OwnedRequest;
use super::super::upstream;
use super::frame::{Frame, Parent, State, Step, Work};
use super::outcome;
use super::slab::{Place, Slab};
use super::tree::{Node, NodeId};

/// Work that waits for its time; so much and no more.
#[derive(Debug)]
pub(super) struct Delayed {
    heap: BinaryHeap<Entry>,
    /// Tells entries of one moment apart: they are done in the order they came.
    next: u64,
    max: usize,
}

#[derive(Debug)]
struct Entry {
    at_ms: u64,
    number: u64,
    work: Work,
}

impl Ord for Entry {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.number).cmp(&(self.at_ms, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl Delayed {
    pub const fn new(max: usize) -> Self {
        Self { heap: BinaryHeap::new(), next: 0, max }
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at_ms)
    }

    /// Forgets alarms of frames that ended, up to the first that is not so.
    pub fn forget_ended(&mut self, frames: &Slab<Frame>) {
        while let Some(Entry { work: Work::Alarm { frame }, .. }) = self.heap.peek()
            && !frames.has(*frame)
        {
            self.heap.pop();
        }
    }

    /// What is due, the earliest first.
    pub fn due(&mut self, now_ms: u64) -> Option<Work> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.heap.pop().map(|entry| entry.work)
    }

    fn has_room(&self) -> bool {
        self.heap.len() < self.max
    }

    fn push(&mut self, at_ms: u64, work: Work) {
        self.heap.push(Entry { at_ms, number: self.next, work });
        self.next += 1;
    }
}

/// When `delay_ms` have passed for certain since it was `now_ms`, which is whole milliseconds, rounded down.
const fn after(now_ms: u64, delay_ms: u64) -> u64 {
    let rounding_ms = (delay_ms > 0) as u64;
    now_ms.saturating_add(delay_ms).saturating_add(rounding_ms)
}

/// Does `work` at `at_ms`; at once if that is past. With too much waiting already whoever waits gets `busy`.
fn later(step: &mut Step, at_ms: u64, work: Work) {
    if at_ms <= step.now_ms {
        return step.work.push_back(work);
    }
    if step.delayed.has_room() {
        return step.delayed.push(at_ms, work);
    }
    if let Work::Start { parent, .. } | Work::Deliver { parent, .. } = work {
        step.answer(parent, outcome::busy());
    }
}

/// Wakes the frame at `place` at `at_ms`, if it is still there then, and there is room for one more that waits.
pub(super) fn wake(step: &mut Step, at_ms: u64, place: Place) {
    later(step, at_ms, Work::Alarm { frame: place });
}

/// See [`super::super::config::Handle::Latency`].
#[derive(Debug)]
pub(super) struct Latency {
    pub target: NodeId,
    /// From the request to its being sent on.
    pub before_ms: u64,
    /// From its reply to the answer.
    pub after_ms: u64,
    /// From the request to the answer, at least.
    pub total_ms: u64,
}

impl Latency {
    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let asked_ms = step.now_ms;
        let routes = std::rc::Rc::clone(step.routes);
        let Some(place) = step.open(node, request.clone(), parent, State::Latency { asked_ms }) else {
            return;
        };
        let parent = Parent::Frame { frame: place, child: 0 };
        step.expect(place, 1);
        let work = Work::Start { routes, node: self.target, request, parent };
        later(step, after(asked_ms, self.before_ms), work);
    }
}

pub(super) fn replied(frame: &mut Frame, step: &mut Step, reply: Reply) {
    let routes = std::rc::Rc::clone(&frame.routes);
    let (Node::Latency(latency), State::Latency { asked_ms }) =
        (&routes.tree.nodes[frame.node as usize], &frame.state)
    else {
        return frame.answer(step, reply);
    };
    let at_ms = after(step.now_ms, latency.after_ms).max(after(*asked_ms, latency.total_ms));
    let parent = std::mem::replace(&mut frame.parent, Parent::Nobody);
    later(step, at_ms, Work::Deliver { parent, reply });
}

/// `SERVER_ERROR timeout` after so long.
pub(super) fn blackhole(step: &mut Step, after_ms: u64, parent: Parent) {
    if parent != Parent::Nobody {
        let at_ms = step.now_ms.saturating_add(after_ms);
        later(step, at_ms, Work::Deliver { parent, reply: upstream::failure(ErrorKind::Timeout) });
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use super::super::tests::{Bench, POOLS, options, value};
    use super::super::{Execution, Limits};
    use crate::config::Options;

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

    #[test]
    fn a_black_hole_answers_as_a_server_that_says_nothing() {
        let text = format!("{{{POOLS}, \"route\": \"BlackholeRoute\"}}");
        let mut bench = Bench::with(&text, &Options { server_timeout_ms: 50, ..options() });
        bench.get();
        assert_eq!(bench.pass(49), None);
        let answer = bench.pass(1);
        assert!(matches!(answer, Some(Reply::Error { kind: ErrorKind::Timeout, .. })), "{answer:?}");
        bench.done();
    }

    #[test]
    fn what_waits_for_its_time_has_a_bound_and_comes_in_order() {
        let mut bench = Bench::new("\"BlackholeRoute\"");
        bench.execution =
            Execution::new(&Limits { calls_max: 2, frames_max: 10, calls_with_shadows_max: 1 }, 1);
        bench.get();
        bench.get();
        assert!(matches!(bench.get(), Some(Reply::Error { kind: ErrorKind::Busy, .. })));
        assert_eq!(bench.execution.next_deadline_ms(), Some(bench.now_ms + 1000));
        bench.now_ms += 1000;
        bench.execution.tick(bench.now_ms, &mut bench.actions);
        assert_eq!(bench.actions.len(), 2);
        bench.actions.clear();
        assert_eq!(bench.execution.next_deadline_ms(), None);
        bench.done();
    }
}
