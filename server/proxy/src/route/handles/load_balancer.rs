//! `LoadBalancerRoute`: keys over children by what they have to do. mcrouter's servers say how loaded they
//! are; here a core goes by what it sees of a child itself: how many of its requests wait there, and how long
//! they waited of late.

use std::cell::{Cell, RefCell};

use corecached_protocol::Reply;
use serde_json::{Value, json};

use crate::config::{
    Builder, Checked, Child, Config, ErrorSet, FailoverErrors, HandleId, Json, WrittenHandle,
};
use crate::hash::{KeyPart, SALT_BYTES_MAX, furc};
use crate::request::OwnedRequest;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::NodeId;
use crate::route::outcome;
use crate::route::slab::SlotId;

/// `LoadBalancerRoute`, and `HashRoute` with `"hash_func": "LoadBalancer"`.
#[derive(Clone, Debug)]
pub(crate) struct LoadBalancerRoute {
    children: Vec<Child>,
    algorithm: Balance,
    /// Hashed after the key.
    salt: String,
    /// How long figures are good, ms; at least 1.
    ttl_ms: u32,
    /// Children that a request is sent to at most while the reply is an error.
    tries_max: usize,
    errors: FailoverErrors,
}

/// How a load balancer takes load into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::route) enum Balance {
    /// A child keeps the less of its keys the more it has to do; the rest go on as if it were not there.
    WeightedHashing,
    /// A key has two children, and goes to the one with less to do.
    TwoRandomChoices,
}

impl Balance {
    /// Its name in the configuration.
    const fn name(self) -> &'static str {
        match self {
            Self::WeightedHashing => "weighted-hashing",
            Self::TwoRandomChoices => "two-random-choices",
        }
    }
}

impl RouteHandle for LoadBalancerRoute {
    const NAMES: &'static [&'static str] = &["LoadBalancerRoute"];
    const SHORT_KEY: &'static str = "children";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let children = builder.children_at(json, name)?;
        Self::parse_over(builder, json, children)
    }

    fn children(&self) -> Vec<Child> {
        self.children.clone()
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "children": config.children_json(&self.children),
            "algorithm": self.algorithm.name(),
            "salt": self.salt,
            "load_ttl_ms": self.ttl_ms,
            "failover_count": self.tries_max,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let node = LoadBalancer {
            children: compiler.children(&self.children),
            algorithm: self.algorithm,
            salt: self.salt.as_bytes().into(),
            key_part: KeyPart::hash_stop(),
            ttl_ms: u64::from(self.ttl_ms).max(1),
            tries_max: self.tries_max,
            errors: self.errors.clone(),
        };
        Ok(compiler.push(node))
    }
}

impl LoadBalancerRoute {
    /// Reads all but the children.
    pub(crate) fn parse_over(builder: &mut Builder, json: &Json, children: Vec<Child>) -> Checked<HandleId> {
        let algorithm = match builder.text_at(json, "algorithm")?.as_deref() {
            None | Some("weighted-hashing") => Balance::WeightedHashing,
            Some("two-random-choices") => Balance::TwoRandomChoices,
            Some(other) => {
                let remedy = "must be weighted-hashing or two-random-choices";
                return Err(builder.fault(json, "LoadBalancerRoute.algorithm", other, remedy));
            }
        };
        let salt = builder.text_at(json, "salt")?.unwrap_or_default();
        if salt.len() > SALT_BYTES_MAX {
            let remedy = "must have at most 128 bytes";
            return Err(builder.fault(json, "LoadBalancerRoute.salt", &salt, remedy));
        }
        let route = Self {
            children,
            algorithm,
            salt,
            ttl_ms: builder.int_at(json, "load_ttl_ms", 1, 24 * 60 * 60 * 1000)?.unwrap_or(100) as u32,
            tries_max: builder.int_at(json, "failover_count", 1, 10_000)?.unwrap_or(1) as usize,
            errors: builder.failover_errors(json)?,
        };
        builder.push(route, json)
    }
}

