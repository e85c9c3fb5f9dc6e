//! Requests under way on one shard.

use std::collections::VecDeque;
use std::rc::Rc;

use corecached_protocol::Reply;

use super::action::{Action, CallId, ExecutionLimits};
use super::counters::{ResizeCounters, TailCounters};
use super::delayed::Delayed;
use super::frame::{Call, Frame, Parent, Step, Work};
use super::node_set::{NodeId, NodeProgress};
use super::routing_prefix::{glob, is_fallback, prefix_len};
use super::slab::Slab;
use super::tree::Routes;
use super::{outcome, rekey};
use crate::request::OwnedRequest;

/// Requests under way on one shard. Does no I/O, and reads no clock.
#[derive(Debug)]
pub(crate) struct Execution {
    frames: Slab<Frame>,
    calls: Slab<Call>,
    work: VecDeque<Work>,
    delayed: Delayed<Work>,
    random: fastrand::Rng,
    resize: ResizeCounters,
    tails: TailCounters,
    calls_with_shadows_max: usize,
}

impl Execution {
    /// Nothing under way. `seed` decides all that is random.
    #[must_use]
    pub(crate) fn new(limits: &ExecutionLimits, seed: u64) -> Self {
        Self {
            frames: Slab::new(limits.frames_max),
            calls: Slab::new(limits.calls_max),
            work: VecDeque::new(),
            delayed: Delayed::new(limits.calls_max),
            random: fastrand::Rng::with_seed(seed),
            resize: ResizeCounters::default(),
            tails: TailCounters::default(),
            calls_with_shadows_max: limits.calls_with_shadows_max,
        }
    }

    /// Requests sent and not answered.
    #[must_use]
    pub(crate) const fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Requests and replies that a handle holds back.
    #[must_use]
    pub(crate) fn delayed(&self) -> usize {
        self.delayed.len()
    }

    /// What became of keys whose pool changed.
    #[must_use]
    pub(crate) const fn resize_counters(&self) -> &ResizeCounters {
        &self.resize
    }

    /// What was kept from slow servers.
    #[must_use]
    pub(crate) const fn tail_counters(&self) -> &TailCounters {
        &self.tails
    }

    /// Requests that wait somewhere in a tree.
    #[must_use]
    pub(crate) const fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Routes `request`. `ticket` names it in its answer; `now_ms` is unix time in milliseconds.
    pub(crate) fn begin(
        &mut self,
        routes: &Rc<Routes>,
        request: OwnedRequest,
        ticket: u64,
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        let tree = &routes.tree;
        let downgrade = tree.downgrade(request.operation(), request.meta().is_some());
        let parent = Parent::Client { ticket, downgrade };
        let default = tree.roots[tree.default_root].1;
        match prefix_len(request.key()) {
            None => self.start(routes, default, request, parent),
            Some(len) => self.begin_prefixed(routes, &request, len, parent),
        }
        self.run(now_ms, actions);
    }

    /// The key begins with a routing prefix of `len` bytes.
    fn begin_prefixed(&mut self, routes: &Rc<Routes>, request: &OwnedRequest, len: usize, parent: Parent) {
        let tree = &routes.tree;
        let (prefix, _) = request.key().split_at(len);
        let default = tree.roots[tree.default_root].1;
        let Ok(split) = request.split_prefix(len) else {
            self.work.push_back(Work::Deliver { parent, reply: outcome::bad_key() });
            return;
        };
        let mut first = None;
        if prefix.contains(&b'*') {
            // The default route's reply is the answer, if it is among them.
            let at = tree.default_root;
            let ordered =
                std::iter::once(&tree.roots[at]).chain(tree.roots[..at].iter()).chain(&tree.roots[at + 1..]);
            let mut started: Vec<NodeId> = Vec::new();
            for (_, node) in ordered.filter(|(known, _)| glob(prefix, known.as_bytes())) {
                if first.is_none() {
                    first = Some(*node);
                } else if first != Some(*node) && !started.contains(node) {
                    started.push(*node);
                }
            }
            for node in started {
                self.start(routes, node, split.clone(), Parent::Nobody);
            }
        } else {
            let root = |is_it: &dyn Fn(&[u8]) -> bool| {
                tree.roots.iter().find_map(|(known, node)| is_it(known.as_bytes()).then_some(*node))
            };
            // A cluster that is not configured goes where its region says, as in mcrouter.
            first = root(&|known| known == prefix).or_else(|| root(&|known| is_fallback(known, prefix)));
        }
        let reply = match first {
            Some(node) => return self.start_rekeyed(routes, node, request, split, parent),
            None if tree.send_invalid_route_to_default => {
                return self.start_rekeyed(routes, default, request, split, parent);
            }
            None => outcome::no_route(),
        };
        self.work.push_back(Work::Deliver { parent, reply });
    }

