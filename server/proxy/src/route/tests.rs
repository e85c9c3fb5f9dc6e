//! Destinations that record what they are sent and answer as they are told, for the tests of every handle,
//! which stand beside it; and tests of whole trees.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corecached_protocol::{Command, ErrorKind, Limits as LineLimits, Parsed, Parser, Reply};

use super::*;
use crate::config::{Config, Options, ResolvedPools, Server};
use crate::request::OwnedRequest;

/// Single-server pools `a` to `e`, and `two` of `a` and `b`.
pub(super) const POOLS: &str = r#""pools": {"a": {"servers": ["a:1"]}, "b": {"servers": ["b:1"]}, "c": {"servers": ["c:1"]},
    "d": {"servers": ["d:1"]}, "e": {"servers": ["e:1"]}, "two": {"servers": ["a:1", "b:1"]}}"#;

/// One shard's proxy with destinations by hand.
pub(super) struct Bench {
    routes: Rc<Routes>,
    pub execution: Execution,
    pub now_ms: u64,
    tickets: u64,
    pub actions: Vec<Action>,
    sent: Vec<(CallId, String)>,
    /// All that was ever sent, as shown and as it is.
    requests: Vec<(String, OwnedRequest)>,
    /// Whether the destination of what was sent last may refuse it.
    pub may_be_refused: bool,
}

pub(super) fn options() -> Options {
    Options {
        spool_deletes: false,
        miss_on_get_errors: false,
        miss_on_arithmetic_errors: false,
        ..Options::default()
    }
}

fn tree(text: &str, options: &Options) -> Arc<Tree> {
    let config = Config::parse("test", text, options, &|_| Err("no files".into()))
        .unwrap_or_else(|error| panic!("{error}"));
    Arc::new(Tree::compile(&config, &ResolvedPools::new()).unwrap())
}

fn parse<'a>(line: &'a str, limits: &LineLimits) -> Command<'a> {
    match Parser::new().parse(line.as_bytes(), limits) {
        Ok(Parsed::Complete { value, .. }) => value,
        other => panic!("{line}: {other:?}"),
    }
}

