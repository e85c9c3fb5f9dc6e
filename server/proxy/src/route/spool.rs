//! Deletes that fail are kept for later, and the client is told that nothing was found. Where they cannot be kept, it is
//! told of the failure.

use corecached_protocol::{ErrorKind, Reply};

use super::super::config::ErrorSet;
use super::super::request::{Operation, OperationClass, OwnedRequest};
use super::execution::{self, Action, CallId};
use super::frame::{Call, Frame, Parent, State, Step};
use super::outcome;
use super::slab::Place;
use super::tree::{DestinationId, Node, NodeId, Tree};

/// What is waited for.
#[derive(Debug)]
pub(super) enum Stage {
    /// The destination.
    Delivery,
    /// Whether it is kept; else this is the answer.
    Keeping(Reply),
}

pub(super) fn start(step: &mut Step, node: NodeId, target: NodeId, request: OwnedRequest, parent: Parent) {
    if request.class() != OperationClass::Delete {
        return step.start(target, request, parent);
    }
    step.open_with(node, &request, parent, State::Spool(Stage::Delivery), [(target, request.clone())]);
}

pub(super) fn replied(frame: &mut Frame, step: &mut Step, frame_place: Place, reply: Reply) {
    let State::Spool(stage) = &mut frame.state else { return };
    if let Stage::Keeping(failure) = stage {
        let kept = outcome::error_kind(&reply).is_none();
        let answer = if kept { outcome::null(&frame.request) } else { failure.clone() };
        return frame.answer(step, answer);
    }
    // What handles refuse themselves was never meant to reach a destination.
    let failed = outcome::error_kind(&reply)
        .is_some_and(|kind| kind != ErrorKind::Local && ErrorSet::DEFAULT.has(kind));
    let Node::Spool { target } = frame.routes.tree.nodes[frame.node as usize] else {
        return frame.answer(step, reply);
    };
    let destination =
        failed.then(|| destination(&frame.routes.tree, target, frame.request.key(), step.now_ms)).flatten();
    let Some((id, keep_prefix)) = destination else { return frame.answer(step, reply) };
    let Ok(request) = execution::outgoing(frame.request.clone(), keep_prefix) else {
        return frame.answer(step, reply);
    };
    match step.calls.insert(Call { parent: Parent::Frame { frame: frame_place, child: 0 } }) {
        Ok(call) => {
            *stage = Stage::Keeping(reply);
            frame.waiting += 1;
            let place = frame.routes.place(id);
            step.actions.push(Action::Keep { call: CallId(call), place, request });
        }
        Err(_) => frame.answer(step, reply),
    }
}

/// The destination of a delete of `key` below a pool, past what only limits or copies. One behind a handle that stands
/// among the pool's servers is not known here: its client hears of the failure.
fn destination(tree: &Tree, mut node: NodeId, key: &[u8], now_ms: u64) -> Option<(DestinationId, bool)> {
    loop {
        node = match &tree.nodes[node as usize] {
            Node::Destination { id, keep_routing_prefix } => return Some((*id, *keep_routing_prefix)),
            Node::Hash { ring, children } => children[ring.pick(key)],
            Node::Operation { by_operation } => by_operation[Operation::Delete as usize],
            Node::RateLimit(limit) => limit.target,
            Node::Outstanding(limit) => limit.target,
            Node::Shadow(shadows) => shadows.target,
            Node::Logging(logging) => logging.target,
            Node::SlowWarmUp(warm_up) => warm_up.target,
            Node::Resize(resize) => resize.node(now_ms),
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use super::super::super::config::Options;
    use super::super::tests::{Bench, POOLS, TIMEOUT, error, meta};

    #[test]
    fn a_failed_delete_is_kept_for_later_and_answered_not_found() {
        let text = format!("{{{POOLS}, \"route\": \"PoolRoute|two\"}}");
        let mut bench = Bench::with(&text, &Options::default());
        let refused = || error(ErrorKind::Local);
        for (line, reply, kept, answer) in [
            ("delete k", Reply::Deleted, None, Reply::Deleted),
            ("delete k", error(TIMEOUT), Some(Reply::NotFound), Reply::NotFound),
            ("md k O1", error(ErrorKind::Ejected), Some(Reply::NotFound), meta("NF O1")),
            ("delete k", error(TIMEOUT), Some(refused()), error(TIMEOUT)),
            ("delete k", refused(), None, refused()),
            ("delete k", error(ErrorKind::Client), None, error(ErrorKind::Client)),
        ] {
            bench.ask(line, "");
            let sent = bench.waiting()[0].to_owned();
            let answered = bench.reply(&sent, reply);
            let answered = match kept {
                Some(kept) => {
                    assert_eq!(answered, None, "{line}");
                    let sent = bench.waiting()[0].to_owned();
                    assert!(sent.starts_with("spool "), "{sent}");
                    bench.reply(&sent, kept)
                }
                None => answered,
            };
            assert_eq!(answered, Some(answer), "{line}");
            bench.done();
        }
    }
}