/// A child that fails counts as if it had waited so long: a server that refuses at once is not a fast one.
/// Milliseconds.
const ERROR_MS: f64 = 1000.0;
/// How much of a new wait goes into the average at least.
const NEWEST: f64 = 0.2;

/// To the child that the key belongs to, less to those that have much to do.
#[derive(Debug)]
pub(in crate::route) struct LoadBalancer {
    pub children: Box<[NodeId]>,
    pub algorithm: Balance,
    pub salt: Box<[u8]>,
    pub key_part: KeyPart,
    /// How long weights stay what they are, and how long the average of a child without requests takes to
    /// halve.
    pub ttl_ms: u64,
    pub tries_max: usize,
    pub errors: FailoverErrors,
}

/// The load of the children, as a shard sees it.
#[derive(Debug)]
pub(in crate::route) struct Loads {
    by_child: Box<[ChildLoad]>,
    /// For weighted hashing: the share of its keys that each child keeps, of 2^32.
    thresholds: RefCell<Box<[u32]>>,
    weighed_at_ms: Cell<u64>,
}

#[derive(Debug, Default)]
struct ChildLoad {
    waiting: Cell<u32>,
    /// Milliseconds, a moving average.
    waited_ms: Cell<f64>,
    heard_at_ms: Cell<u64>,
}

impl ChildLoad {
    /// What is left of the average: it halves with every `ttl_ms` without a reply.
    fn left(&self, now_ms: u64, ttl_ms: u64) -> f64 {
        let silent_ms = now_ms.saturating_sub(self.heard_at_ms.get());
        (-(silent_ms as f64) / ttl_ms as f64).exp2()
    }

    fn now(&self, now_ms: u64, ttl_ms: u64) -> f64 {
        f64::from(self.waiting.get() + 1) * (1.0 + self.waited_ms.get() * self.left(now_ms, ttl_ms))
    }

    fn heard(&self, waited_ms: f64, now_ms: u64, ttl_ms: u64) {
        let old = self.left(now_ms, ttl_ms).min(1.0 - NEWEST);
        self.waited_ms.set(self.waited_ms.get() * old + waited_ms * (1.0 - old));
        self.heard_at_ms.set(now_ms);
    }
}

/// One request.
#[derive(Debug)]
pub(in crate::route) struct BalancedRequest {
    /// The children it was sent to, in that order.
    tried: Vec<u32>,
    /// When it was sent to the last of them, unix milliseconds.
    asked_ms: u64,
}

impl RouteNode for LoadBalancer {
    type State = Loads;
    type Progress = BalancedRequest;

    fn state(&self) -> Loads {
        debug_assert!(!self.children.is_empty() && self.ttl_ms > 0);
        Loads {
            by_child: self.children.iter().map(|_| ChildLoad::default()).collect(),
            thresholds: RefCell::new(self.children.iter().map(|_| u32::MAX).collect()),
            weighed_at_ms: Cell::new(0),
        }
    }

    fn start(&self, loads: &Loads, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        if !step.frames.has_room(1) {
            return step.answer(parent, outcome::busy());
        }
        let child = self.choose(loads, request.key(), step.now_ms);
        loads.by_child[child].waiting.set(loads.by_child[child].waiting.get() + 1);
        let progress = BalancedRequest { tried: vec![child as u32], asked_ms: step.now_ms };
        let sent = [(self.children[child], request.clone())];
        step.open_with(node, &request, parent, Self::waiting(progress), sent);
    }

