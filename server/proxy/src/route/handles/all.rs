//! `AllSyncRoute`, `AllAsyncRoute`, `AllFastestRoute`, `AllInitialRoute`, `AllMajorityRoute`: a request goes
//! to all children.

use corecached_protocol::Reply;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, ErrorSet, HandleId, WrittenHandle};
use crate::request::OwnedRequest;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::NodeId;
use crate::route::outcome;
use crate::route::slab::SlotId;
use crate::route::worst::WorstReply;

/// `AllSyncRoute` and the like.
#[derive(Clone, Debug)]
pub(crate) struct AllRoute {
    children: Vec<Child>,
    wait: Wait,
}

/// Which reply is the answer of a handle that sends to all children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::route) enum Wait {
    /// The worst of all.
    Worst,
    /// None of them: the answer is as if nothing were found, at once.
    None,
    /// The first that is no error.
    Fastest,
    /// The first child's.
    Initial,
    /// One that more than half agree on.
    Majority,
}

impl Wait {
    const fn name(self) -> &'static str {
        match self {
            Self::Worst => "AllSyncRoute",
            Self::None => "AllAsyncRoute",
            Self::Fastest => "AllFastestRoute",
            Self::Initial => "AllInitialRoute",
            Self::Majority => "AllMajorityRoute",
        }
    }
}

const WAITS: [Wait; 5] = [Wait::Worst, Wait::None, Wait::Fastest, Wait::Initial, Wait::Majority];

impl RouteHandle for AllRoute {
    const NAMES: &'static [&'static str] =
        &[WAITS[0].name(), WAITS[1].name(), WAITS[2].name(), WAITS[3].name(), WAITS[4].name()];
    const SHORT_KEY: &'static str = "children";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let wait = WAITS.into_iter().find(|wait| wait.name() == name).unwrap_or(Wait::Worst);
        let route = Self { children: builder.children_at(json, name)?, wait };
        builder.push(route, json)
    }

    fn name(&self) -> &'static str {
        self.wait.name()
    }

    fn children(&self) -> Vec<Child> {
        self.children.clone()
    }

    fn show(&self, config: &Config) -> Value {
        json!({"children": config.children_json(&self.children)})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let children = compiler.children(&self.children);
        Ok(compiler.push(All { children, wait: self.wait }))
    }
}

/// Results that [`outcome::result`] tells apart, at most.
const RESULTS_MAX: usize = 32;

const _: () = assert!(RESULTS_MAX > 16 + corecached_protocol::ErrorKind::Client as usize); // see `outcome::result`

/// A request to every child.
#[derive(Debug)]
pub(in crate::route) struct All {
    pub children: Box<[NodeId]>,
    pub wait: Wait,
}

/// What is waited for. A request that waits for the worst reply has a [`WorstReply`] instead.
#[derive(Debug)]
pub(in crate::route) enum AllProgress {
    /// The first reply that is no error, else the last one.
    Fastest,
    /// More than half of the replies with the same result; else the most frequent one, of equally frequent
    /// ones the worst.
    Majority(Votes),
}

/// The replies so far: how many of each result, and the first reply with it.
#[derive(Debug)]
pub(in crate::route) struct Votes {
    children: u32,
    counts: [u32; RESULTS_MAX],
    replies: Vec<Reply>,
}

impl RouteNode for All {
    type State = ();
    type Progress = AllProgress;

    fn state(&self) {
        debug_assert!(!self.children.is_empty());
    }

    fn start(&self, (): &(), step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let progress = match self.wait {
            Wait::Worst => WorstReply::default().into(),
            Wait::Fastest => Self::waiting(AllProgress::Fastest),
            Wait::Majority => Self::waiting(AllProgress::Majority(Votes {
                children: self.children.len() as u32,
                counts: [0; RESULTS_MAX],
                replies: Vec::new(),
            })),
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
        let sent = self.children.iter().map(|&child| (child, request.clone()));
        step.open_with(node, &request, parent, progress, sent);
    }

    fn replied(&self, (): &(), frame: &mut Frame, step: &mut Step, _: SlotId, _: u32, reply: Reply) {
        match Self::in_progress(&mut frame.progress) {
            Some(AllProgress::Majority(votes)) => {
                if let Some(answer) = votes.take_in(reply, frame.waiting) {
                    frame.answer(step, answer);
                }
            }
            Some(AllProgress::Fastest) | None => {
                let failed = outcome::error_kind(&reply).is_some_and(|kind| ErrorSet::DEFAULT.has(kind));
                if !failed || frame.waiting == 0 {
                    frame.answer(step, reply);
                }
            }
        }
    }
}

impl Votes {
    /// Counts `reply`, after which `waiting` more are to come: the answer, if it is decided.
    fn take_in(&mut self, reply: Reply, waiting: u32) -> Option<Reply> {
        let result = usize::from(outcome::result(&reply));
        self.counts[result] += 1;
        debug_assert!(self.counts.iter().sum::<u32>() + waiting == self.children, "every child replies once");
        if self.counts[result] == 1 {
            self.replies.push(reply.clone());
        }
        if self.counts[result] > self.children / 2 {
            return Some(reply);
        }
        if waiting > 0 {
            return None;
        }
        let weight = |reply: &Reply| (self.counts[usize::from(outcome::result(reply))], outcome::rank(reply));
        self.replies.iter().max_by_key(|reply| weight(reply)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use crate::route::tests::{Bench, TIMEOUT, error, meta, value};

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