/// `set k 0 9 v` and so on: the command as it is sent, its value at the end.
fn shown(request: &OwnedRequest) -> String {
    let key = String::from_utf8_lossy(request.command().key().unwrap()).into_owned();
    let data = String::from_utf8_lossy(request.data()).into_owned();
    let operation = format!("{:?}", request.operation()).to_lowercase();
    let mut words = vec![operation, key];
    if let Some((_, flags)) = request.meta() {
        words[0] = format!("meta-{}", words[0]);
        words.push(String::from_utf8_lossy(flags.tokens).into_owned());
    } else if let Some(exptime) = request.exptime() {
        words.push(exptime.0.to_string());
    }
    words.push(data);
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

pub(super) fn value(text: &str) -> Reply {
    Reply::Value { client_flags: 5, cas_unique: None, value: Bytes::copy_from_slice(text.as_bytes()) }
}

pub(super) fn meta(line: &str) -> Reply {
    Reply::Meta { line: Bytes::copy_from_slice(line.as_bytes()), value: None }
}

pub(super) fn error(kind: ErrorKind) -> Reply {
    Reply::Error { kind, line: Bytes::from_static(b"SERVER_ERROR test") }
}

pub(super) const TIMEOUT: ErrorKind = ErrorKind::Timeout;

impl Bench {
    /// `route` as in a configuration, over [`POOLS`].
    pub(super) fn new(route: &str) -> Self {
        Self::with(&format!("{{{POOLS}, \"route\": {route}}}"), &options())
    }

    pub(super) fn with(text: &str, options: &Options) -> Self {
        Self {
            routes: Rc::new(Routes::new(tree(text, options))),
            execution: Execution::new(&ExecutionLimits::default(), 1),
            now_ms: 1_000_000,
            tickets: 0,
            actions: Vec::new(),
            sent: Vec::new(),
            requests: Vec::new(),
            may_be_refused: false,
        }
    }

    /// A client sends `line` (and `data`); its answer, if it is there at once.
    pub(super) fn ask(&mut self, line: &str, data: &str) -> Option<Reply> {
        let line = format!("{line}\r\n");
        let limits = LineLimits::default();
        let request =
            OwnedRequest::new(&parse(&line, &limits), Bytes::copy_from_slice(data.as_bytes())).unwrap();
        self.tickets += 1;
        self.execution.begin(&self.routes, request, self.tickets, self.now_ms, &mut self.actions);
        self.collect()
    }

    pub(super) fn get(&mut self) -> Option<Reply> {
        self.ask("get k", "")
    }

    fn collect(&mut self) -> Option<Reply> {
        let mut answer = None;
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send { call, place, request, may_be_refused } => {
                    self.may_be_refused = may_be_refused;
                    let server = &self.routes.destinations()[place as usize].server.address;
                    let host = server.to_string().split(':').next().unwrap().to_owned();
                    let text = format!("{host} {}", shown(&request));
                    self.requests.push((text.clone(), request));
                    self.sent.push((call, text));
                }
                Action::Answer { reply, .. } => {
                    assert_eq!(answer, None, "two answers");
                    answer = Some(reply);
                }
                Action::Keep { call, request, .. } => {
                    self.sent.push((call, format!("spool {}", shown(&request))));
                }
            }
        }
        answer
    }

    /// The destination that got `sent` answers; what the client gets then.
    pub(super) fn reply(&mut self, sent: &str, reply: Reply) -> Option<Reply> {
        let at = self.sent.iter().position(|(_, text)| text == sent);
        let at = at.unwrap_or_else(|| panic!("nobody got {sent}: {:?}", self.waiting()));
        let (call, _) = self.sent.remove(at);
        self.execution.replied(call, reply, self.now_ms, &mut self.actions);
        self.collect()
    }

    pub(super) fn waiting(&self) -> Vec<&str> {
        self.sent.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// What was `sent`.
    pub(super) fn request(&self, sent: &str) -> &OwnedRequest {
        let (_, request) = self.requests.iter().rev().find(|(text, _)| text == sent).unwrap();
        request
    }

    /// So many milliseconds; what the client gets then.
    pub(super) fn pass(&mut self, ms: u64) -> Option<Reply> {
        self.now_ms += ms;
        self.execution.tick(self.now_ms, &mut self.actions);
        self.collect()
    }

    /// Nothing is left over.
    pub(super) fn done(&self) {
        assert_eq!((self.waiting(), self.execution.calls(), self.execution.frames()), (vec![], 0, 0));
        assert_eq!(self.execution.delayed(), 0);
    }
}

#[test]
fn a_pool_sends_each_key_to_its_destination_and_directly() {
    let mut bench = Bench::new("\"PoolRoute|two\"");
    let mut hosts = std::collections::HashSet::new();
    for key in 0..50 {
        let line = format!("get key{key}");
        assert_eq!(bench.ask(&line, ""), None);
        let sent = bench.waiting()[0].to_owned();
        let line = format!("{line}\r\n");
        let limits = LineLimits::default();
        let command = parse(&line, &limits);
        let direct = bench.routes.direct(command.key().unwrap(), &command).unwrap();
        let host = bench.routes.destinations()[direct.0 as usize].server.address.to_string();
        assert_eq!(host[..1], sent[..1]);
        hosts.insert(host);
        assert_eq!(bench.reply(&sent, value("v")), Some(value("v")));
    }
    assert_eq!(hosts.len(), 2);
    bench.done();
}

#[test]
fn only_requests_that_one_destination_decides_go_directly() {
    let command = |line: &str, route: &str| {
        let line = format!("{line}\r\n");
        let limits = LineLimits::default();
        let command = parse(&line, &limits);
        let bench = Bench::new(route);
        bench.routes.direct(command.key().unwrap(), &command).is_some()
    };
    let selector = r#"{"type": "OperationSelectorRoute", "default_policy": "PoolRoute|a",
        "operation_policies": {"delete": "AllSyncRoute|Pool|two"}}"#;
    let prefix =
        r#"{"type": "PrefixSelectorRoute", "policies": {"x": "NullRoute"}, "wildcard": "PoolRoute|two"}"#;
    for (line, route, direct) in [
        ("get k", "\"PoolRoute|two\"", true),
        ("get k", selector, true),
        ("delete k", selector, false),
        ("get k", prefix, true),
        ("get x", prefix, false),
        ("get /a/b/k", "\"PoolRoute|two\"", false),
        ("mg k v", "\"PoolRoute|two\"", true),
        ("mg Zm9v b v", "\"PoolRoute|two\"", false),
        ("get k", "\"FailoverRoute|Pool|two\"", false),
    ] {
        assert_eq!(command(line, route), direct, "{line} {route}");
    }
}

