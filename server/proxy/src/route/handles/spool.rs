//! Deletes that fail are kept for later, and the client gets the answer of a server that has nothing. When
//! one cannot be kept, the client gets the error.

use corecached_protocol::{ErrorKind, Reply};

use super::destination::DestinationNode;
use crate::config::ErrorSet;
use crate::request::{Operation, OperationClass, OwnedRequest};
use crate::route::action::{Action, CallId, outgoing};
use crate::route::frame::{Call, Frame, Parent, Step};
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::{Next, NodeId, RingBelow};
use crate::route::outcome;
use crate::route::slab::SlotId;
use crate::route::tree::Tree;

/// Keeps deletes that fail for later.
#[derive(Debug)]
pub(in crate::route) struct Spool {
    pub target: NodeId,
}

/// What a delete waits for.
#[derive(Debug)]
pub(in crate::route) enum SpoolStage {
    /// The destination's reply.
    Delivery,
    /// Whether the delete is kept; if it is not, this reply of the destination's is the answer.
    Keeping(Reply),
}

impl RouteNode for Spool {
    type State = ();
    type Progress = SpoolStage;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        if request.class() != OperationClass::Delete {
            return step.start(self.target, request, parent);
        }
        let sent = [(self.target, request.clone())];
        step.open_with(node, &request, parent, Self::waiting(SpoolStage::Delivery), sent);
    }

    fn replied(&self, (): &(), frame: &mut Frame, step: &mut Step, slot: SlotId, _: u32, reply: Reply) {
        let Some(stage) = Self::in_progress(&mut frame.progress) else { return };
        if let SpoolStage::Keeping(failure) = stage {
            let kept = outcome::error_kind(&reply).is_none();
            let answer = if kept { outcome::null(&frame.request) } else { failure.clone() };
            return frame.answer(step, answer);
        }
        // What handles refuse themselves was never meant to reach a destination.
        let failed = outcome::error_kind(&reply)
            .is_some_and(|kind| kind != ErrorKind::Local && ErrorSet::DEFAULT.has(kind));
        let tree = &frame.routes.tree;
        let destination =
            failed.then(|| destination(tree, self.target, frame.request.key(), step.now_ms)).flatten();
        let Some(destination) = destination else { return frame.answer(step, reply) };
        let Ok(request) = outgoing(frame.request.clone(), destination.keep_routing_prefix) else {
            return frame.answer(step, reply);
        };
        match step.calls.insert(Call { parent: Parent::Frame { frame: slot, child: 0 } }) {
            Ok(call) => {
                *stage = SpoolStage::Keeping(reply);
                frame.waiting += 1;
                let place = frame.routes.place(destination.id);
                step.actions.push(Action::Keep { call: CallId(call), place, request });
            }
            Err(_) => frame.answer(step, reply),
        }
    }

    #[inline]
    fn direct(&self, _: &Tree, _: &[u8], operation: Operation) -> Next {
        if operation == Operation::Delete { Next::Undecided } else { Next::Node(self.target) }
    }

    fn usual(&self, _: &[u8], _: Operation) -> Next {
        Next::Node(self.target)
    }

    fn ring_below(&self) -> RingBelow {
        RingBelow::At(self.target)
    }
}

/// The destination of a delete of `key` below a pool, past what only limits or copies. One below a handle
/// that is among the pool's servers is not known here: its client gets the error.
fn destination(tree: &Tree, mut node: NodeId, key: &[u8], now_ms: u64) -> Option<DestinationNode> {
    loop {
        match tree.nodes[node as usize].late_delete(key, now_ms) {
            Next::Node(next) => node = next,
            Next::Destination(_) => return DestinationNode::in_node(&tree.nodes[node as usize]).copied(),
            Next::Undecided => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use crate::config::Options;
    use crate::route::tests::{Bench, POOLS, TIMEOUT, error, meta};

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