    fn replied(
        &self,
        loads: &Loads,
        frame: &mut Frame,
        step: &mut Step,
        slot: SlotId,
        child: u32,
        reply: Reply,
    ) {
        let Some(progress) = Self::in_progress(&mut frame.progress) else { return };
        // `child` counts the tries.
        let load = &loads.by_child[progress.tried[child as usize] as usize];
        debug_assert!(load.waiting.get() > 0);
        load.waiting.set(load.waiting.get() - 1);
        let waited_ms = step.now_ms.saturating_sub(progress.asked_ms) as f64;
        let failed = outcome::error_kind(&reply).is_some_and(|kind| ErrorSet::DEFAULT.has(kind));
        let counted_ms = if failed { waited_ms.max(ERROR_MS) } else { waited_ms };
        load.heard(counted_ms, step.now_ms, self.ttl_ms);
        let more = outcome::fails_over(&self.errors, frame.request.class(), &reply)
            && progress.tried.len() < self.tries_max.min(self.children.len());
        if !more {
            return frame.answer(step, reply);
        }
        let untried = (0..self.children.len() as u32).filter(|child| !progress.tried.contains(child));
        let now = |child: &u32| loads.by_child[*child as usize].now(step.now_ms, self.ttl_ms);
        let Some(next) = untried.min_by(|one, other| now(one).total_cmp(&now(other))) else {
            return frame.answer(step, reply);
        };
        let load = &loads.by_child[next as usize];
        load.waiting.set(load.waiting.get() + 1);
        progress.tried.push(next);
        progress.asked_ms = step.now_ms;
        let request = frame.request.clone();
        frame.start_child(step, slot, self.children[next as usize], request, child + 1);
    }
}

