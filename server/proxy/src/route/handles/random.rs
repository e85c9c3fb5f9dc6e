//! `RandomRoute`: each request goes to any child.

use std::convert::Infallible;

use crate::request::OwnedRequest;
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;

/// To a child chosen at random.
#[derive(Debug)]
pub(in crate::route) struct Random {
    pub children: Box<[NodeId]>,
}

impl RouteNode for Random {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {
        debug_assert!(!self.children.is_empty());
    }

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        let chosen = self.children[step.random.usize(..self.children.len())];
        step.start(chosen, request, parent);
    }
}
