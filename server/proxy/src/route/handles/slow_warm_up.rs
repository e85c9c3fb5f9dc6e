//! `slow_warmup` of a pool: a server that finds little, as one that came back empty, gets few of the
//! retrievals, and more as it fills. The others go to another handle meanwhile; what is stored always goes to
//! the server.

use std::cell::Cell;

use corecached_protocol::Reply;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Config, HandleId, Json, JsonNode};
use crate::request::{Operation, OperationClass, OwnedRequest};
use crate::route::compile::Compiler;
use crate::route::frame::{Frame, Parent, Step};
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::{Next, NodeId};
use crate::route::outcome;
use crate::route::slab::SlotId;
use crate::route::tree::Tree;

/// `slow_warmup` of a pool, as parsed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowWarmUpPart {
    /// Gets the retrievals that a warming server does not get.
    pub failover: HandleId,
    settings: WarmUpSettings,
}

/// When a server is spared, and how much it gets then.
#[derive(Clone, Copy, Debug)]
pub(in crate::route) struct WarmUpSettings {
    /// A hit rate below this one begins it.
    enable_threshold: f64,
    /// One above this ends it.
    disable_threshold: f64,
    /// The share of its retrievals that it gets with no hits.
    start: f64,
    /// That share grows by this times the hit rate.
    step: f64,
    /// Retrievals that are needed to speak of a rate.
    min_requests: u32,
}

impl SlowWarmUpPart {
    /// Reads `slow_warmup` of a pool's handle.
    pub(super) fn parse(builder: &mut Builder, json: &Json) -> Checked<Option<Self>> {
        let Some(written) = json.get("slow_warmup") else { return Ok(None) };
        builder.object(written, "slow_warmup")?;
        let none = Json { position: written.position, node: JsonNode::Object(Vec::new()) };
        let settings = written.get("settings").unwrap_or(&none);
        builder.object(settings, "slow_warmup.settings")?;
        let settings = WarmUpSettings {
            enable_threshold: builder.number_at(settings, "enable_threshold", 0.7, 0.0, 1.0)?,
            disable_threshold: builder.number_at(settings, "disable_threshold", 0.9, 0.0, 1.0)?,
            start: builder.number_at(settings, "start", 0.1, 0.0, 1.0)?,
            step: builder.number_at(settings, "step", 1.0, 0.0, 1e6)?,
            min_requests: builder.int_at(settings, "min_requests", 1, 1 << 24)?.unwrap_or(100) as u32,
        };
        if settings.disable_threshold <= settings.enable_threshold {
            let remedy = "must be more than enable_threshold: between them nothing changes";
            let value = settings.disable_threshold.to_string();
            return Err(builder.fault(written, "slow_warmup.settings.disable_threshold", &value, remedy));
        }
        if settings.start <= 0.0 {
            let remedy = "must be more than 0: a server that gets nothing never fills";
            return Err(builder.fault(written, "slow_warmup.settings.start", "0", remedy));
        }
        let failover = builder.handle_at(written, "slow_warmup", "failoverTarget")?;
        Ok(Some(Self { failover, settings }))
    }

    /// As JSON, for `check-config`.
    pub(super) fn show(&self, config: &Config) -> Value {
        let settings = &self.settings;
        json!({
            "failoverTarget": config.child_json(self.failover),
            "settings": {
                "enable_threshold": settings.enable_threshold,
                "disable_threshold": settings.disable_threshold,
                "start": settings.start,
                "step": settings.step,
                "min_requests": settings.min_requests,
            },
        })
    }

    /// Puts a node in front of each of the servers.
    pub(super) fn put_in_front(&self, compiler: &mut Compiler, servers: &mut [NodeId]) {
        let failover = compiler.node(self.failover);
        for target in servers {
            *target = compiler.push(SlowWarmUp { target: *target, failover, settings: self.settings });
        }
    }
}

/// The hit rate is that of the last retrievals, of up to twice this times `min_requests` of them: then the
/// counts are halved.
const LOOKS_BACK: u32 = 5;

/// In front of one server of a pool.
#[derive(Debug)]
pub(in crate::route) struct SlowWarmUp {
    pub target: NodeId,
    pub failover: NodeId,
    pub settings: WarmUpSettings,
}

/// What a shard has seen of one server.
#[derive(Debug, Default)]
pub(in crate::route) struct ServerWarmth {
    /// How many of `asked` were found.
    hits: Cell<u32>,
    /// Retrievals that were answered.
    asked: Cell<u32>,
    warming: Cell<bool>,
}

/// A retrieval whose hit or miss is counted.
#[derive(Debug)]
pub(in crate::route) struct CountedGet;

impl ServerWarmth {
    fn hit_rate(&self) -> f64 {
        f64::from(self.hits.get()) / f64::from(self.asked.get().max(1))
    }