    fn start(&mut self, routes: &Rc<Routes>, node: NodeId, request: OwnedRequest, parent: Parent) {
        self.work.push_back(Work::Start { routes: Rc::clone(routes), node, request, parent });
    }

    /// Starts `changed` in place of `request`; a reply that shows the key shows that of `request`.
    fn start_rekeyed(
        &mut self,
        routes: &Rc<Routes>,
        node: NodeId,
        request: &OwnedRequest,
        changed: OwnedRequest,
        parent: Parent,
    ) {
        let mut actions = Vec::new();
        let mut step = self.step(routes, 0, &mut actions);
        rekey::start_rekeyed(&mut step, node, request, changed, parent);
    }

    /// The reply to a call has come. One to a call that is not known, or was answered, is overlooked.
    pub(crate) fn replied(&mut self, call: CallId, reply: Reply, now_ms: u64, actions: &mut Vec<Action>) {
        if let Some(Call { parent }) = self.calls.remove(call.0) {
            self.work.push_back(Work::Deliver { parent, reply });
            self.run(now_ms, actions);
        }
    }

    /// When [`Execution::tick`] has something to do; `None` when nothing waits for its time.
    #[must_use]
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.delayed.next_ms()
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        while let Some(work) = self.delayed.due(now_ms) {
            self.work.push_back(work);
        }
        self.run(now_ms, actions);
    }

    fn step<'a>(&'a mut self, routes: &'a Rc<Routes>, now_ms: u64, actions: &'a mut Vec<Action>) -> Step<'a> {
        Step {
            routes,
            now_ms,
            frames: &mut self.frames,
            calls: &mut self.calls,
            work: &mut self.work,
            delayed: &mut self.delayed,
            random: &mut self.random,
            resize: &mut self.resize,
            tails: &mut self.tails,
            actions,
            calls_with_shadows_max: self.calls_with_shadows_max,
        }
    }

    /// Works until everything waits for replies. A queue and no recursion: a tree may be as deep as it likes.
    fn run(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Start { routes, node, request, parent } => {
                    let mut step = self.step(&routes, now_ms, actions);
                    routes.tree.nodes[node as usize].start(&mut step, node, request, parent);
                }
                Work::Alarm { frame: slot } => {
                    let Some(mut frame) = self.frames.take(slot) else { continue };
                    let routes = Rc::clone(&frame.routes);
                    NodeProgress::woken(&mut frame, &mut self.step(&routes, now_ms, actions), slot);
                    self.frames.put_back(slot, frame);
                }
                Work::Deliver { parent: Parent::Nobody, .. } => {}
                Work::Deliver { parent: Parent::Client { ticket, downgrade }, reply } => {
                    actions.push(Action::Answer { ticket, reply: downgrade.apply(reply) });
                }
                Work::Deliver { parent: Parent::Frame { frame: slot, child }, reply } => {
                    let Some(mut frame) = self.frames.take(slot) else { continue };
                    assert!(frame.waiting > 0, "a reply to a frame that waits for none");
                    frame.waiting -= 1;
                    let routes = Rc::clone(&frame.routes);
                    let mut step = self.step(&routes, now_ms, actions);
                    NodeProgress::replied(&mut frame, &mut step, slot, child, reply);
                    if frame.waiting > 0 {
                        self.frames.put_back(slot, frame);
                        continue;
                    }
                    debug_assert_eq!(
                        frame.parent,
                        Parent::Nobody,
                        "ended without an answer: {:?}",
                        frame.progress
                    );
                    self.frames.release(slot);
                    if frame.parent != Parent::Nobody {
                        self.work.push_back(Work::Deliver {
                            parent: frame.parent,
                            reply: outcome::local_error(""),
                        });
                    }
                }
            }
        }
        let frames = &self.frames;
        self.delayed.drop_while(|work| matches!(work, Work::Alarm { frame } if !frames.has(*frame)));
    }
}
