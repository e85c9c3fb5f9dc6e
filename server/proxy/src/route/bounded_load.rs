//! Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016): a key whose server has more under way
//! than so many times the average goes to the next place that its hash gives it.
//!
//! What is under way is what this core sees. A server that failed to be reached is none of those the average is over,
//! until it answers. A key has [`PLACES`] places; where none has room, it stays at its first.
//!
//! - `get` and `set` go where there is room. So a value may be in several places: a `get` may miss one that is stored, and
//!   after a `set` another place may keep the old value until it expires or is deleted.
//! - `delete` goes to all places of the key; the worst reply is the answer.
//! - What depends on what is there (`gets`, `cas`, `add`, `incr`, `append`, `touch` and the like) goes to the first place.

use std::cell::Cell;
use std::sync::Arc;

use corecached_protocol::{ErrorKind, Reply};

use super::super::hash::Ring;
use super::super::request::{Operation, OwnedRequest};
use super::frame::{Frame, Parent, State as FrameState, Step};
use super::outcome;
use super::replicated::is_plain_get;
use super::tree::{Node, NodeId, NodeState};

/// Where a key may be: the more, the more a delete costs.
pub(super) const PLACES: usize = 3;
/// Salts that are tried for further places.
const SALTS_MAX: u32 = 16;

/// See [`super::super::config::Handle::Pool`].
#[derive(Debug)]
pub(super) struct BoundedLoad {
    pub ring: Arc<Ring>,
    pub children: Box<[NodeId]>,
    /// The same with deletes that fail kept for later.
    pub keeping: Box<[NodeId]>,
    /// Of the average; more than 1.
    pub times: f64,
}

/// What a shard sees of the children.
#[derive(Debug)]
pub(super) struct State {
    loads: Box<[Load]>,
    total: Cell<u32>,
    unreachable: Cell<u32>,
}

#[derive(Debug, Default)]
struct Load {
    under_way: Cell<u32>,
    is_unreachable: Cell<bool>,
}

/// A request: to which child, and of deletes the worst reply.
#[derive(Debug)]
pub(super) enum Progress {
    One(u32),
    Deleting(Option<Reply>),
}

impl BoundedLoad {
    pub fn state(&self) -> State {
        State {
            loads: self.children.iter().map(|_| Load::default()).collect(),
            total: Cell::new(0),
            unreachable: Cell::new(0),
        }
    }

    /// The places of `key`, the first the one it has without bounds; how many there are.
    fn places(&self, key: &[u8]) -> ([u32; PLACES], usize) {
        let count = self.children.len() as u32;
        let own = self.ring.pick(key) as u32;
        let (mut places, mut len) = ([own; PLACES], 1);
        let salted = (1..=SALTS_MAX).map(|salt| self.ring.pick_resalted(key, salt) as u32);
        // What no salt hits, as under a `ConstShard`: those that follow.
        for place in salted.chain((1..count).map(|next| (own + next) % count)) {
            if len == PLACES {
                break;
            }
            if !places[..len].contains(&place) {
                places[len] = place;
                len += 1;
            }
        }
        (places, len)
    }

    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let routes = std::rc::Rc::clone(step.routes);
        let NodeState::BoundedLoad(state) = &routes.states[node as usize] else { return };
        if !step.frames.has_room(1) {
            return step.answer(parent, outcome::busy());
        }
        let own = self.ring.pick(request.key()) as u32;
        let child = match request.operation() {
            Operation::Delete => {
                let (places, len) = self.places(request.key());
                let sent = places[..len].iter().map(|&at| (self.keeping[at as usize], request.clone()));
                let progress = FrameState::BoundedLoad(Progress::Deleting(None));
                return step.open_with(node, &request, parent, progress, sent);
            }
            Operation::Get | Operation::Set
                if may_be_anywhere(&request) && !state.has_room(own, self.times) =>
            {
                let (places, len) = self.places(request.key());
                let free = places[1..len].iter().find(|&&place| state.has_room(place, self.times));
                free.copied().unwrap_or(own)
            }
            _ => own,
        };
        step.bounded_load_moved(child != own);
        state.begun(child);
        let sent = [(self.children[child as usize], request.clone())];
        step.open_with(node, &request, parent, FrameState::BoundedLoad(Progress::One(child)), sent);
    }
}

/// A value that is shown or stored, and nothing else: not a meta get that marks or makes an item.
fn may_be_anywhere(request: &OwnedRequest) -> bool {
    request.operation() == Operation::Set || is_plain_get(request)
}

impl State {
    /// Whether one more at `child` is within `times` of the average, that one counted.
    fn has_room(&self, child: u32, times: f64) -> bool {
        let live = (self.loads.len() as u32 - self.unreachable.get()).max(1);
        let most = (times * f64::from(self.total.get() + 1) / f64::from(live)).ceil();
        f64::from(self.loads[child as usize].under_way.get() + 1) <= most
    }

    fn begun(&self, child: u32) {
        let load = &self.loads[child as usize];
        load.under_way.set(load.under_way.get() + 1);
        self.total.set(self.total.get() + 1);
    }

    fn ended(&self, child: u32, reply: &Reply) {
        let load = &self.loads[child as usize];
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

pub(super) fn replied(frame: &mut Frame, step: &mut Step, reply: Reply) {
    let routes = std::rc::Rc::clone(&frame.routes);
    let node = frame.node as usize;
    let (Node::BoundedLoad(_), NodeState::BoundedLoad(state), FrameState::BoundedLoad(progress)) =
        (&routes.tree.nodes[node], &routes.states[node], &mut frame.state)
    else {
        return frame.answer(step, reply);
    };
    match progress {
        Progress::One(child) => {
            state.ended(*child, &reply);
            frame.answer(step, reply);
        }
        Progress::Deleting(worst) => {
            // That one place has not got it is no news, unless none has.
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

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use super::super::tests::{Bench, TIMEOUT, error, options, value};

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
        assert_eq!(hosts.len(), super::PLACES, "a delete would not reach others");
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
