//! The node of a pool, and of `HashRoute`: a request goes to the child that its key belongs to.

use std::convert::Infallible;
use std::sync::Arc;

use crate::hash::Ring;
use crate::request::{Operation, OwnedRequest};
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::{Next, NodeId, RingBelow};
use crate::route::tree::Tree;

/// To the child that the key belongs to.
#[derive(Debug)]
pub(in crate::route) struct HashNode {
    pub ring: Arc<Ring>,
    pub children: Box<[NodeId]>,
}

impl HashNode {
    #[inline]
    pub fn child(&self, key: &[u8]) -> NodeId {
        self.children[self.ring.pick(key)]
    }
}

impl RouteNode for HashNode {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {
        debug_assert!(!self.children.is_empty(), "a ring has members");
    }

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        step.start(self.child(request.key()), request, parent);
    }

    #[inline]
    fn direct(&self, _: &Tree, key: &[u8], _: Operation) -> Next {
        Next::Node(self.child(key))
    }

    fn usual(&self, key: &[u8], _: Operation) -> Next {
        Next::Node(self.child(key))
    }

    fn late_delete(&self, key: &[u8], _: u64) -> Next {
        Next::Node(self.child(key))
    }

    fn ring_below(&self) -> RingBelow {
        RingBelow::Ring(Arc::clone(&self.ring))
    }
}
