//! A cache in front of another that fills it: WarmUpRoute (cold before warm) and L1L2CacheRoute (l1 before l2).
//!
//! A plain `get` that misses the front is answered from the back, and what was found is added to the front behind the
//! client's back. Other retrievals, whose replies depend on the front's own cas unique or flags, wait for that and ask
//! the front again.

use bytes::Bytes;
use corecached_protocol::{Exptime, Reply, StoreVerb};

use super::super::request::{Operation, OperationClass, OwnedRequest};
use super::frame::{Frame, Parent, State, Step};
use super::outcome;
use super::slab::Place;
use super::tree::{Node, NodeId, NodeState};

/// The value of a mark that the back has not got the key either.
const MARK: &[u8] = b"ncache";
/// The client flag of such a mark, as mcrouter's.
pub(super) const MARK_FLAG: u32 = 0x1_0000;

/// The two, and how the one is filled.
#[derive(Debug)]
pub(super) struct Lookaside {
    pub front: NodeId,
    pub back: NodeId,
    /// Of what is filled in.
    pub exptime: Exptime,
    /// Retrievals other than `get` go to the front alone.
    pub get_only: bool,
    /// A front that fails counts as one that misses.
    pub back_on_error: bool,
    /// Life of marks in seconds; 0: none are made.
    pub mark_s: i64,
    /// Every how many marks met the back is asked again; 0: never.
    pub mark_refresh: u32,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The front's reply to it.
    Front,
    /// The back's: a value, or none.
    Back,
    /// The front's to what was added, before it is asked again.
    Filled,
    /// The front's to the same request as at first: the answer.
    Again,
    /// The back's, for the next who asks: this client was told already.
    Refresh,
}

impl Lookaside {
    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let operation = request.operation();
        let looked_up = match operation.class() {
            OperationClass::Get if operation == Operation::Metaget => false,
            OperationClass::Get => !self.get_only || operation == Operation::Get,
            _ => false,
        };
        // A key that only base64 can name cannot be stored by a classic command.
        if !looked_up || !request.is_plain() {
            return step.start(self.front, request, parent);
        }
        // A client of meta commands must not see a mark: look with `get` first.
        let first = if self.mark_s > 0 { request.get() } else { request.clone() };
        step.open_with(node, &request, parent, State::Lookaside(Stage::Front), [(self.front, first)]);
    }

    fn fill(&self, request: &OwnedRequest, verb: StoreVerb, reply: &Reply) -> Option<OwnedRequest> {
        let Reply::Value { client_flags, value, .. } = reply else { return None };
        Some(request.store(verb, *client_flags, self.exptime, value.clone()))
    }
}

fn is_mark(reply: &Reply) -> bool {
    matches!(reply, Reply::Value { client_flags, value, .. } if client_flags & MARK_FLAG != 0 && value == MARK)
}

