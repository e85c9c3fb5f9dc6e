//! Waiting for all replies, of which the worst is the answer. Several handles wait so.

use corecached_protocol::Reply;

use super::node::SharedProgress;
use super::outcome;
use crate::request::OwnedRequest;

/// The worst reply so far; of equally bad ones the first.
#[derive(Debug, Default)]
pub(super) struct WorstReply(Option<Reply>);

impl SharedProgress for WorstReply {
    fn answer_to(&mut self, _: &OwnedRequest, waiting: u32, reply: Reply) -> Option<Reply> {
        if self.0.as_ref().is_none_or(|worst| outcome::rank(&reply) > outcome::rank(worst)) {
            self.0 = Some(reply);
        }
        if waiting == 0 { self.0.take() } else { None }
    }
}
