//! The node of `WarmUpRoute` (cold before warm) and `L1L2CacheRoute` (l1 before l2): a cache in front of
//! another that fills it.
//!
//! A plain `get` that misses the front is answered from the back, and what was found is added to the front
//! without the client's waiting for it. Other retrievals of `WarmUpRoute`, and all meta commands, whose replies
//! depend on the front's own cas unique or flags, wait for that and ask the front again.

use std::cell::Cell;

use bytes::Bytes;
use corecached_protocol::{Exptime, Reply, StoreVerb};

use crate::request::{Operation, OperationClass, OwnedRequest};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::NodeId;
use crate::route::outcome;
use crate::route::slab::SlotId;

/// The value of a mark, which says that the back has not got the key either.
const MARK: &[u8] = b"ncache";
/// The client flag of such a mark, as mcrouter's.
const MARK_FLAG: u32 = 0x1_0000;

/// The two, and how the one is filled.
#[derive(Debug)]
pub(in crate::route) struct Lookaside {
    pub front: NodeId,
    pub back: NodeId,
    /// The TTL of what is filled in.
    pub exptime: Exptime,
    /// Every retrieval by a classic command is answered by the back when the front misses, with the back's cas
    /// unique. Otherwise only `get` is.
    pub answers_from_back: bool,
    /// A front that fails counts as one that misses.
    pub back_on_error: bool,
    /// The TTL of marks in seconds; 0: they stay.
    pub mark_s: i64,
    /// The back is looked up again for one in this many retrievals that meet a mark; 0: none are made.
    pub mark_refresh: u32,
}

/// Retrievals of a shard that met a mark, modulo 2^32.
#[derive(Debug, Default)]
pub(in crate::route) struct MarksMet(Cell<u32>);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::route) enum LookasideStage {
    /// The front's reply to the request.
    Front,
    /// The back's reply: a value, or none.
    Back,
    /// The front's reply to what was added, before the request is sent to it again.
    Filled,
    /// The front's reply to the request once more: the answer.
    Again,
    /// The back's reply, with which the mark is replaced: this client has its answer already.
    Refresh,
}

impl RouteNode for Lookaside {
    type State = MarksMet;
    type Progress = LookasideStage;

    fn state(&self) -> MarksMet {
        MarksMet::default()
    }

    fn start(&self, _: &MarksMet, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let operation = request.operation();
        let looked_up = operation.class() == OperationClass::Get && operation != Operation::Metaget;
        // A key that only base64 can name cannot be stored by a classic command.
        if !looked_up || !request.is_plain() {
            return step.start(self.front, request, parent);
        }
        // A client of meta commands must not see a mark: look with `get` first.
        let hides_marks = self.mark_refresh > 0 && request.meta().is_some();
        let first = if hides_marks { request.get() } else { request.clone() };
        step.open_with(node, &request, parent, Self::waiting(LookasideStage::Front), [(self.front, first)]);
    }

