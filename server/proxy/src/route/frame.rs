//! A request that waits for replies, and what a node may do with one.

use std::collections::VecDeque;
use std::rc::Rc;

use corecached_protocol::Reply;

use super::super::request::OwnedRequest;
use super::delay::Delayed;
use super::execution::Action;
use super::resize::{self, ResizeCounters};
use super::slab::{Place, Slab};
use super::tail_counters::TailCounters;
use super::tree::{Node, NodeId, NodeState, Routes, Softening};
use super::{all, failover, lookaside, miss_failover, outcome, spool};

/// Who waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// The client.
    Client { ticket: u64, softening: Softening },
    /// A frame; `child` says which of its requests.
    Frame { frame: Place, child: u32 },
    /// Nobody: it is sent for its effect.
    Nobody,
}

/// A request at a node that waits for replies of nodes below.
#[derive(Debug)]
pub(super) struct Frame {
    pub routes: Rc<Routes>,
    pub node: NodeId,
    pub parent: Parent,
    pub request: OwnedRequest,
    /// Replies that are still to come; at 0 the frame ends.
    pub waiting: u32,
    pub state: State,
}

/// What a frame remembers, by what it does.
#[derive(Debug)]
pub(super) enum State {
    Failover(failover::Progress),
    MissFailover(miss_failover::Progress),
    Worst(Option<Reply>),
    Fastest,
    Majority(all::Votes),
    Lookaside(lookaside::Stage),
    Outstanding,
    Spool(spool::Stage),
    Latency {
        asked_ms: u64,
    },
    LoadBalancer(super::load_balancer::Progress),
    BigValue(super::big_value::Stage),
    Replicated(super::replicated::Progress),
    Logging,
    SlowWarmUp,
    Resize(Box<resize::Progress>),
    BoundedLoad(super::bounded_load::Progress),
    /// The key was changed on the way: the reply shows the client's own.
    Rekey,
    /// A retrieval of one copy of a split key.
    Copy,
}

/// One thing to do next.
#[derive(Debug)]
pub(super) enum Work {
    Start {
        routes: Rc<Routes>,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
    },
    Deliver {
        parent: Parent,
        reply: Reply,
    },
    /// The frame asked to be woken.
    Alarm {
        frame: Place,
    },
}

/// A request on its way to a destination.
#[derive(Debug)]
pub(super) struct Call {
    pub parent: Parent,
}

/// What a node has to work with while it takes one request or reply.
pub(super) struct Step<'a> {
    pub routes: &'a Rc<Routes>,
    pub now_ms: u64,
    pub frames: &'a mut Slab<Frame>,
    pub calls: &'a mut Slab<Call>,
    pub work: &'a mut VecDeque<Work>,
    pub delayed: &'a mut Delayed,
    pub random: &'a mut fastrand::Rng,
    pub resize: &'a mut ResizeCounters,
    pub tails: &'a mut TailCounters,
    pub actions: &'a mut Vec<Action>,
}

impl Step<'_> {
    pub fn state(&self, node: NodeId) -> &NodeState {
        &self.routes.states[node as usize]
    }

    /// A request went past the server of its key, if it did.
    pub fn bounded_load_moved(&mut self, moved: bool) {
        self.tails.bounded_load_moved += u64::from(moved);
    }

    /// Sends `request` down to `node`; `parent` gets the reply.
    pub fn start(&mut self, node: NodeId, request: OwnedRequest, parent: Parent) {
        self.work.push_back(Work::Start { routes: Rc::clone(self.routes), node, request, parent });
    }

    pub fn answer(&mut self, parent: Parent, reply: Reply) {
        if parent != Parent::Nobody {
            self.work.push_back(Work::Deliver { parent, reply });
        }
    }

    /// A new frame, whose children are started with [`Step::start_child`]; with no room `parent` is told.
    pub fn open(
        &mut self,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
        state: State,
    ) -> Option<Place> {
        let frame = Frame { routes: Rc::clone(self.routes), node, parent, request, waiting: 0, state };
        match self.frames.insert(frame) {
            Ok(place) => Some(place),
            Err(_) => {
                self.answer(parent, outcome::busy());
                None
            }
        }
    }

    /// Opens a frame and starts its first `children`.
    pub fn open_with(
        &mut self,
        node: NodeId,
        request: &OwnedRequest,
        parent: Parent,
        state: State,
        children: impl IntoIterator<Item = (NodeId, OwnedRequest)>,
    ) {
        let Some(place) = self.open(node, request.clone(), parent, state) else { return };
        let mut started = 0;
        for (child, request) in children {
            self.start(child, request, Parent::Frame { frame: place, child: started });
            started += 1;
        }
        self.expect(place, started);
    }

    /// So many replies are to come to the frame at `place`.
    pub fn expect(&mut self, place: Place, replies: u32) {
        if let Some(mut frame) = self.frames.take(place) {
            frame.waiting = replies;
            self.frames.put_back(place, frame);
        }
    }
}

impl Frame {
    /// Answers whoever waits; only the first answer counts.
    pub fn answer(&mut self, step: &mut Step, reply: Reply) {
        let parent = std::mem::replace(&mut self.parent, Parent::Nobody);
        step.answer(parent, reply);
    }

    /// Starts one more child of the frame at `place`.
    pub fn start_child(
        &mut self,
        step: &mut Step,
        place: Place,
        node: NodeId,
        request: OwnedRequest,
        child: u32,
    ) {
        self.waiting += 1;
        step.start(node, request, Parent::Frame { frame: place, child });
    }

    /// The time has come that the frame asked to be woken at.
    pub fn woken(&mut self, step: &mut Step, place: Place) {
        if let State::Replicated(_) = &self.state {
            super::replicated::woken(self, step, place);
        }
    }

    /// Whether another child is asked if the one that was asked last is busy. Both that say so ask it again, and then
    /// say no, if none of the others answers.
    pub fn has_another(&self) -> bool {
        match (&self.routes.tree.nodes[self.node as usize], &self.state) {
            (Node::Failover(failover), State::Failover(progress)) => {
                failover.has_another(progress, self.request.class())
            }
            (Node::Replicated(_), State::Replicated(progress)) => progress.has_another(),
            _ => false,
        }
    }

    /// A reply to one of the frame's requests has come.
    pub fn replied(&mut self, step: &mut Step, place: Place, child: u32, reply: Reply) {
        match &self.state {
            State::Failover(_) => failover::replied(self, step, place, child, reply),
            State::MissFailover(_) => miss_failover::replied(self, step, place, child, reply),
            State::Worst(_) => all::worst(self, step, reply),
            State::Fastest => all::fastest(self, step, reply),
            State::Majority(_) => all::majority(self, step, reply),
            State::Lookaside(_) => lookaside::replied(self, step, place, reply),
            State::Outstanding => super::outstanding::replied(self, step, reply),
            State::Spool(_) => spool::replied(self, step, place, reply),
            State::Logging => super::logging::replied(self, step, reply),
            State::SlowWarmUp => super::slow_warm_up::replied(self, step, reply),
            State::Latency { .. } => super::delay::replied(self, step, reply),
            State::LoadBalancer(_) => super::load_balancer::replied(self, step, place, child, reply),
            State::BigValue(_) => super::big_value::replied(self, step, place, child, reply),
            State::Replicated(_) => super::replicated::replied(self, step, place, child, reply),
            State::Resize(_) => resize::replied(self, step, place, child, reply),
            State::BoundedLoad(_) => super::bounded_load::replied(self, step, reply),
            State::Rekey => super::modify::rekeyed(self, step, reply),
            State::Copy => super::key_split::replied(self, step, place, child, reply),
        }
    }
}
