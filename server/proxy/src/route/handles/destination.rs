//! The nodes at the leaves of a tree: each sends to one destination.

use std::convert::Infallible;

use crate::request::{Operation, OwnedRequest};
use crate::route::action::{Action, CallId, outgoing};
use crate::route::frame::{Call, Frame, Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::{DestinationId, Next, NodeId, NodeProgress};
use crate::route::outcome;
use crate::route::slab::Slab;
use crate::route::tree::Tree;

/// Sends every request to one destination.
#[derive(Clone, Copy, Debug)]
pub(in crate::route) struct DestinationNode {
    pub id: DestinationId,
    /// Keys are sent with the routing prefix that they came with.
    pub keep_routing_prefix: bool,
}

impl RouteNode for DestinationNode {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        let Ok(request) = outgoing(request, self.keep_routing_prefix) else {
            return step.answer(parent, outcome::bad_key());
        };
        // Only a destination that counts what it has under way refuses.
        let destination = &step.routes.destinations()[self.id.0 as usize];
        let may_be_refused =
            destination.adaptive_concurrency.is_some() && others_may_answer(step.frames, parent);
        match step.calls.insert(Call { parent }) {
            Ok(call) => {
                let place = step.routes.place(self.id);
                step.actions.push(Action::Send { call: CallId(call), place, request, may_be_refused });
            }
            Err(Call { parent }) => step.answer(parent, outcome::busy()),
        }
    }

    #[inline]
    fn direct(&self, _: &Tree, _: &[u8], _: Operation) -> Next {
        Next::Destination(self.id)
    }

    fn usual(&self, _: &[u8], _: Operation) -> Next {
        Next::Destination(self.id)
    }

    fn late_delete(&self, _: &[u8], _: u64) -> Next {
        Next::Destination(self.id)
    }
}

/// Whether a node above would ask another server if this one were busy. Where nobody waits for the reply,
/// that is so too.
fn others_may_answer(frames: &Slab<Frame>, mut parent: Parent) -> bool {
    loop {
        let slot = match parent {
            Parent::Client { .. } => return false,
            Parent::Nobody => return true,
            Parent::Frame { frame, .. } => frame,
        };
        match frames.get(slot) {
            Some(frame) if !NodeProgress::has_another(frame) => parent = frame.parent,
            _ => return true,
        }
    }
}