impl LoadBalancer {
    fn choose(&self, loads: &Loads, key: &[u8], now_ms: u64) -> usize {
        let count = self.children.len();
        let mut hashed = [self.key_part.part_of(key), &self.salt].concat();
        let load = |child: usize| loads.by_child[child].now(now_ms, self.ttl_ms);
        match self.algorithm {
            Balance::WeightedHashing => {
                let mut thresholds = loads.thresholds.borrow_mut();
                if now_ms.saturating_sub(loads.weighed_at_ms.get()) >= self.ttl_ms {
                    loads.weighed_at_ms.set(now_ms);
                    let least = (0..count).map(load).fold(f64::INFINITY, f64::min);
                    for (child, threshold) in thresholds.iter_mut().enumerate() {
                        *threshold = furc::threshold(least / load(child));
                    }
                }
                furc::weighted_ch3(&hashed, &thresholds)
            }
            Balance::TwoRandomChoices => {
                let one = furc::ch3(&hashed, count);
                hashed.push(b'1');
                let mut other = furc::ch3(&hashed, count);
                if other == one {
                    other = (one + 1) % count; // a key has two homes, if there are two
                }
                if load(other) < load(one) { other } else { one }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use corecached_protocol::{ErrorKind, Reply};

    use crate::route::tests::{Bench, TIMEOUT, error, value};

    fn bench(more: &str) -> Bench {
        Bench::new(&format!(
            r#"{{"type": "LoadBalancerRoute", {more} "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c", "PoolRoute|d"]}}"#
        ))
    }

    /// Of so many keys, how many each server is asked for; it answers after as many milliseconds as `waits`
    /// says.
    fn shares(bench: &mut Bench, keys: usize, waits: impl Fn(&str) -> u64) -> HashMap<String, usize> {
        let mut shares = HashMap::new();
        for key in 0..keys {
            bench.ask(&format!("get k{key}"), "");
            let sent = bench.waiting()[0].to_owned();
            bench.pass(waits(&sent[..1]));
            assert_eq!(bench.reply(&sent, value("v")), Some(value("v")));
            *shares.entry(sent[..1].to_owned()).or_default() += 1;
        }
        shares
    }

    const BOTH: [&str; 2] = [r#""algorithm": "weighted-hashing","#, r#""algorithm": "two-random-choices","#];

    #[test]
    fn equal_children_get_equal_shares_and_a_slow_one_gets_fewer() {
        for algorithm in BOTH {
            let mut bench = bench(&format!(r#"{algorithm} "load_ttl_ms": 1000,"#));
            let equal = shares(&mut bench, 400, |_| 1);
            assert!(equal.len() == 4 && equal.values().all(|&share| share > 50), "{algorithm} {equal:?}");
            shares(&mut bench, 400, |server| if server == "b" { 20 } else { 1 });
            let unequal = shares(&mut bench, 400, |server| if server == "b" { 20 } else { 1 });
            let slow = unequal.get("b").copied().unwrap_or_default();
            assert!(slow < equal["b"] / 2, "{algorithm} {slow} of {equal:?}");
            bench.pass(100_000);
            let again = shares(&mut bench, 400, |_| 1);
            assert!(again["b"] > 50, "{algorithm} what it was is forgotten: {again:?}");
            bench.done();
        }
    }

    #[test]
    fn a_child_where_requests_wait_is_passed_over() {
        for algorithm in BOTH {
            let mut bench = bench(&format!(r#"{algorithm} "load_ttl_ms": 1,"#));
            let mut stuck = Vec::new();
            let mut to_b = 0;
            for key in 0..400 {
                bench.now_ms += 1;
                bench.ask(&format!("get k{key}"), "");
                let sent = bench.waiting().last().map(|&sent| sent.to_owned()).unwrap();
                if sent.starts_with('b') {
                    to_b += 1;
                    stuck.push(sent);
                } else {
                    bench.reply(&sent, Reply::Miss);
                }
            }
            assert!(to_b < 50, "{algorithm} {to_b}");
            for sent in stuck {
                bench.reply(&sent, Reply::Miss);
            }
            bench.done();
        }
    }

    #[test]
    fn two_choices_are_the_same_two_for_a_key() {
        let mut bench = bench(BOTH[1]);
        for key in 0..30 {
            let mut homes = HashSet::new();
            let mut stuck = Vec::new();
            for _ in 0..6 {
                bench.ask(&format!("get k{key}"), "");
                let sent = bench.waiting().last().map(|&sent| sent.to_owned()).unwrap();
                homes.insert(sent[..1].to_owned());
                stuck.push(sent);
            }
            assert_eq!(homes.len(), 2, "k{key}");
            for sent in stuck {
                bench.reply(&sent, Reply::Miss);
            }
        }
        bench.done();
    }

    #[test]
    fn a_child_that_refuses_at_once_is_not_taken_for_a_fast_one() {
        for algorithm in BOTH {
            let mut bench = bench(&format!(r#"{algorithm} "failover_count": 2, "load_ttl_ms": 100000,"#));
            let mut refused = 0;
            for key in 0..400 {
                bench.now_ms += 1000;
                bench.ask(&format!("get k{key}"), "");
                let mut sent = bench.waiting()[0].to_owned();
                if sent.starts_with('b') {
                    refused += 1;
                    assert_eq!(bench.reply(&sent, error(ErrorKind::Ejected)), None); // another is asked
                    sent = bench.waiting()[0].to_owned();
                    assert!(!sent.starts_with('b'));
                }
                bench.pass(1);
                assert_eq!(bench.reply(&sent, value("v")), Some(value("v")));
            }
            assert!(refused < 50, "{algorithm} {refused}");
            bench.done();
        }
    }

    #[test]
    fn an_error_is_the_answer_when_no_other_child_may_be_asked() {
        let mut bench = bench("");
        bench.get();
        let sent = bench.waiting()[0].to_owned();
        assert_eq!(bench.reply(&sent, error(TIMEOUT)), Some(error(TIMEOUT)));
        bench.done();
        let mut bench = self::bench(r#""failover_count": 9,"#);
        bench.get();
        let mut hosts = HashSet::new();
        while let Some(sent) = bench.waiting().first().map(|&sent| sent.to_owned()) {
            hosts.insert(sent[..1].to_owned());
            bench.reply(&sent, error(TIMEOUT));
        }
        assert_eq!(hosts.len(), 4);
        bench.done();
    }
}
