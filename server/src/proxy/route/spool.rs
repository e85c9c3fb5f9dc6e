//! Deletes that fail are handed out for later, and the client is told that nothing was found.

use corecached_protocol::Reply;

use super::super::config::ErrorSet;
use super::super::request::{OperationClass, OwnedRequest};
use super::execution::Action;
use super::frame::{Frame, Parent, State, Step};
use super::outcome;
use super::tree::{Node, NodeId};

pub(super) fn start(step: &mut Step, node: NodeId, target: NodeId, request: OwnedRequest, parent: Parent) {
    if request.class() != OperationClass::Delete {
        return step.start(target, request, parent);
    }
    step.open_with(node, &request, parent, State::Spool, [(target, request.clone())]);
}

pub(super) fn replied(frame: &mut Frame, step: &mut Step, reply: Reply) {
    let failed = outcome::error_kind(&reply).is_some_and(|kind| ErrorSet::DEFAULT.has(kind));
    let Node::Spool { target } = frame.routes.tree.nodes[frame.node as usize] else {
        return frame.answer(step, reply);
    };
    // A destination behind a handle of the pool's own is not known here: its client hears of the failure.
    let destination = step.tree().walk(target, frame.request.key(), frame.request.operation());
    match destination {
        Some(destination) if failed => {
            let place = frame.routes.place(destination);
            step.actions.push(Action::Undelivered { place, request: frame.request.clone() });
            let answer = outcome::null(&frame.request);
            frame.answer(step, answer);
        }
        _ => frame.answer(step, reply),
    }
}
