//! Requests under way on one shard.

use std::collections::VecDeque;
use std::rc::Rc;

use corecached_protocol::Reply;

use super::super::request::{BadKey, OwnedRequest};
use super::delay::Delayed;
use super::frame::{Call, Frame, Parent, Step, Work};
use super::resize::ResizeCounters;
use super::slab::{Place, Slab};
use super::tail_counters::TailCounters;
use super::tree::{DestinationId, Node, NodeId, Routes, prefix_len};
use super::{all, modify, outcome, selector, spool};

/// A request that was sent: names it when its reply comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub(super) Place);

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a request, and bring its reply to [`Execution::replied`], once, whatever it is.
    Send {
        /// Names it.
        call: CallId,
        /// Where to: [`Routes::place`] of a destination.
        place: u32,
        /// What.
        request: OwnedRequest,
        /// A reply of [`ErrorKind::Busy`](corecached_protocol::ErrorKind::Busy) would have another server asked, or
        /// nobody would hear of it. Without that the destination must not refuse: the client would get the error.
        may_be_refused: bool,
    },
    /// The client's answer; exactly one for each [`Execution::begin`].
    Answer {
        /// As given to `begin`.
        ticket: u64,
        /// The answer.
        reply: Reply,
    },
    /// A delete failed and is to be kept for later. `NOT_FOUND` to [`Execution::replied`] says that it is, any error
    /// that it cannot be.
    Keep {
        /// Names it.
        call: CallId,
        /// Where it is to go: [`Routes::place`] of a destination.
        place: u32,
        /// What.
        request: OwnedRequest,
    },
}

/// What bounds an [`Execution`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests sent and not answered, and most that a handle holds back. Past it routes see `SERVER_ERROR 307 busy`.
    pub calls_max: usize,
    /// Most places in trees where a request waits. Past it, the same.
    pub frames_max: usize,
    /// From so many requests sent and not answered on, no copies are made for shadows.
    pub calls_with_shadows_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls_max: 1 << 17, frames_max: 1 << 16, calls_with_shadows_max: 1 << 14 }
    }
}

/// Requests under way on one shard. Does no I/O, and reads no clock.
#[derive(Debug)]
pub struct Execution {
    frames: Slab<Frame>,
    calls: Slab<Call>,
    work: VecDeque<Work>,
    delayed: Delayed,
    random: fastrand::Rng,
    resize: ResizeCounters,
    tails: TailCounters,
    calls_with_shadows_max: usize,
}

impl Execution {
    /// Nothing under way. `seed` decides all that is random.
    #[must_use]
    pub fn new(limits: &Limits, seed: u64) -> Self {
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
    pub const fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Requests and replies that a handle holds back.
    #[must_use]
    pub fn delayed(&self) -> usize {
        self.delayed.len()
    }

    /// What became of keys whose pool changed.
    #[must_use]
    pub const fn resize_counters(&self) -> &ResizeCounters {
        &self.resize
    }

    /// What was kept from slow servers.
    #[must_use]
    pub const fn tail_counters(&self) -> &TailCounters {
        &self.tails
    }

    /// Requests that wait somewhere in a tree.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Routes `request`. `ticket` names it in its answer; `now_ms` is unix time in milliseconds.
    pub fn begin(
        &mut self,
        routes: &Rc<Routes>,
        request: OwnedRequest,
        ticket: u64,
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        let tree = &routes.tree;
        let softening = tree.softening(request.operation(), request.meta().is_some());
        let parent = Parent::Client { ticket, softening };
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
            for (_, node) in ordered.filter(|(known, _)| selector::glob(prefix, known.as_bytes())) {
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
            first = tree.roots.iter().find_map(|(known, node)| (known.as_bytes() == prefix).then_some(*node));
        }
        let reply = match first {
            Some(node) => return self.start_rekeyed(routes, node, request, split, parent),
            None if tree.send_invalid_route_to_default => {
                return self.start_rekeyed(routes, default, request, split, parent);
            }
            None => outcome::local_error("RootRoute: No rh found"),
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
        modify::start_rekeyed(&mut step, node, request, changed, parent);
    }

    /// The reply to a call has come. One to a call that is not known, or was answered, is overlooked.
    pub fn replied(&mut self, call: CallId, reply: Reply, now_ms: u64, actions: &mut Vec<Action>) {
        if let Some(Call { parent }) = self.calls.remove(call.0) {
            self.work.push_back(Work::Deliver { parent, reply });
            self.run(now_ms, actions);
        }
    }

    /// When [`Execution::tick`] has something to do; `None` when nothing waits for its time.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.delayed.next_ms()
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
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
        }
    }