#[test]
fn no_two_handles_have_the_same_name_and_none_is_refused() {
    let names: Vec<&str> = handle_names().collect();
    let distinct: std::collections::HashSet<&str> = names.iter().copied().collect();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
    for (refused, remedy) in crate::config::REFUSED {
        assert!(!names.contains(refused), "{refused} {remedy}");
    }
}

#[test]
fn random_reaches_every_child() {
    let mut bench = Bench::new("\"RandomRoute|Pool|two\"");
    let mut hosts = std::collections::HashSet::new();
    for _ in 0..50 {
        bench.get();
        let sent = bench.waiting()[0].to_owned();
        bench.reply(&sent, Reply::Miss);
        hosts.insert(sent);
    }
    assert_eq!(hosts.len(), 2);
    bench.done();
}

#[test]
fn null_and_error_routes_answer_themselves() {
    assert_eq!(Bench::new("\"NullRoute\"").get(), Some(Reply::Miss));
    assert_eq!(Bench::new("\"DevNullRoute\"").ask("set k 0 0 1", "x"), Some(Reply::NotStored));
    let answer = |text: &'static str| Some(Reply::Error { kind: ErrorKind::Local, line: text.into() });
    assert_eq!(Bench::new("\"ErrorRoute|gone\"").get(), answer("SERVER_ERROR gone"));
    assert_eq!(Bench::new("\"ErrorRoute\"").get(), answer("SERVER_ERROR local error"));
}

#[test]
fn failed_retrievals_and_counts_are_misses_where_that_is_the_default() {
    let mut bench = Bench::with(&format!("{{{POOLS}, \"route\": \"PoolRoute|a\"}}"), &Options::default());
    for (line, sent, answer) in [
        ("get k", "a get k", Reply::Miss),
        ("gats 5 k", "a gats k 5", Reply::Miss),
        ("incr k 1", "a incr k", Reply::NotFound),
        ("touch k 1", "a touch k 1", error(TIMEOUT)),
        ("mg k v", "a meta-get k v", error(TIMEOUT)),
    ] {
        bench.ask(line, "");
        assert_eq!(bench.reply(sent, error(TIMEOUT)), Some(answer.clone()), "{line}");
        let line = format!("{line}\r\n");
        assert_eq!(
            bench.routes.tree().downgrade_of(&parse(&line, &LineLimits::default())).apply(error(TIMEOUT)),
            answer
        );
    }
}

#[test]
fn past_its_bounds_an_execution_answers_busy_and_recovers() {
    let mut bench = Bench::new("\"FailoverRoute|Pool|two\"");
    bench.execution =
        Execution::new(&ExecutionLimits { calls_max: 2, frames_max: 10, calls_with_shadows_max: 1 }, 1);
    bench.get();
    bench.get();
    let busy = bench.get();
    assert!(matches!(busy, Some(Reply::Error { kind: ErrorKind::Busy, .. })), "{busy:?}");
    bench.reply("a get k", Reply::Miss);
    bench.reply("a get k", Reply::Miss);
    bench.done();
    bench.execution =
        Execution::new(&ExecutionLimits { calls_max: 10, frames_max: 1, calls_with_shadows_max: 1 }, 1);
    bench.get();
    assert!(matches!(bench.get(), Some(Reply::Error { kind: ErrorKind::Busy, .. })));
    bench.reply("a get k", Reply::Miss);
    bench.done();
}