    fn replied(
        &self,
        marks_met: &MarksMet,
        frame: &mut Frame,
        step: &mut Step,
        slot: SlotId,
        _: u32,
        reply: Reply,
    ) {
        let Some(stage) = Self::in_progress(&mut frame.progress) else { return };
        let is_classic = frame.request.meta().is_none();
        let plain = is_classic && (self.answers_from_back || frame.request.operation() == Operation::Get);
        let next = match *stage {
            LookasideStage::Front if is_mark(&reply) => {
                let met = marks_met.0.get().wrapping_add(1);
                marks_met.0.set(met);
                let answer = outcome::null(&frame.request);
                if self.mark_refresh == 0 || !met.is_multiple_of(self.mark_refresh) {
                    return frame.answer(step, answer);
                }
                *stage = LookasideStage::Refresh;
                frame.answer(step, answer);
                (self.back, frame.request.get())
            }
            LookasideStage::Front if outcome::is_hit(&reply) => {
                if is_classic || self.mark_refresh == 0 {
                    return frame.answer(step, reply);
                }
                *stage = LookasideStage::Again; // it was looked for with `get`
                (self.front, frame.request.clone())
            }
            LookasideStage::Front if outcome::error_kind(&reply).is_some() && !self.back_on_error => {
                return frame.answer(step, reply);
            }
            LookasideStage::Front => {
                *stage = LookasideStage::Back;
                (self.back, if plain { frame.request.clone() } else { frame.request.get() })
            }
            LookasideStage::Back => match self.fill(&frame.request, StoreVerb::Add, &reply) {
                Some(fill) if plain => {
                    step.start(self.front, fill, Parent::Nobody);
                    return frame.answer(step, reply);
                }
                Some(fill) => {
                    *stage = LookasideStage::Filled;
                    (self.front, fill)
                }
                None => {
                    if reply == Reply::Miss && self.mark_refresh > 0 {
                        step.start(self.front, self.mark(&frame.request, StoreVerb::Add), Parent::Nobody);
                    }
                    let answer = if reply == Reply::Miss { outcome::null(&frame.request) } else { reply };
                    return frame.answer(step, answer);
                }
            },
            LookasideStage::Filled => {
                *stage = LookasideStage::Again;
                (self.front, frame.request.clone())
            }
            LookasideStage::Again => return frame.answer(step, reply),
            LookasideStage::Refresh => {
                // A mark that is still right begins its time anew.
                let fill = self.fill(&frame.request, StoreVerb::Set, &reply);
                let fill = fill.unwrap_or_else(|| self.mark(&frame.request, StoreVerb::Set));
                return step.start(self.front, fill, Parent::Nobody);
            }
        };
        frame.start_child(step, slot, next.0, next.1, 0);
    }
}

impl Lookaside {
    fn fill(&self, request: &OwnedRequest, verb: StoreVerb, reply: &Reply) -> Option<OwnedRequest> {
        let Reply::Value { client_flags, value, .. } = reply else { return None };
        Some(request.store(verb, *client_flags, self.exptime, value.clone()))
    }

    fn mark(&self, request: &OwnedRequest, verb: StoreVerb) -> OwnedRequest {
        request.store(verb, MARK_FLAG, Exptime(self.mark_s), Bytes::from_static(MARK))
    }
}

fn is_mark(reply: &Reply) -> bool {
    matches!(reply, Reply::Value { client_flags, value, .. } if client_flags & MARK_FLAG != 0 && value == MARK)
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use crate::route::tests::{Bench, meta, value};

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

    #[test]
    fn every_classic_retrieval_that_misses_l1_is_answered_by_l2() {
        let route = r#"{"type": "L1L2CacheRoute", "l1": "PoolRoute|a", "l2": "PoolRoute|b", "upgradingL1Exptime": 9, "ncacheUpdatePeriod": 1}"#;
        for (asked, sent) in [("gets k", "gets k"), ("gat 7 k", "gat k 7"), ("gats 7 k", "gats k 7")] {
            let mut bench = Bench::new(route);
            let of_l2 = Reply::Value { client_flags: 3, cas_unique: Some(8), value: "v".into() };
            bench.ask(asked, "");
            assert_eq!(bench.reply(&format!("a {sent}"), Reply::Miss), None);
            assert_eq!(bench.reply(&format!("b {sent}"), of_l2.clone()), Some(of_l2));
            bench.reply("a add k 9 v", Reply::Stored);
            // A mark, which stays because no ncacheExptime was given.
            bench.ask(asked, "");
            bench.reply(&format!("a {sent}"), Reply::Miss);
            assert_eq!(bench.reply(&format!("b {sent}"), Reply::Miss), Some(Reply::Miss));
            bench.reply("a add k 0 ncache", Reply::Stored);
            let mark = Reply::Value { client_flags: 0x1_0000, cas_unique: Some(1), value: "ncache".into() };
            bench.ask(asked, "");
            assert_eq!(bench.reply(&format!("a {sent}"), mark), Some(Reply::Miss));
            // It is still right.
            bench.reply("b get k", Reply::Miss);
            bench.reply("a set k 0 ncache", Reply::Stored);
            bench.done();
        }
    }
}
