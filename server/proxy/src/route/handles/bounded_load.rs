//! Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016): a key whose server has more
//! under way than so many times the average goes to the next server that its hash gives it.
//!
//! What is under way is what this core sees. A server that could not be reached does not count in the average
//! until it answers. A key has [`CANDIDATES`] candidate servers; when none has room, it stays at the first.
//!
//! - `get` and `set` go where there is room. So a value may be in several candidates: a `get` may miss one
//!   that is stored, and after a `set` another candidate may keep the old value until it expires or is
//!   deleted.
//! - `delete` goes to all candidates of the key; the worst reply is the answer.
//! - What depends on what is there (`gets`, `cas`, `add`, `incr`, `append`, `touch` and the like) goes to the
//!   first candidate.

use std::cell::Cell;
use std::sync::Arc;

use corecached_protocol::{ErrorKind, Reply};

use super::spool::Spool;
use crate::config::{Builder, Checked, Json};
use crate::hash::Ring;
use crate::request::{Operation, OwnedRequest};
use crate::route::compile::Compiler;
use crate::route::frame::{Frame, Parent, Step};
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::{Next, NodeId, RingBelow};
use crate::route::outcome;
use crate::route::slab::SlotId;

/// Reads `bounded_load` of a pool's handle, which is of type `kind`.
pub(super) fn parse(builder: &Builder, json: &Json, kind: &str, replicas: u32) -> Checked<Option<f64>> {
    let Some(written) = json.get("bounded_load") else { return Ok(None) };
    if kind == "SaltedFailoverRoute" {
        let remedy = "stands in a PoolRoute: a failover may stand around it";
        return Err(builder.wrong(written, "SaltedFailoverRoute.bounded_load", remedy));
    }
    if replicas > 1 {
        let remedy = "is not to be had with replicas, whose copies gets may choose from: give one of the two";
        return Err(builder.wrong(written, "bounded_load", remedy));
    }
    builder.number(written, "bounded_load", 1.05, 100.0).map(Some)
}

/// Adds the node of a pool with these servers; `spool_deletes` is whether deletes that fail are kept for
/// later.
pub(super) fn push(
    compiler: &mut Compiler,
    ring: Arc<Ring>,
    children: &[NodeId],
    times: f64,
    spool_deletes: bool,
) -> NodeId {
    let keep = |&node: &NodeId| if spool_deletes { compiler.push(Spool { target: node }) } else { node };
    let keeping = children.iter().map(keep).collect();
    compiler.push(BoundedLoad { ring, children: children.into(), keeping, times })
}

/// Servers that may have a key. A delete is sent to all of them.
const CANDIDATES: usize = 3;
/// Salts that are tried for the second and further candidates.
const SALTS_MAX: u32 = 16;

/// A pool in which a destination gets no more than so many times the average of what is under way.
#[derive(Debug)]
pub(in crate::route) struct BoundedLoad {
    pub ring: Arc<Ring>,
    pub children: Box<[NodeId]>,
    /// The nodes for deletes: those that fail are kept for later.
    pub keeping: Box<[NodeId]>,
    /// The most that a child may have under way, as a multiple of the average; more than 1.
    pub times: f64,
}

/// What a shard has under way at the children.
#[derive(Debug)]
pub(in crate::route) struct BoundedLoads {
    by_child: Box<[ChildLoad]>,
    total: Cell<u32>,
    unreachable: Cell<u32>,
}

#[derive(Debug, Default)]
struct ChildLoad {
    under_way: Cell<u32>,
    is_unreachable: Cell<bool>,
}

/// What a request waits for.
#[derive(Debug)]
pub(in crate::route) enum BoundedProgress {
    /// The reply of this child.
    One(u32),
    /// Those of a delete, of which this is the worst so far.
    Deleting(Option<Reply>),
}

impl BoundedLoad {
    /// The candidates of `key`, and how many there are. The first is the server that the key has without
    /// bounds.
    fn candidates(&self, key: &[u8]) -> ([u32; CANDIDATES], usize) {
        let count = self.children.len() as u32;
        let own = self.ring.pick(key) as u32;
        let (mut candidates, mut len) = ([own; CANDIDATES], 1);
        let salted = (1..=SALTS_MAX).map(|salt| self.ring.pick_resalted(key, salt) as u32);
        // What no salt hits, as under a `ConstShard`: those that follow.
        for candidate in salted.chain((1..count).map(|next| (own + next) % count)) {
            if len == CANDIDATES {
                break;
            }
            if !candidates[..len].contains(&candidate) {
                candidates[len] = candidate;
                len += 1;
            }
        }
        (candidates, len)
    }
}

