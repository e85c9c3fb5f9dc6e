//! `NullRoute` and `DevNullRoute`: answers as a server that has nothing.

use std::convert::Infallible;

use crate::request::OwnedRequest;
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::outcome;

/// Answers as if nothing were found.
#[derive(Debug)]
pub(in crate::route) struct Null;

impl RouteNode for Null {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        step.answer(parent, outcome::null(&request));
    }
}
