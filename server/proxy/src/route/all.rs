//! To all children: AllSync, AllAsync, AllFastest, AllInitial, AllMajority.

use corecached_protocol::Reply;

use super::super::config::{ErrorSet, Wait};
use super::super::request::OwnedRequest;
use super::frame::{Frame, Parent, State, Step};
use super::outcome;
use super::tree::NodeId;

/// Results that [`outcome::result`] tells apart, at most.
pub(super) const RESULTS_MAX: usize = 32;

/// A request to every child.
#[derive(Debug)]
pub(super) struct All {
    pub children: Box<[NodeId]>,
    pub wait: Wait,
}

/// What was voted for so far: of each result how many, and the first reply with it.
#[derive(Debug)]
pub(super) struct Votes {
    children: u32,
    counts: [u32; RESULTS_MAX],
    replies: Vec<Reply>,
}

impl All {
    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let state = match self.wait {
            Wait::Worst => State::Worst(None),
            Wait::Fastest => State::Fastest,
            Wait::Majority => State::Majority(Votes {
                children: self.children.len() as u32,
                counts: [0; RESULTS_MAX],
                replies: Vec::new(),
            }),
            Wait::None => {
                step.answer(parent, outcome::null(&request));
                for &child in &self.children {
                    step.start(child, request.clone(), Parent::Nobody);
                }
                return;
            }
            Wait::Initial => {
                for (at, &child) in self.children.iter().enumerate() {
                    step.start(child, request.clone(), if at == 0 { parent } else { Parent::Nobody });
                }
                return;
            }
        };
        to_all(step, node, &self.children, &request, parent, state);
    }
}

/// Opens a frame with a request to each of `children`.
pub(super) fn to_all(
    step: &mut Step,
    node: NodeId,
    children: &[NodeId],
    request: &OwnedRequest,
    parent: Parent,
    state: State,
) {
    step.open_with(node, request, parent, state, children.iter().map(|&child| (child, request.clone())));
}

/// Answers with the worst reply, once all are in. Of equally bad ones the first counts.
pub(super) fn worst(frame: &mut Frame, step: &mut Step, reply: Reply) {
    let State::Worst(worst) = &mut frame.state else { return };
    if worst.as_ref().is_none_or(|worst| outcome::rank(&reply) > outcome::rank(worst)) {
        *worst = Some(reply);
    }
    if frame.waiting == 0
        && let Some(worst) = worst.take()
    {
        frame.answer(step, worst);
    }
}

/// Answers with the first reply that is no error, else with the last.
pub(super) fn fastest(frame: &mut Frame, step: &mut Step, reply: Reply) {
    let failed = outcome::error_kind(&reply).is_some_and(|kind| ErrorSet::DEFAULT.has(kind));
    if !failed || frame.waiting == 0 {
        frame.answer(step, reply);
    }
}

/// Answers once more than half of the replies have the same result; else with the most frequent one, of equally
/// frequent ones the worst.
pub(super) fn majority(frame: &mut Frame, step: &mut Step, reply: Reply) {
    let State::Majority(votes) = &mut frame.state else { return };
    let result = usize::from(outcome::result(&reply));
    votes.counts[result] += 1;
    if votes.counts[result] == 1 {
        votes.replies.push(reply.clone());
    }
    if votes.counts[result] > votes.children / 2 {
        frame.answer(step, reply);
    } else if frame.waiting == 0 {
        let weight =
            |reply: &Reply| (votes.counts[usize::from(outcome::result(reply))], outcome::rank(reply));
        if let Some(winner) = votes.replies.iter().max_by_key(|reply| weight(reply)).cloned() {
            frame.answer(step, winner);
        }
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use super::super::tests::{Bench, TIMEOUT, error, meta, value};

    #[test]
    fn all_sync_answers_with_the_worst_reply() {
        let mut bench = Bench::new(
            r#"{"type": "AllSyncRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#,
        );
        bench.ask("delete k", "");
        assert_eq!(bench.waiting().len(), 3);
        assert_eq!(bench.reply("b delete k", error(ErrorKind::Remote)), None);
        assert_eq!(bench.reply("a delete k", Reply::Deleted), None);
        assert_eq!(bench.reply("c delete k", error(TIMEOUT)), Some(error(ErrorKind::Remote)));
        bench.ask("delete k", "");
        bench.reply("a delete k", Reply::Deleted);
        bench.reply("b delete k", Reply::NotFound);
        assert_eq!(bench.reply("c delete k", Reply::Deleted), Some(Reply::NotFound));
        bench.done();
    }

    #[test]
    fn all_async_answers_at_once_and_ends_in_the_background() {
        let mut bench = Bench::new("\"AllAsyncRoute|Pool|two\"");
        for (line, data, answer) in [
            ("get k", "", Reply::Miss),
            ("set k 0 0 1", "x", Reply::NotStored),
            ("delete k", "", Reply::NotFound),
            ("incr k 1", "", Reply::NotFound),
            ("touch k 1", "", Reply::NotFound),
            ("mg k v O1", "", meta("EN")),
            ("ms k 1 O1 k", "x", meta("NS O1 kk")),
            ("md k O1", "", meta("NF O1")),
        ] {
            assert_eq!(bench.ask(line, data), Some(answer));
            for sent in bench.waiting().into_iter().map(str::to_owned).collect::<Vec<_>>() {
                assert_eq!(bench.reply(&sent, error(TIMEOUT)), None);
            }
            bench.done();
        }
    }

    #[test]
    fn all_initial_answers_with_the_first_childs_reply() {
        let mut bench = Bench::new("\"AllInitialRoute|Pool|two\"");
        bench.get();
        assert_eq!(bench.reply("b get k", value("b")), None);
        assert_eq!(bench.reply("a get k", error(TIMEOUT)), Some(error(TIMEOUT)));
        bench.done();
    }

    #[test]
    fn all_fastest_answers_with_the_first_reply_that_is_no_error() {
        let mut bench = Bench::new(
            r#"{"type": "AllFastestRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#,
        );
        bench.get();
        assert_eq!(bench.reply("b get k", error(TIMEOUT)), None);
        assert_eq!(bench.reply("c get k", Reply::Miss), Some(Reply::Miss));
        assert_eq!(bench.reply("a get k", value("late")), None);
        bench.get();
        bench.reply("a get k", error(TIMEOUT));
        bench.reply("b get k", error(TIMEOUT));
        assert_eq!(bench.reply("c get k", error(ErrorKind::Connect)), Some(error(ErrorKind::Connect)));
        bench.done();
    }

    #[test]
    fn all_majority_answers_when_more_than_half_agree() {
        let mut bench = Bench::new(
            r#"{"type": "AllMajorityRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#,
        );
        bench.get();
        bench.reply("a get k", Reply::Miss);
        assert_eq!(bench.reply("b get k", value("v")), None);
        assert_eq!(bench.reply("c get k", Reply::Miss), Some(Reply::Miss));
        bench.get();
        bench.reply("a get k", Reply::Miss);
        bench.reply("b get k", value("v"));
        assert_eq!(bench.reply("c get k", error(TIMEOUT)), Some(error(TIMEOUT))); // a tie: the worst
        bench.get();
        bench.reply("a get k", Reply::Miss);
        assert_eq!(bench.reply("b get k", Reply::Miss), Some(Reply::Miss)); // without waiting for the third
        bench.reply("c get k", value("late"));
        bench.done();
    }
}