#[test]
fn a_reply_to_a_call_that_ended_is_overlooked() {
    let mut bench = Bench::new("\"PoolRoute|a\"");
    bench.get();
    let call = bench.sent[0].0;
    bench.reply("a get k", Reply::Miss);
    bench.get(); // takes the same place
    bench.execution.replied(call, value("stale"), 0, &mut bench.actions);
    assert_eq!(bench.collect(), None);
    assert_eq!(bench.reply("a get k", Reply::Miss), Some(Reply::Miss));
    bench.done();
}

#[test]
fn a_request_ends_on_the_tree_it_began_on() {
    let mut bench = Bench::new("\"FailoverRoute|Pool|two\"");
    bench.get();
    let old = Rc::downgrade(&bench.routes);
    let new = tree(&format!("{{{POOLS}, \"route\": \"PoolRoute|e\"}}"), &options());
    bench.routes = Rc::new(Routes::new(new));
    assert!(old.upgrade().is_some());
    let (call, _) = bench.sent.remove(0);
    bench.execution.replied(call, error(TIMEOUT), 0, &mut bench.actions);
    let Some(Action::Send { call, .. }) = bench.actions.pop() else { panic!("no second try") };
    bench.execution.replied(call, Reply::Miss, 0, &mut bench.actions);
    assert_eq!(bench.collect(), Some(Reply::Miss));
    assert!(old.upgrade().is_none());
    bench.done();
}

#[test]
fn resolved_members_replace_those_written_without_reading_again() {
    let text = r#"{"pools": {"a": {"servers": ["name:1"], "resolve": true}}, "route": "PoolRoute|a"}"#;
    let config = Config::parse("test", text, &options(), &|_| Err("".into())).unwrap();
    let hosts = |resolved: &ResolvedPools| -> Vec<String> {
        let tree = Tree::compile(&config, resolved).unwrap();
        tree.destinations().iter().map(|destination| destination.server.address.to_string()).collect()
    };
    assert_eq!(hosts(&ResolvedPools::new()), ["name:1"]);
    let server = |host: &str| Server {
        address: crate::config::Address::Tcp { host: host.into(), port: 1 },
        tls: false,
        reply_timeout_ms: 1000,
        connect_timeout_ms: 1000,
    };
    let resolved = ResolvedPools::from([("a".to_owned(), vec![server("10.0.0.1"), server("10.0.0.2")])]);
    assert_eq!(hosts(&resolved), ["10.0.0.1:1", "10.0.0.2:1"]);
    let empty = Tree::compile(&config, &ResolvedPools::from([("a".to_owned(), Vec::new())])).unwrap();
    assert!(empty.destinations().is_empty());
}

/// Random trees, requests and replies in random order: every request is answered once, and nothing is left
/// over.
#[test]
fn every_request_is_answered_once_whatever_the_tree_and_the_replies() {
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let route = random_route(&mut random, 4);
        let text = format!("{{{POOLS}, \"route\": {route}}}");
        let mut options = options();
        (options.host_id, options.spool_deletes) = (random.u64(..), random.bool());
        let routes = Rc::new(Routes::new(tree(&text, &options)));
        let limits = ExecutionLimits { calls_max: 40, frames_max: 30, calls_with_shadows_max: 20 };
        let mut execution = Execution::new(&limits, random.u64(..));
        let (mut answered, mut calls, mut actions) = (vec![0; 40], Vec::new(), Vec::new());
        let (mut asked, mut now_ms) = (0, 1_000_000);
        while asked < answered.len() || !calls.is_empty() || execution.delayed() > 0 {
            now_ms += random.u64(..2);
            execution.tick(now_ms, &mut actions);
            if asked < answered.len() && random.bool() {
                let line = [
                    "get k",
                    "gets k",
                    "set k 0 5 1",
                    "set k 32768 5 1",
                    "delete k",
                    "incr k 1",
                    "touch k 5",
                    "mg k v k",
                    "md k",
                    "ms k 1",
                    "get k:1:",
                    "delete k:1:",
                ];
                let line = format!("{}\r\n", random.choice(line).unwrap());
                let line_limits = LineLimits::default();
                let request =
                    OwnedRequest::new(&parse(&line, &line_limits), Bytes::from_static(b"x")).unwrap();
                execution.begin(&routes, request, asked as u64, now_ms, &mut actions);
                asked += 1;
            } else if !calls.is_empty() {
                let call = calls.swap_remove(random.usize(..calls.len()));
                let replies = [
                    value("v"),
                    Reply::Value { client_flags: 0x8000, cas_unique: None, value: "1-2-3".into() },
                    Reply::Miss,
                    Reply::Stored,
                    Reply::NotFound,
                    error(TIMEOUT),
                    error(ErrorKind::Ejected),
                    meta("EN"),
                ];
                execution.replied(call, random.choice(replies).unwrap(), now_ms, &mut actions);
            }
            for action in actions.drain(..) {
                match action {
                    Action::Send { call, .. } | Action::Keep { call, .. } => calls.push(call),
                    Action::Answer { ticket, .. } => answered[ticket as usize] += 1,
                }
            }
        }
        assert!(answered.iter().all(|&answers| answers == 1), "{answered:?}\n{route}");
        assert_eq!((execution.calls(), execution.frames()), (0, 0), "{route}");
    }
}