    fn count(&self, hit: bool, settings: &WarmUpSettings) {
        self.asked.set(self.asked.get() + 1);
        self.hits.set(self.hits.get() + u32::from(hit));
        debug_assert!(self.hits.get() <= self.asked.get());
        if self.asked.get() < settings.min_requests {
            return;
        }
        let rate = self.hit_rate();
        if rate < settings.enable_threshold {
            self.warming.set(true);
        } else if rate > settings.disable_threshold {
            self.warming.set(false);
        }
        if self.asked.get() >= settings.min_requests.saturating_mul(2 * LOOKS_BACK) {
            self.asked.set(self.asked.get() / 2);
            self.hits.set(self.hits.get() / 2);
        }
    }
}

impl RouteNode for SlowWarmUp {
    type State = ServerWarmth;
    type Progress = CountedGet;

    fn state(&self) -> ServerWarmth {
        ServerWarmth::default()
    }

    fn start(
        &self,
        warmth: &ServerWarmth,
        step: &mut Step,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
    ) {
        let operation = request.operation();
        if operation.class() != OperationClass::Get || operation == Operation::Metaget {
            return step.start(self.target, request, parent);
        }
        if warmth.warming.get() && may_be_elsewhere(&request) {
            let share = self.settings.start + self.settings.step * warmth.hit_rate();
            if step.random.f64() >= share {
                return step.start(self.failover, request, parent);
            }
        }
        let sent = [(self.target, request.clone())];
        step.open_with(node, &request, parent, Self::waiting(CountedGet), sent);
    }

    fn replied(
        &self,
        warmth: &ServerWarmth,
        frame: &mut Frame,
        step: &mut Step,
        _: SlotId,
        _: u32,
        reply: Reply,
    ) {
        if outcome::error_kind(&reply).is_none() {
            warmth.count(outcome::is_hit(&reply), &self.settings);
        }
        frame.answer(step, reply);
    }

    #[inline]
    fn direct(&self, _: &Tree, _: &[u8], operation: Operation) -> Next {
        if operation.class() == OperationClass::Get { Next::Undecided } else { Next::Node(self.target) }
    }

    fn usual(&self, _: &[u8], _: Operation) -> Next {
        Next::Node(self.target)
    }

    fn late_delete(&self, _: &[u8], _: u64) -> Next {
        Next::Node(self.target)
    }
}

/// A cas unique of another server would mean nothing to this one, and what touches or fills in has to happen
/// here.
fn may_be_elsewhere(request: &OwnedRequest) -> bool {
    request.operation() == Operation::Get
        && request.meta().is_none_or(|(_, flags)| !flags.has(b'N') && !flags.has(b'R') && !flags.has(b'E'))
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use crate::route::tests::{Bench, TIMEOUT, error, value};

    fn bench() -> Bench {
        Bench::new(
            r#"{"type": "PoolRoute", "pool": "a", "slow_warmup": {"failoverTarget": "PoolRoute|b",
                "settings": {"enable_threshold": 0.5, "disable_threshold": 0.8, "start": 0.1, "step": 1, "min_requests": 20}}}"#,
        )
    }

    /// Of so many gets, those that came to the server itself; it finds them or not.
    fn asked(bench: &mut Bench, gets: usize, found: impl Fn(usize) -> bool) -> usize {
        let mut asked = 0;
        for _ in 0..gets {
            bench.get();
            let sent = bench.waiting()[0].to_owned();
            let own = sent.starts_with('a');
            let reply = if !own || found(asked) { value("v") } else { Reply::Miss };
            asked += usize::from(own);
            assert_eq!(bench.reply(&sent, reply.clone()), Some(reply));
        }
        asked
    }

    #[test]
    fn a_server_that_finds_nothing_gets_few_gets_until_it_finds_most() {
        let mut bench = bench();
        assert_eq!(asked(&mut bench, 20, |_| false), 20); // too few to judge by
        let few = asked(&mut bench, 1000, |_| false);
        assert!((60..160).contains(&few), "{few}");
        let more = asked(&mut bench, 200, |_| true);
        assert!(more > 30, "{more}");
        asked(&mut bench, 2000, |_| true);
        assert_eq!(asked(&mut bench, 100, |_| true), 100, "warm again");
        bench.done();
    }

    #[test]
    fn half_the_hits_bring_more_gets_than_none() {
        let mut bench = bench();
        asked(&mut bench, 100, |_| false);
        let some = asked(&mut bench, 2000, |at| at % 5 < 2);
        assert!((600..1400).contains(&some), "{some}"); // 0.1 + 0.4 of them
        bench.done();
    }

    #[test]
    fn what_must_happen_at_the_server_goes_there_and_errors_say_nothing() {
        let mut bench = bench();
        asked(&mut bench, 20, |_| false);
        for (line, data, sent) in [
            ("set k 0 0 1", "x", "a set k 0 x"),
            ("delete k", "", "a delete k"),
            ("gets k", "", "a gets k"),
            ("gat 5 k", "", "a gat k 5"),
            ("incr k 1", "", "a incr k"),
            ("mg k v N5", "", "a meta-get k v N5"),
        ] {
            for _ in 0..20 {
                bench.ask(line, data);
                bench.reply(sent, error(TIMEOUT));
            }
        }
        bench.done();
        let mut bench = self::bench();
        for _ in 0..100 {
            bench.get();
            bench.reply("a get k", error(TIMEOUT)); // none of them is a miss
        }
        bench.done();
    }
}