impl RouteNode for BoundedLoad {
    type State = BoundedLoads;
    type Progress = BoundedProgress;

    fn state(&self) -> BoundedLoads {
        debug_assert!(self.children.len() > 1 && self.children.len() == self.keeping.len());
        BoundedLoads {
            by_child: self.children.iter().map(|_| ChildLoad::default()).collect(),
            total: Cell::new(0),
            unreachable: Cell::new(0),
        }
    }

    fn start(
        &self,
        loads: &BoundedLoads,
        step: &mut Step,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
    ) {
        if !step.frames.has_room(1) {
            return step.answer(parent, outcome::busy());
        }
        let own = self.ring.pick(request.key()) as u32;
        let child = match request.operation() {
            Operation::Delete => {
                let (candidates, len) = self.candidates(request.key());
                let sent = candidates[..len].iter().map(|&at| (self.keeping[at as usize], request.clone()));
                let progress = Self::waiting(BoundedProgress::Deleting(None));
                return step.open_with(node, &request, parent, progress, sent);
            }
            Operation::Get | Operation::Set
                if may_be_anywhere(&request) && !loads.has_room(own, self.times) =>
            {
                let (candidates, len) = self.candidates(request.key());
                let free =
                    candidates[1..len].iter().find(|&&candidate| loads.has_room(candidate, self.times));
                free.copied().unwrap_or(own)
            }
            _ => own,
        };
        step.tails.bounded_load_moved += u64::from(child != own);
        loads.begun(child);
        let sent = [(self.children[child as usize], request.clone())];
        step.open_with(node, &request, parent, Self::waiting(BoundedProgress::One(child)), sent);
    }

    fn replied(
        &self,
        loads: &BoundedLoads,
        frame: &mut Frame,
        step: &mut Step,
        _: SlotId,
        _: u32,
        reply: Reply,
    ) {
        let Some(progress) = Self::in_progress(&mut frame.progress) else { return };
        match progress {
            BoundedProgress::One(child) => {
                loads.ended(*child, &reply);
                frame.answer(step, reply);
            }
            BoundedProgress::Deleting(worst) => {
                // That one candidate has not got the key says little, unless none has it.
                let errs = |reply: &Reply| outcome::error_kind(reply).is_some();
                let rank = |reply: &Reply| (errs(reply), outcome::rank(reply));
                let replaces = worst.as_ref().is_none_or(|worst| match (errs(&reply), errs(worst)) {
                    (false, false) => rank(&reply) < rank(worst),
                    _ => rank(&reply) > rank(worst),
                });
                if replaces {
                    *worst = Some(reply);
                }
                if frame.waiting == 0
                    && let Some(answer) = worst.take()
                {
                    frame.answer(step, answer);
                }
            }
        }
    }

    fn usual(&self, key: &[u8], _: Operation) -> Next {
        Next::Node(self.children[self.ring.pick(key)])
    }

    fn ring_below(&self) -> RingBelow {
        RingBelow::Ring(Arc::clone(&self.ring))
    }
}

/// Whether a request shows or stores a value and does nothing else: not a meta get that marks or makes an
/// item.
fn may_be_anywhere(request: &OwnedRequest) -> bool {
    request.operation() == Operation::Set || outcome::only_shows(request)
}

impl BoundedLoads {
    /// Whether one more at `child` is within `times` of the average, that one counted.
    fn has_room(&self, child: u32, times: f64) -> bool {
        let live = (self.by_child.len() as u32 - self.unreachable.get()).max(1);
        let most = (times * f64::from(self.total.get() + 1) / f64::from(live)).ceil();
        f64::from(self.by_child[child as usize].under_way.get() + 1) <= most
    }

    fn begun(&self, child: u32) {
        let load = &self.by_child[child as usize];
        load.under_way.set(load.under_way.get() + 1);
        self.total.set(self.total.get() + 1);
    }

