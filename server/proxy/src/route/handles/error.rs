//! `ErrorRoute`: answers every request with an error.

use std::convert::Infallible;

use corecached_protocol::Reply;

use crate::request::OwnedRequest;
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;

/// Answers with an error.
#[derive(Debug)]
pub(in crate::route) struct ErrorNode {
    pub reply: Reply,
}

impl RouteNode for ErrorNode {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, _: OwnedRequest, parent: Parent) {
        step.answer(parent, self.reply.clone());
    }
}
