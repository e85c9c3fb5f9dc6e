//! KeySplitRoute: hot keys in several copies, `key::N`; copy 0 keeps the key's name.

use corecached_protocol::Reply;

use super::super::request::{BadKey, OperationClass, OwnedRequest};
use super::frame::{Frame, Parent, State, Step};
use super::outcome;
use super::slab::Place;
use super::tree::{Node, NodeId};

/// See [`super::super::config::Handle::KeySplit`].
#[derive(Debug)]
pub(super) struct KeySplit {
    pub target: NodeId,
    pub replicas: u32,
    /// The copy this host uses.
    pub own: u32,
    pub all_sync: bool,
    pub first_hit: bool,
}

impl KeySplit {
    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let Ok(own) = copy(&request, self.own) else { return step.answer(parent, outcome::bad_key()) };
        match request.class() {
            OperationClass::Delete => self.to_all(step, node, &request, parent),
            OperationClass::Update if self.all_sync => self.to_all(step, node, &request, parent),
            OperationClass::Get if self.first_hit && self.own > 0 => {
                step.open_with(node, &request, parent, State::Copy, [(self.target, own)]);
            }
            _ => super::modify::start_rekeyed(step, self.target, &request, own, parent),
        }
    }

    fn to_all(&self, step: &mut Step, node: NodeId, request: &OwnedRequest, parent: Parent) {
        let copies: Result<Vec<_>, _> = (0..self.replicas).map(|at| copy(request, at)).collect();
        match copies {
            Ok(copies) => {
                let started = copies.into_iter().map(|copy| (self.target, copy));
                step.open_with(node, request, parent, State::Worst(None), started);
            }
            Err(BadKey) => step.answer(parent, outcome::bad_key()),
        }
    }
}

fn copy(request: &OwnedRequest, at: u32) -> Result<OwnedRequest, BadKey> {
    if at == 0 {
        return Ok(request.clone());
    }
    request.with_key([&request.key()[..], format!("::{at}").as_bytes()].concat().into())
}

/// Our copy missed: the first one is asked.
pub(super) fn replied(frame: &mut Frame, step: &mut Step, place: Place, child: u32, reply: Reply) {
    let routes = std::rc::Rc::clone(&frame.routes);
    let Node::KeySplit(split) = &routes.tree.nodes[frame.node as usize] else {
        return frame.answer(step, reply);
    };
    if child > 0 || outcome::is_hit(&reply) {
        return super::modify::rekeyed(frame, step, reply);
    }
    let request = frame.request.clone();
    frame.start_child(step, place, split.target, request, 1);
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use super::super::super::config::Options;
    use super::super::tests::{Bench, POOLS, options, value};

    #[test]
    fn a_split_key_has_a_copy_for_each_host_and_is_deleted_in_all() {
        let text = format!(
            "{{{POOLS}, \"route\": {{\"type\": \"KeySplitRoute\", \"destination\": \"PoolRoute|a\", \"replicas\": 3, \"all_sync\": true, \"first_hit\": true}}}}"
        );
        for (host_id, own) in [(0, "k"), (1, "k::1"), (5, "k::2")] {
            let mut bench = Bench::with(&text, &Options { host_id, ..options() });
            bench.get();
            assert_eq!(bench.reply(&format!("a get {own}"), value("v")), Some(value("v")));
            for (line, data, sent) in [("delete k", "", "a delete K"), ("set k 0 0 1", "x", "a set K 0 x")] {
                bench.ask(line, data);
                for key in ["k", "k::1", "k::2"] {
                    bench.reply(&sent.replace('K', key), Reply::Stored);
                }
            }
            bench.done();
        }
        let mut bench = Bench::with(&text, &Options { host_id: 1, ..options() });
        bench.get();
        assert_eq!(bench.reply("a get k::1", Reply::Miss), None);
        assert_eq!(bench.reply("a get k", value("v")), Some(value("v")));
        let longest = "k".repeat(250);
        assert!(matches!(
            bench.ask(&format!("get {longest}"), ""),
            Some(Reply::Error { kind: ErrorKind::BadKey, .. })
        ));
        bench.done();
    }
}
