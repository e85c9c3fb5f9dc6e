//! MissFailoverRoute: retrievals and deletes go to child after child until one has the key.

use corecached_protocol::Reply;

use super::super::request::{OperationClass, OwnedRequest};
use super::frame::{Frame, Parent, State, Step};
use super::outcome;
use super::slab::Place;
use super::tree::{Node, NodeId};

/// Where one request stands: the best reply so far.
#[derive(Debug)]
pub(super) struct Progress {
    best: Option<Reply>,
}

pub(super) fn start(
    step: &mut Step,
    node: NodeId,
    children: &[NodeId],
    request: OwnedRequest,
    parent: Parent,
) {
    if !matches!(request.class(), OperationClass::Get | OperationClass::Delete) {
        return step.start(children[0], request, parent);
    }
    let state = State::MissFailover(Progress { best: None });
    step.open_with(node, &request, parent, state, [(children[0], request.clone())]);
}

pub(super) fn replied(frame: &mut Frame, step: &mut Step, place: Place, child: u32, reply: Reply) {
    let routes = std::rc::Rc::clone(&frame.routes);
    let Node::MissFailover { children, best: answer_best } = &routes.tree.nodes[frame.node as usize] else {
        return frame.answer(step, reply);
    };
    let State::MissFailover(progress) = &mut frame.state else { return };
    if outcome::is_hit(&reply) {
        return frame.answer(step, reply);
    }
    let reply = match progress.best.take() {
        Some(best) if *answer_best && outcome::rank(&best) <= outcome::rank(&reply) => best,
        _ => reply,
    };
    match children.get(child as usize + 1) {
        Some(&next) => {
            progress.best = Some(reply);
            let request = frame.request.clone();
            frame.start_child(step, place, next, request, child + 1);
        }
        None => frame.answer(step, reply),
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use super::super::tests::{Bench, TIMEOUT, error, value};

    #[test]
    fn miss_failover_asks_on_until_a_hit_and_writes_to_the_first() {
        let route =
            r#"{"type": "MissFailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#;
        let mut bench = Bench::new(route);
        bench.get();
        assert_eq!(bench.reply("a get k", Reply::Miss), None);
        assert_eq!(bench.reply("b get k", value("v")), Some(value("v")));
        bench.ask("delete k", "");
        bench.reply("a delete k", Reply::NotFound);
        bench.reply("b delete k", Reply::NotFound);
        assert_eq!(bench.reply("c delete k", error(TIMEOUT)), Some(error(TIMEOUT)));
        bench.ask("set k 0 0 1", "x");
        assert_eq!(bench.reply("a set k 0 x", Reply::NotStored), Some(Reply::NotStored));
        bench.done();

        let mut bench = Bench::new(&route.replace("]}", "], \"return_best_on_error\": true}"));
        bench.get();
        bench.reply("a get k", error(TIMEOUT));
        bench.reply("b get k", Reply::Miss);
        assert_eq!(bench.reply("c get k", error(TIMEOUT)), Some(Reply::Miss));
        bench.done();
    }
}