    /// Works until everything waits for replies. A queue and no recursion: a tree may be as deep as it likes.
    fn run(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let shadows = self.calls_with_shadows_max;
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Start { routes, node, request, parent } => {
                    let mut step = self.step(&routes, now_ms, actions);
                    start(&mut step, node, request, parent, shadows);
                }
                Work::Alarm { frame: place } => {
                    let Some(mut frame) = self.frames.take(place) else { continue };
                    let routes = Rc::clone(&frame.routes);
                    frame.woken(&mut self.step(&routes, now_ms, actions), place);
                    self.frames.put_back(place, frame);
                }
                Work::Deliver { parent: Parent::Nobody, .. } => {}
                Work::Deliver { parent: Parent::Client { ticket, softening }, reply } => {
                    actions.push(Action::Answer { ticket, reply: softening.apply(reply) });
                }
                Work::Deliver { parent: Parent::Frame { frame: place, child }, reply } => {
                    let Some(mut frame) = self.frames.take(place) else { continue };
                    frame.waiting -= 1;
                    let routes = Rc::clone(&frame.routes);
                    let mut step = self.step(&routes, now_ms, actions);
                    frame.replied(&mut step, place, child, reply);
                    if frame.waiting > 0 {
                        self.frames.put_back(place, frame);
                        continue;
                    }
                    debug_assert_eq!(
                        frame.parent,
                        Parent::Nobody,
                        "ended without an answer: {:?}",
                        frame.state
                    );
                    self.frames.release(place);
                    if frame.parent != Parent::Nobody {
                        self.work.push_back(Work::Deliver {
                            parent: frame.parent,
                            reply: outcome::local_error(""),
                        });
                    }
                }
            }
        }
        self.delayed.forget_ended(&self.frames);
    }
}

/// `request` arrives at `node`.
fn start(step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent, shadows_max: usize) {
    let tree = std::sync::Arc::clone(&step.routes.tree);
    match &tree.nodes[node as usize] {
        Node::Destination { id, keep_routing_prefix } => {
            send(step, *id, *keep_routing_prefix, request, parent)
        }
        Node::Hash { ring, children } => step.start(children[ring.pick(request.key())], request, parent),
        Node::Failover(failover) => failover.start(step, node, request, parent),
        Node::MissFailover { children, .. } => {
            super::miss_failover::start(step, node, children, request, parent)
        }
        Node::All(all) => all.start(step, node, request, parent),
        Node::Random { children } => {
            let chosen = children[step.random.usize(..children.len())];
            step.start(chosen, request, parent);
        }
        Node::Null => step.answer(parent, outcome::null(&request)),
        Node::Error { reply } => step.answer(parent, reply.clone()),
        Node::Operation { by_operation } => {
            step.start(by_operation[request.operation() as usize], request, parent)
        }
        Node::Prefix { policies, wildcard } => {
            step.start(selector::by_prefix(policies, *wildcard, request.key()), request, parent);
        }
        Node::Lookaside(lookaside) => lookaside.start(step, node, request, parent),
        Node::Migrate(migrate) => migrate.start(step, node, request, parent),
        Node::Shadow(shadow) => shadow.start(step, request, parent, shadows_max),
        Node::RateLimit(limit) => limit.start(step, node, request, parent),
        Node::Outstanding(limit) => limit.start(step, node, request, parent),
        Node::KeySplit(split) => split.start(step, node, request, parent),
        Node::ModifyKey(modify) => modify.start(step, request, parent),
        Node::ModifyExptime(modify) => modify.start(step, request, parent),
        Node::Logging(logging) => logging.start(step, node, &request, parent),
        Node::LoadBalancer(balancer) => balancer.start(step, node, request, parent),
        Node::BigValue(big) => big.start(step, node, request, parent),
        Node::Replicated(replicated) => replicated.start(step, node, request, parent),
        Node::Latency(latency) => latency.start(step, node, request, parent),
        Node::Blackhole { after_ms } => super::delay::blackhole(step, *after_ms, parent),
        Node::ShardSplits(splits) => splits.start(step, node, request, parent),
        Node::SlowWarmUp(warm_up) => warm_up.start(step, node, request, parent),
        Node::BoundedLoad(bounded) => bounded.start(step, node, request, parent),
        Node::Resize(resize) => resize.start(step, node, request, parent),
        Node::Spool { target } => spool::start(step, node, *target, request, parent),
    }
}

/// `request` leaves the tree.
fn send(
    step: &mut Step,
    destination: DestinationId,
    keep_prefix: bool,
    request: OwnedRequest,
    parent: Parent,
) {
    let Ok(request) = outgoing(request, keep_prefix) else {
        return step.answer(parent, outcome::bad_key());
    };
    // Only a destination that counts what it has under way refuses.
    let may_be_refused = step.routes.destinations()[destination.0 as usize].adaptive_concurrency.is_some()
        && others_may_answer(step.frames, parent);
    match step.calls.insert(Call { parent }) {
        Ok(call) => {
            let place = step.routes.place(destination);
            step.actions.push(Action::Send { call: CallId(call), place, request, may_be_refused });
        }
        Err(Call { parent }) => step.answer(parent, outcome::busy()),
    }
}

/// Whether anybody above would ask another server if this one were busy; so they would where nobody waits.
fn others_may_answer(frames: &Slab<Frame>, mut parent: Parent) -> bool {
    loop {
        let place = match parent {
            Parent::Client { .. } => return false,
            Parent::Nobody => return true,
            Parent::Frame { frame, .. } => frame,
        };
        match frames.get(place) {
            Some(frame) if !frame.has_another() => parent = frame.parent,
            _ => return true,
        }
    }
}

/// `request` as its destination sees it.
pub(super) fn outgoing(request: OwnedRequest, keep_prefix: bool) -> Result<OwnedRequest, BadKey> {
    if keep_prefix && !request.prefix().is_empty() { request.join_prefix() } else { Ok(request) }
}

const _: () = assert!(all::RESULTS_MAX > 16 + corecached_protocol::ErrorKind::Client as usize); // see `outcome::result`