pub(super) fn replied(frame: &mut Frame, step: &mut Step, place: Place, reply: Reply) {
    let routes = std::rc::Rc::clone(&frame.routes);
    let node = frame.node as usize;
    let (Node::Lookaside(lookaside), State::Lookaside(stage)) = (&routes.tree.nodes[node], &mut frame.state)
    else {
        return frame.answer(step, reply);
    };
    let plain = frame.request.operation() == Operation::Get && frame.request.meta().is_none();
    let next = match *stage {
        Stage::Front if lookaside.mark_s > 0 && is_mark(&reply) => {
            let NodeState::Lookaside { marks_met } = &routes.states[node] else { return };
            let met = marks_met.get().wrapping_add(1);
            marks_met.set(met);
            let answer = outcome::null(&frame.request);
            if lookaside.mark_refresh == 0 || !met.is_multiple_of(lookaside.mark_refresh) {
                return frame.answer(step, answer);
            }
            *stage = Stage::Refresh;
            frame.answer(step, answer);
            (lookaside.back, frame.request.get())
        }
        Stage::Front if outcome::is_hit(&reply) => {
            if plain || lookaside.mark_s == 0 {
                return frame.answer(step, reply);
            }
            *stage = Stage::Again; // it was looked for with `get`
            (lookaside.front, frame.request.clone())
        }
        Stage::Front if outcome::error_kind(&reply).is_some() && !lookaside.back_on_error => {
            return frame.answer(step, reply);
        }
        Stage::Front => {
            *stage = Stage::Back;
            (lookaside.back, frame.request.get())
        }
        Stage::Back => match lookaside.fill(&frame.request, StoreVerb::Add, &reply) {
            Some(fill) if plain => {
                step.start(lookaside.front, fill, Parent::Nobody);
                return frame.answer(step, reply);
            }
            Some(fill) => {
                *stage = Stage::Filled;
                (lookaside.front, fill)
            }
            None => {
                if reply == Reply::Miss && lookaside.mark_s > 0 {
                    let mark = Bytes::from_static(MARK);
                    let mark =
                        frame.request.store(StoreVerb::Add, MARK_FLAG, Exptime(lookaside.mark_s), mark);
                    step.start(lookaside.front, mark, Parent::Nobody);
                }
                let answer = if reply == Reply::Miss { outcome::null(&frame.request) } else { reply };
                return frame.answer(step, answer);
            }
        },
        Stage::Filled => {
            *stage = Stage::Again;
            (lookaside.front, frame.request.clone())
        }
        Stage::Again => return frame.answer(step, reply),
        Stage::Refresh => {
            if let Some(fill) = lookaside.fill(&frame.request, StoreVerb::Set, &reply) {
                step.start(lookaside.front, fill, Parent::Nobody);
            }
            return;
        }
    };
    frame.start_child(step, place, next.0, next.1, 0);
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use super::super::tests::{Bench, meta, value};

    const WARM_UP: &str =
        r#"{"type": "WarmUpRoute", "cold": "PoolRoute|a", "warm": "PoolRoute|b", "exptime": 9}"#;

    #[test]
    fn warm_up_fills_the_cold_cache_from_the_warm_one() {
        let mut bench = Bench::new(WARM_UP);
        bench.get();
        assert_eq!(bench.reply("a get k", value("cold")), Some(value("cold")));
        bench.get();
        assert_eq!(bench.reply("a get k", Reply::Miss), None);
        assert_eq!(bench.reply("b get k", value("warm")), Some(value("warm")));
        assert_eq!(bench.reply("a add k 9 warm", Reply::Stored), None); // behind the client's back
        bench.get();
        bench.reply("a get k", Reply::Miss);
        assert_eq!(bench.reply("b get k", Reply::Miss), Some(Reply::Miss));
        bench.ask("set k 0 0 1", "x");
        bench.reply("a set k 0 x", Reply::Stored);
        bench.ask("delete k", "");
        bench.reply("a delete k", Reply::Deleted);
        bench.done();
    }

    #[test]
    fn warm_up_asks_the_cold_cache_again_where_its_own_numbers_matter() {
        for (line, first) in
            [("gets k", "a gets k"), ("gat 7 k", "a gat k 7"), ("mg k v c", "a meta-gets k v c")]
        {
            let mut bench = Bench::new(WARM_UP);
            bench.ask(line, "");
            let miss = if line.starts_with("mg") { meta("EN") } else { Reply::Miss };
            assert_eq!(bench.reply(first, miss), None);
            assert_eq!(bench.reply("b get k", value("warm")), None);
            assert_eq!(bench.reply("a add k 9 warm", Reply::Stored), None);
            assert_eq!(bench.reply(first, value("again")), Some(value("again")));
            bench.done();
        }
    }

    #[test]
    fn l1_is_filled_from_l2_and_marks_what_neither_has() {
        let route = r#"{"type": "L1L2CacheRoute", "l1": "PoolRoute|a", "l2": "PoolRoute|b", "upgradingL1Exptime": 9, "ncacheExptime": 4, "ncacheUpdatePeriod": 2}"#;
        let mut bench = Bench::new(route);
        bench.get();
        bench.reply("a get k", Reply::Miss);
        assert_eq!(bench.reply("b get k", value("v")), Some(value("v")));
        bench.reply("a add k 9 v", Reply::Stored);
        bench.get();
        bench.reply("a get k", Reply::Miss);
        assert_eq!(bench.reply("b get k", Reply::Miss), Some(Reply::Miss));
        bench.reply("a add k 4 ncache", Reply::Stored);
        let mark = Reply::Value { client_flags: 0x1_0000, cas_unique: None, value: "ncache".into() };
        bench.get();
        assert_eq!(bench.reply("a get k", mark.clone()), Some(Reply::Miss));
        bench.get();
        assert_eq!(bench.reply("a get k", mark), Some(Reply::Miss));
        bench.reply("b get k", value("new")); // every second mark is looked behind
        bench.reply("a set k 9 new", Reply::Stored);
        bench.ask("set k 0 0 1", "x");
        bench.reply("a set k 0 x", Reply::Stored);
        bench.ask("mg k v", "");
        bench.reply("a get k", value("v"));
        assert_eq!(bench.reply("a meta-get k v", meta("VA 1")), Some(meta("VA 1")));
        bench.done();
    }
}