    fn ended(&self, child: u32, reply: &Reply) {
        let load = &self.by_child[child as usize];
        debug_assert!(load.under_way.get() > 0 && self.total.get() > 0);
        load.under_way.set(load.under_way.get() - 1);
        self.total.set(self.total.get() - 1);
        let unreachable = matches!(
            outcome::error_kind(reply),
            Some(ErrorKind::Ejected | ErrorKind::Connect | ErrorKind::ConnectTimeout)
        );
        match (load.is_unreachable.replace(unreachable), unreachable) {
            (false, true) => self.unreachable.set(self.unreachable.get() + 1),
            (true, false) => self.unreachable.set(self.unreachable.get() - 1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use crate::route::tests::{Bench, TIMEOUT, error, options, value};

    const POOL: &str = r#"{"pools": {"p": {"servers": ["a:1", "b:1", "c:1", "d:1"]}},
        "route": {"type": "PoolRoute", "pool": "p", "bounded_load": 1.25}}"#;

    fn bench() -> Bench {
        Bench::with(POOL, &options())
    }

    /// The host that `line` goes to when nothing else is under way, which is its first.
    fn home(key: &str) -> String {
        let mut bench = bench();
        bench.ask(&format!("get {key}"), "");
        bench.waiting()[0][..1].to_owned()
    }

    #[test]
    fn no_server_has_more_under_way_than_so_many_times_the_average() {
        for text in [POOL.to_owned(), POOL.replace("1.25", "1.25, \"hash\": \"Ketama\"")] {
            let mut bench = Bench::with(&text, &options());
            for key in 0..400 {
                bench.ask(&format!("get k{key}"), "");
            }
            for host in ["a", "b", "c", "d"] {
                let under_way = bench.waiting().iter().filter(|sent| sent.starts_with(host)).count();
                assert!(under_way <= 126, "{host} {under_way}");
            }
        }
    }

    #[test]
    fn one_hot_key_goes_to_its_places_and_back_home_when_there_is_room() {
        let mut bench = bench();
        let home = home("hot");
        for _ in 0..60 {
            bench.ask("get hot", "");
        }
        let sent: Vec<String> = bench.waiting().iter().map(|sent| (*sent).to_owned()).collect();
        let hosts: std::collections::HashSet<_> = sent.iter().map(|sent| sent[..1].to_owned()).collect();
        assert_eq!(hosts.len(), super::CANDIDATES, "a delete would not reach others");
        assert!(bench.execution.tail_counters().bounded_load_moved > 0);
        for sent in sent {
            assert_eq!(bench.reply(&sent, value("v")), Some(value("v")));
        }
        bench.ask("get hot", "");
        assert_eq!(bench.reply(&format!("{home} get hot"), Reply::Miss), Some(Reply::Miss));
        bench.done();
    }

    #[test]
    fn a_delete_goes_to_every_place_and_an_error_of_one_is_told() {
        for (replies, answer) in [
            ([Reply::NotFound, Reply::Deleted, Reply::NotFound], Reply::Deleted),
            ([Reply::NotFound, Reply::NotFound, Reply::NotFound], Reply::NotFound),
            ([Reply::Deleted, error(TIMEOUT), Reply::NotFound], error(TIMEOUT)),
        ] {
            let mut bench = bench();
            bench.ask("delete k", "");
            let sent: Vec<String> = bench.waiting().iter().map(|sent| (*sent).to_owned()).collect();
            assert_eq!(sent.len(), 3);
            let mut last = None;
            for (sent, reply) in sent.iter().zip(replies) {
                last = bench.reply(sent, reply);
            }
            assert_eq!(last, Some(answer));
            bench.done();
        }
    }

    #[test]
    fn what_depends_on_what_is_there_stays_at_home() {
        let mut bench = bench();
        let home = home("hot");
        for _ in 0..60 {
            bench.ask("get hot", "");
        }
        let before = bench.waiting().len();
        for line in ["gets hot", "incr hot 1", "touch hot 5", "mg hot v N30", "mg hot v R30"] {
            bench.ask(line, "");
        }
        bench.ask("add hot 0 0 1", "v");
        assert!(bench.waiting()[before..].iter().all(|sent| sent.starts_with(&home)));
    }

    #[test]
    fn a_server_that_is_gone_does_not_lower_what_others_may_have() {
        let mut bench = bench();
        let mut gone = 0;
        for key in 0..2000 {
            bench.ask(&format!("get k{key}"), "");
            let sent = bench.waiting().last().map(|&sent| sent.to_owned()).unwrap();
            if sent.starts_with('a') {
                gone += 1;
                bench.reply(&sent, error(ErrorKind::Ejected));
            }
        }
        // About a quarter of the keys, whose own it is, hear so; others' overflow may join them.
        assert!((300..900).contains(&gone), "{gone}");
        for host in ["b", "c", "d"] {
            let under_way = bench.waiting().iter().filter(|sent| sent.starts_with(host)).count();
            assert!(under_way > 300, "{host} {under_way}");
        }
    }
}
