//! A request that waits at a node for replies, and what a node has to work with.

use std::collections::VecDeque;
use std::rc::Rc;

use corecached_protocol::Reply;

use super::action::Action;
use super::counters::{ResizeCounters, TailCounters};
use super::delayed::Delayed;
use super::error_downgrade::ErrorDowngrade;
use super::node_set::{NodeId, NodeProgress};
use super::outcome;
use super::slab::{Slab, SlotId};
use super::tree::Routes;
use crate::request::OwnedRequest;

/// Where a reply is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// To the client.
    Client { ticket: u64, downgrade: ErrorDowngrade },
    /// To a frame; `child` says to which of its requests.
    Frame { frame: SlotId, child: u32 },
    /// Nowhere: the request is sent for its effect.
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
    pub progress: NodeProgress,
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
        frame: SlotId,
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
    pub delayed: &'a mut Delayed<Work>,
    pub random: &'a mut fastrand::Rng,
    pub resize: &'a mut ResizeCounters,
    pub tails: &'a mut TailCounters,
    pub actions: &'a mut Vec<Action>,
    /// With this many requests sent and not answered, no copies are made for shadows.
    pub calls_with_shadows_max: usize,
}

impl Step<'_> {
    /// Sends `request` down to `node`; `parent` gets the reply.
    pub(super) fn start(&mut self, node: NodeId, request: OwnedRequest, parent: Parent) {
        debug_assert!(self.routes.tree.has(node), "node {node} is of another tree");
        self.work.push_back(Work::Start { routes: Rc::clone(self.routes), node, request, parent });
    }

    /// Delivers `reply` to `parent`.
    pub(super) fn answer(&mut self, parent: Parent, reply: Reply) {
        if parent != Parent::Nobody {
            self.work.push_back(Work::Deliver { parent, reply });
        }
    }

    /// Does `work` at `at_ms`; at once if that is past. When there is no room for it, its parent gets `busy`.
    pub(super) fn later(&mut self, at_ms: u64, work: Work) {
        if at_ms <= self.now_ms {
            return self.work.push_back(work);
        }
        if let Err(Work::Start { parent, .. } | Work::Deliver { parent, .. }) = self.delayed.push(at_ms, work)
        {
            self.answer(parent, outcome::busy());
        }
    }

    /// Wakes the frame in `slot` at `at_ms`, if it is still there then, and if there is room for one more
    /// alarm.
    pub(super) fn wake(&mut self, at_ms: u64, slot: SlotId) {
        self.later(at_ms, Work::Alarm { frame: slot });
    }

    /// A new frame, whose children are started with [`Frame::start_child`]; with no room for it `parent` gets
    /// `busy`.
    pub(super) fn open(
        &mut self,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
        progress: NodeProgress,
    ) -> Option<SlotId> {
        debug_assert!(self.routes.tree.has(node), "node {node} is of another tree");
        let frame = Frame { routes: Rc::clone(self.routes), node, parent, request, waiting: 0, progress };
        match self.frames.insert(frame) {
            Ok(slot) => Some(slot),
            Err(_) => {
                self.answer(parent, outcome::busy());
                None
            }
        }
    }

    /// Opens a frame and starts its first `children`.
    pub(super) fn open_with(
        &mut self,
        node: NodeId,
        request: &OwnedRequest,
        parent: Parent,
        progress: NodeProgress,
        children: impl IntoIterator<Item = (NodeId, OwnedRequest)>,
    ) {
        let Some(slot) = self.open(node, request.clone(), parent, progress) else { return };
        let mut started = 0;
        for (child, request) in children {
            self.start(child, request, Parent::Frame { frame: slot, child: started });
            started += 1;
        }
        debug_assert!(started > 0, "a frame without children would never end");
        self.expect(slot, started);
    }

    /// `replies` replies are to come to the new frame in `slot`.
    pub(super) fn expect(&mut self, slot: SlotId, replies: u32) {
        if let Some(mut frame) = self.frames.take(slot) {
            debug_assert_eq!(frame.waiting, 0, "the frame has children already");
            frame.waiting = replies;
            self.frames.put_back(slot, frame);
        }
    }
}

impl Frame {
    /// Delivers the answer; only the first one counts.
    pub(super) fn answer(&mut self, step: &mut Step, reply: Reply) {
        let parent = std::mem::replace(&mut self.parent, Parent::Nobody);
        step.answer(parent, reply);
    }

    /// Starts one more child of the frame, which is in `slot`.
    pub(super) fn start_child(
        &mut self,
        step: &mut Step,
        slot: SlotId,
        node: NodeId,
        request: OwnedRequest,
        child: u32,
    ) {
        self.waiting += 1;
        step.start(node, request, Parent::Frame { frame: slot, child });
    }
}