fn random_route(random: &mut fastrand::Rng, depth: usize) -> String {
    if depth == 0 || random.u8(..4) == 0 {
        return random
            .choice([
                "\"PoolRoute|a\"",
                "\"PoolRoute|two\"",
                "\"PoolRoute|c\"",
                "\"NullRoute\"",
                "\"ErrorRoute\"",
                "\"BlackholeRoute\"",
                r#"{"type": "PoolRoute", "pool": "two", "replicas": 2}"#,
                "\"SaltedFailoverRoute|two\"",
            ])
            .unwrap()
            .into();
    }
    let mut one = || random_route(random, depth - 1);
    let (a, b, c) = (one(), one(), one());
    let children = [
        "FailoverRoute",
        "AllSyncRoute",
        "AllAsyncRoute",
        "AllFastestRoute",
        "AllInitialRoute",
        "AllMajorityRoute",
        "MissFailoverRoute",
        "RandomRoute",
        "HashRoute",
        "LatestRoute",
        "LoadBalancerRoute",
    ];
    match random.u8(..15) {
        0 => format!(r#"{{"type": "WarmUpRoute", "cold": {a}, "warm": {b}}}"#),
        1 => format!(
            r#"{{"type": "L1L2CacheRoute", "l1": {a}, "l2": {b}, "upgradingL1Exptime": 9, "ncacheExptime": 4, "ncacheUpdatePeriod": 2}}"#
        ),
        2 => format!(r#"{{"type": "OutstandingLimitRoute", "target": {a}, "max_outstanding": 2}}"#),
        3 => format!(
            r#"{{"type": "KeySplitRoute", "destination": {a}, "replicas": 3, "all_sync": true, "first_hit": true}}"#
        ),
        4 => format!(r#"{{"type": "ShadowRoute", "target": {a}, "shadows": [{{"target": {b}}}]}}"#),
        5 => format!(
            r#"{{"type": "MigrateRoute", "from": {a}, "to": {b}, "start_time": 990, "interval": 20}}"#
        ),
        13 => format!(r#"{{"type": "BigValueRoute", "target": {a}, "split_threshold": 1}}"#),
        10 => format!(r#"{{"type": "LoggingRoute", "target": {a}}}"#),
        11 => format!(
            r#"{{"type": "LatencyInjectionRoute", "target": {a}, "before_latency_ms": 2, "after_latency_ms": 1, "total_latency_ms": 5}}"#
        ),
        12 => format!(
            r#"{{"type": "PoolRoute", "pool": "two", "max_outstanding": 2, "shard_splits": {{"1": 3}}, "slow_warmup": {{"failoverTarget": {a}, "settings": {{"min_requests": 2}}}}}}"#
        ),
        6 => format!(r#"{{"type": "ModifyKeyRoute", "target": {a}, "set_key_suffix": "s"}}"#),
        _ => format!(r#"{{"type": "{}", "children": [{a}, {b}, {c}]}}"#, random.choice(children).unwrap()),
    }
}
