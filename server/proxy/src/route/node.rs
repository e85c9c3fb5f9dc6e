//! What a compiled route handle is: a node of the tree.

use std::fmt::Debug;
use std::rc::Rc;

use corecached_protocol::Reply;

use super::frame::{Frame, Parent, Step};
use super::node_set::{Next, Node, NodeId, NodeProgress, NodeState, RingBelow};
use super::slab::SlotId;
use super::tree::{Routes, Tree};
use crate::request::{Operation, OwnedRequest};

/// One kind of node. The list in `handles/mod.rs` makes one enum of all of them, and passes every call on.
///
/// A node is immutable and shared by all shards. What one shard keeps of it is its `State`. A request that
/// waits for replies at a node has a [`Frame`], which holds the node's `Progress`.
pub(super) trait RouteNode: Debug + Sized {
    /// What one shard keeps of the node; `()` for nothing.
    type State: Debug;
    /// What a request remembers that waits at the node; [`std::convert::Infallible`] when none ever waits.
    type Progress: Debug;

    /// The state of a shard that has seen no request yet.
    fn state(&self) -> Self::State;

    /// `request` arrives at the node, which is `node` of the tree; `parent` gets the reply.
    fn start(
        &self,
        state: &Self::State,
        step: &mut Step,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
    );

    /// A reply to one of the requests of `frame`, which is in `slot`, has come. Passed on unless the node
    /// does more.
    fn replied(
        &self,
        state: &Self::State,
        frame: &mut Frame,
        step: &mut Step,
        slot: SlotId,
        child: u32,
        reply: Reply,
    ) {
        let _ = (state, slot, child);
        frame.answer(step, reply);
    }

    /// The time has come at which `frame`, which is in `slot`, asked to be woken.
    fn woken(&self, state: &Self::State, frame: &mut Frame, step: &mut Step, slot: SlotId) {
        let _ = (state, frame, step, slot);
    }

    /// Whether another child is asked if the one that was asked last is busy. Nodes that say so ask the busy
    /// one again, and then say no, when none of the others answers.
    fn has_another(&self, progress: &Self::Progress, request: &OwnedRequest) -> bool {
        let _ = (progress, request);
        false
    }

    /// Where a request goes whose reply is passed on as it is. On the hot path: no allocation.
    #[inline]
    fn direct(&self, tree: &Tree, key: &[u8], operation: Operation) -> Next {
        let _ = (tree, key, operation);
        Next::Undecided
    }

    /// The child of a node that only limits or watches: all requests that it lets through go there.
    fn only_child(&self) -> Option<NodeId> {
        None
    }

    /// Where a request goes in most cases, past what only limits or watches. For log lines, not for sending.
    fn usual(&self, key: &[u8], operation: Operation) -> Next {
        let _ = (key, operation);
        self.only_child().map_or(Next::Undecided, Next::Node)
    }

    /// Where a delete of `key` goes that is sent again later.
    fn late_delete(&self, key: &[u8], now_ms: u64) -> Next {
        let _ = (key, now_ms);
        self.only_child().map_or(Next::Undecided, Next::Node)
    }

    /// The ring of the pool that the node is, or limits or watches.
    fn ring_below(&self) -> RingBelow {
        self.only_child().map_or(RingBelow::None, RingBelow::At)
    }
}

/// What a request remembers that waits in a way which several handles share.
pub(super) trait SharedProgress: Debug {
    /// A reply has come to `request`, which waits for `waiting` more: the answer, if there is one now.
    fn answer_to(&mut self, request: &OwnedRequest, waiting: u32, reply: Reply) -> Option<Reply>;
}

/// The ways between a kind of node and the enums over all kinds. Implemented by the list alone.
pub(super) trait Listed: RouteNode {
    /// The node as one of all kinds.
    fn into_node(self) -> Node;

    /// `node`, if it is of this kind.
    fn in_node(node: &Node) -> Option<&Self>;

    /// `state`, if it is of a node of this kind.
    fn in_state(state: &NodeState) -> Option<&Self::State>;

    /// `progress` as a frame holds it.
    fn waiting(progress: Self::Progress) -> NodeProgress;

    /// The progress of a frame, if it waits at a node of this kind.
    fn in_progress(progress: &mut NodeProgress) -> Option<&mut Self::Progress>;

    /// Node `node` of `routes` and the shard's state of it.
    ///
    /// # Panics
    /// When it is of another kind.
    fn at(routes: &Rc<Routes>, node: NodeId) -> (&Self, &Self::State) {
        let found = Self::in_node(&routes.tree.nodes[node as usize]);
        match found.zip(Self::in_state(&routes.states[node as usize])) {
            Some(found) => found,
            None => unreachable!("node {node} is of another kind than what waits at it"),
        }
    }
}
