//! Every handle against destinations that record what they are sent and answer as they are told.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corecached_protocol::{Command, ErrorKind, Limits as LineLimits, Parsed, Parser, Reply};

use super::super::config::{Config, Options, ResolvedPools, Server};
use super::super::request::{OwnedRequest, key_of};
use super::*;

/// Single-server pools `a` to `e`, and `two` of `a` and `b`.
const POOLS: &str = r#""pools": {"a": {"servers": ["a:1"]}, "b": {"servers": ["b:1"]}, "c": {"servers": ["c:1"]},
    "d": {"servers": ["d:1"]}, "e": {"servers": ["e:1"]}, "two": {"servers": ["a:1", "b:1"]}}"#;

/// One shard's proxy with destinations by hand.
struct Bench {
    routes: Rc<Routes>,
    execution: Execution,
    now_ms: u64,
    tickets: u64,
    actions: Vec<Action>,
    sent: Vec<(CallId, String)>,
}

fn options() -> Options {
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
    let key = String::from_utf8_lossy(key_of(&request.command()).unwrap()).into_owned();
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

fn value(text: &str) -> Reply {
    Reply::Value { client_flags: 5, cas_unique: None, value: Bytes::copy_from_slice(text.as_bytes()) }
}

fn meta(line: &str) -> Reply {
    Reply::Meta { line: Bytes::copy_from_slice(line.as_bytes()), value: None }
}

fn error(kind: ErrorKind) -> Reply {
    Reply::Error { kind, line: Bytes::from_static(b"SERVER_ERROR test") }
}

const TIMEOUT: ErrorKind = ErrorKind::Timeout;

impl Bench {
    /// `route` as in a configuration, over [`POOLS`].
    fn new(route: &str) -> Self {
        Self::with(&format!("{{{POOLS}, \"route\": {route}}}"), &options())
    }

    fn with(text: &str, options: &Options) -> Self {
        Self {
            routes: Rc::new(Routes::new(tree(text, options))),
            execution: Execution::new(&Limits::default(), 1),
            now_ms: 1_000_000,
            tickets: 0,
            actions: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// A client sends `line` (and `data`); its answer, if it is there at once.
    fn ask(&mut self, line: &str, data: &str) -> Option<Reply> {
        let line = format!("{line}\r\n");
        let limits = LineLimits::default();
        let request =
            OwnedRequest::new(&parse(&line, &limits), Bytes::copy_from_slice(data.as_bytes())).unwrap();
        self.tickets += 1;
        self.execution.begin(&self.routes, request, self.tickets, self.now_ms, &mut self.actions);
        self.collect()
    }

    fn get(&mut self) -> Option<Reply> {
        self.ask("get k", "")
    }

    fn collect(&mut self) -> Option<Reply> {
        let mut answer = None;
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send { call, place, request } => {
                    let server = &self.routes.destinations()[place as usize].server.address;
                    let host = server.to_string().split(':').next().unwrap().to_owned();
                    self.sent.push((call, format!("{host} {}", shown(&request))));
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
    fn reply(&mut self, sent: &str, reply: Reply) -> Option<Reply> {
        let at = self.sent.iter().position(|(_, text)| text == sent);
        let at = at.unwrap_or_else(|| panic!("nobody got {sent}: {:?}", self.waiting()));
        let (call, _) = self.sent.remove(at);
        self.execution.replied(call, reply, self.now_ms, &mut self.actions);
        self.collect()
    }

    fn waiting(&self) -> Vec<&str> {
        self.sent.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// Nothing is left over.
    fn done(&self) {
        assert_eq!((self.waiting(), self.execution.calls(), self.execution.frames()), (vec![], 0, 0));
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
        let direct = bench.routes.direct(key_of(&command).unwrap(), &command).unwrap();
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
        bench.routes.direct(key_of(&command).unwrap(), &command).is_some()
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
fn failover_goes_on_while_the_reply_is_an_error() {
    let mut bench =
        Bench::new(r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#);
    assert_eq!(bench.get(), None);
    assert_eq!(bench.reply("a get k", Reply::Miss), Some(Reply::Miss)); // a miss is no error
    bench.get();
    assert_eq!(bench.reply("a get k", error(TIMEOUT)), None);
    assert_eq!(bench.reply("b get k", error(ErrorKind::Ejected)), None);
    assert_eq!(bench.reply("c get k", value("v")), Some(value("v")));
    bench.get();
    for host in ["a", "b"] {
        assert_eq!(bench.reply(&format!("{host} get k"), error(TIMEOUT)), None);
    }
    let last = error(ErrorKind::Connect);
    assert_eq!(bench.reply("c get k", last.clone()), Some(last)); // the last error, not the first
    bench.get();
    let client = error(ErrorKind::Client);
    assert_eq!(bench.reply("a get k", client.clone()), Some(client)); // another server would say the same
    bench.done();
}

#[test]
fn failover_errors_are_those_configured_for_the_class_of_request() {
    let mut bench = Bench::new(
        r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b"],
            "failover_errors": {"gets": ["tko"], "updates": [], "deletes": ["timeout"]}}"#,
    );
    for (line, data, kind, goes_on) in [
        ("get k", "", ErrorKind::Ejected, true),
        ("get k", "", TIMEOUT, false),
        ("set k 0 0 1", "x", ErrorKind::Ejected, false),
        ("delete k", "", TIMEOUT, true),
        ("delete k", "", ErrorKind::Ejected, false),
    ] {
        bench.ask(line, data);
        let sent = bench.waiting()[0].to_owned();
        assert_eq!(bench.reply(&sent, error(kind)).is_none(), goes_on, "{line} {kind:?}");
        if goes_on {
            bench.reply(&sent.replacen('a', "b", 1), Reply::Miss);
        }
    }
    bench.done();
}

#[test]
fn failover_tries_are_bounded_but_ejected_destinations_do_not_count() {
    let mut bench = Bench::new(
        r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c", "PoolRoute|d"],
            "failover_policy": {"type": "InOrderPolicy", "max_tries": 2}}"#,
    );
    bench.get();
    assert_eq!(bench.reply("a get k", error(ErrorKind::Ejected)), None);
    assert_eq!(bench.reply("b get k", error(TIMEOUT)), None);
    assert!(bench.reply("c get k", error(TIMEOUT)).is_some());
    bench.done();
}

#[test]
fn failover_by_least_failures_asks_the_healthiest_next() {
    let mut bench = Bench::new(
        r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"],
            "failover_policy": {"type": "LeastFailuresPolicy", "max_tries": 3}}"#,
    );
    bench.get();
    bench.reply("a get k", error(TIMEOUT));
    bench.reply("b get k", error(TIMEOUT));
    bench.reply("c get k", Reply::Miss);
    bench.get();
    bench.reply("a get k", error(TIMEOUT)); // always first
    assert_eq!(bench.reply("c get k", Reply::Miss), Some(Reply::Miss));
    bench.done();
}

#[test]
fn failover_by_hash_visits_every_child_once_and_keys_differ() {
    let mut bench = Bench::new(
        r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c", "PoolRoute|d"],
            "failover_policy": {"type": "DeterministicOrderPolicy", "max_tries": 9}}"#,
    );
    let mut orders = std::collections::HashSet::new();
    for key in 0..30 {
        bench.ask(&format!("get k{key}"), "");
        let mut order = String::new();
        while let Some(sent) = bench.waiting().first().map(|&sent| sent.to_owned()) {
            order.push_str(&sent[..1]);
            bench.reply(&sent, error(TIMEOUT));
        }
        let mut sorted: Vec<char> = order.chars().collect();
        sorted.sort_unstable();
        assert_eq!((sorted.into_iter().collect::<String>().as_str(), &order[..1]), ("abcd", "a"));
        orders.insert(order);
    }
    assert!(orders.len() > 2, "{orders:?}");
    bench.done();
}

#[test]
fn failover_by_rendezvous_begins_where_the_key_belongs() {
    let mut bench = Bench::new(
        r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"],
            "failover_policy": {"type": "RendezvousPolicy", "tags": ["x", "y", "z"]}}"#,
    );
    let mut firsts = std::collections::HashSet::new();
    for key in 0..30 {
        bench.ask(&format!("get k{key}"), "");
        let sent = bench.waiting()[0].to_owned();
        firsts.insert(sent[..1].to_owned());
        assert!(bench.reply(&sent, Reply::Miss).is_some());
    }
    assert_eq!(firsts.len(), 3);
    bench.done();
}

#[test]
fn failover_stops_when_its_tokens_are_spent() {
    let mut bench = Bench::new(
        r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b"], "failover_limit": {"rate": 0.5, "burst": 1}}"#,
    );
    let mut went_on = Vec::new();
    for _ in 0..5 {
        bench.get();
        let answer = bench.reply("a get k", error(TIMEOUT));
        went_on.push(answer.is_none());
        if answer.is_none() {
            bench.reply("b get k", Reply::Miss);
        }
    }
    assert_eq!(went_on, [true, false, true, false, true]);
    bench.done();
}

#[test]
fn a_gutter_keeps_what_is_stored_for_a_short_time_only() {
    let mut bench = Bench::new(
        r#"{"type": "FailoverWithExptimeRoute", "normal": "PoolRoute|a", "failover": "PoolRoute|b", "failover_exptime": 60}"#,
    );
    for (own, gutter) in [("0", "60"), ("30", "30"), ("3600", "60"), ("-1", "-1")] {
        bench.ask(&format!("set k 0 {own} 1"), "x");
        assert_eq!(bench.reply(&format!("a set k {own} x"), error(TIMEOUT)), None);
        assert_eq!(bench.reply(&format!("b set k {gutter} x"), Reply::Stored), Some(Reply::Stored));
    }
    bench.get();
    bench.reply("a get k", error(TIMEOUT));
    assert_eq!(bench.reply("b get k", Reply::Miss), Some(Reply::Miss));
    bench.done();
}

#[test]
fn latest_sticks_to_one_child_a_host_and_fails_over() {
    let text = format!(
        "{{{POOLS}, \"route\": {{\"type\": \"LatestRoute\", \"failover_count\": 2, \"children\": [\"PoolRoute|a\", \"PoolRoute|b\", \"PoolRoute|c\", \"PoolRoute|d\"]}}}}"
    );
    let mut firsts = std::collections::HashSet::new();
    for host_id in 0..20 {
        let mut bench = Bench::with(&text, &Options { host_id, ..options() });
        bench.get();
        let first = bench.waiting()[0].to_owned();
        bench.reply(&first, Reply::Miss);
        bench.ask("get other", "");
        assert_eq!(bench.waiting()[0][..1], first[..1]);
        firsts.insert(first.clone());
        bench.reply(&first.replace(" k", " other"), error(TIMEOUT));
        let second = bench.waiting()[0].to_owned();
        assert_ne!(second[..1], first[..1]);
        assert!(bench.reply(&second, error(TIMEOUT)).is_some()); // only two of the four
        bench.done();
    }
    assert!(firsts.len() > 1);
}

#[test]
fn miss_failover_asks_on_until_a_hit_and_writes_to_the_first() {
    let route = r#"{"type": "MissFailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#;
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

#[test]
fn all_sync_answers_with_the_worst_reply() {
    let mut bench =
        Bench::new(r#"{"type": "AllSyncRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#);
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
fn operations_are_selected_by_name() {
    let mut bench = Bench::new(
        r#"{"type": "OperationSelectorRoute", "default_policy": "PoolRoute|a",
            "operation_policies": {"set": "PoolRoute|b", "delete": "PoolRoute|c", "gets": "PoolRoute|d"}}"#,
    );
    for (line, data, sent) in [
        ("get k", "", "a get k"),
        ("set k 0 0 1", "x", "b set k 0 x"),
        ("ms k 1", "x", "b meta-set k x"),
        ("add k 0 0 1", "x", "a add k 0 x"),
        ("delete k", "", "c delete k"),
        ("md k", "", "c meta-delete k"),
        ("gets k", "", "d gets k"),
        ("mg k c", "", "d meta-gets k c"),
    ] {
        bench.ask(line, data);
        bench.reply(sent, Reply::Miss);
    }
    bench.done();
}

#[test]
fn operations_are_selected_by_class() {
    let mut bench = Bench::new(
        r#"{"type": "RoutingGroupRoute", "default_policy": "PoolRoute|a",
            "routing_group_policies": {"update_like": "PoolRoute|b", "arithmetic_like": "PoolRoute|c"}}"#,
    );
    for (line, data, sent) in [
        ("get k", "", "a get k"),
        ("cas k 0 0 1 5", "x", "b cas k 0 x"),
        ("decr k 1", "", "c decr k"),
        ("touch k 1", "", "a touch k 1"),
    ] {
        bench.ask(line, data);
        bench.reply(sent, Reply::Miss);
    }
    bench.done();
}

#[test]
fn the_longest_key_prefix_wins() {
    let mut bench = Bench::new(
        r#"{"type": "PrefixSelectorRoute", "policies": {"a": "PoolRoute|a", "ab": "PoolRoute|b"}, "wildcard": "PoolRoute|c"}"#,
    );
    for (key, host) in [("a", "a"), ("ax", "a"), ("ab", "b"), ("abc", "b"), ("b", "c")] {
        bench.ask(&format!("get {key}"), "");
        bench.reply(&format!("{host} get {key}"), Reply::Miss);
    }
    bench.done();
}

#[test]
fn a_routing_prefix_chooses_the_route_and_is_not_sent() {
    let text = format!(
        r#"{{{POOLS}, "routes": {{"/././": "PoolRoute|a", "/r/x/": "PoolRoute|b", "/r/y/": "PoolRoute|c", "/s/y/": "PoolRoute|d"}}}}"#
    );
    let mut bench = Bench::with(&text, &options());
    for (key, host) in [("k", "a"), ("/././k", "a"), ("/r/x/k", "b"), ("/s/y/k", "d")] {
        bench.ask(&format!("get {key}"), "");
        assert_eq!(bench.reply(&format!("{host} get k"), Reply::Miss), Some(Reply::Miss));
    }
    let unknown = bench.ask("get /no/where/k", "");
    assert!(
        matches!(unknown, Some(Reply::Error { ref line, .. }) if line == "SERVER_ERROR RootRoute: No rh found")
    );
    assert!(matches!(bench.ask("get /r/x/", ""), Some(Reply::Error { kind: ErrorKind::BadKey, .. })));
    bench.ask("get /one", ""); // one part alone is a key like any other
    bench.reply("a get /one", Reply::Miss);
    for (key, hosts, answers) in
        [("/*/*/k", "abcd", "a"), ("/r/*/k", "bc", "b"), ("/*/y/k", "cd", "c"), ("/r/*x/k", "b", "b")]
    {
        bench.ask(&format!("delete {key}"), "");
        let mut sent: Vec<String> = bench.waiting().into_iter().map(str::to_owned).collect();
        sent.sort();
        let expected: Vec<String> = hosts.chars().map(|host| format!("{host} delete k")).collect();
        assert_eq!(sent, expected, "{key}");
        for sent in sent.iter().rev() {
            assert_eq!(
                bench.reply(sent, Reply::Deleted).is_some(),
                sent.starts_with(answers),
                "{key} {sent}"
            );
        }
    }
    bench.done();
    let default = Options { send_invalid_route_to_default: true, ..options() };
    let mut bench = Bench::with(&text, &default);
    bench.ask("get /no/where/k", "");
    bench.reply("a get k", Reply::Miss);
    bench.done();
}

#[test]
fn a_pool_may_keep_routing_prefixes_and_meta_replies_show_the_clients_key() {
    let text =
        r#"{"pools": {"a": {"servers": ["a:1"], "keep_routing_prefix": true}}, "route": "PoolRoute|a"}"#;
    let mut bench = Bench::with(text, &options());
    bench.ask("get /././k", "");
    bench.reply("a get /././k", Reply::Miss);
    bench.ask("get k", "");
    bench.reply("a get k", Reply::Miss);
    bench.done();
    let mut bench = Bench::new("\"PoolRoute|a\"");
    bench.ask("mg /././k k v", "");
    assert_eq!(bench.reply("a meta-get k k v", meta("VA 1 kk")), Some(meta("VA 1 k/././k")));
    bench.ask("me /././k", "");
    assert_eq!(bench.reply("a meta-metaget k", meta("ME k exp=-1")), Some(meta("ME /././k exp=-1")));
    bench.done();
}

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
    for (line, first) in [("gets k", "a gets k"), ("gat 7 k", "a gat k 7"), ("mg k v c", "a meta-gets k v c")]
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
fn keys_migrate_each_at_its_moment_and_deletes_go_to_both() {
    let mut bench = Bench::new(
        r#"{"type": "MigrateRoute", "from": "PoolRoute|a", "to": "PoolRoute|b", "start_time": 1000, "interval": 100}"#,
    );
    let moved = |bench: &mut Bench, now_s: u64| {
        bench.now_ms = now_s * 1000;
        let mut moved = 0;
        for key in 0..200 {
            bench.ask(&format!("get k{key}"), "");
            let sent = bench.waiting()[0].to_owned();
            moved += usize::from(sent.starts_with('b'));
            bench.reply(&sent, Reply::Miss);
        }
        moved
    };
    assert_eq!(moved(&mut bench, 999), 0);
    let half = moved(&mut bench, 1050);
    assert!((60..140).contains(&half), "{half}");
    assert_eq!(moved(&mut bench, 1100), 200);
    for (now_s, hosts) in [(999, 1), (1000, 2), (1199, 2), (1200, 1)] {
        bench.now_ms = now_s * 1000;
        bench.ask("delete k", "");
        assert_eq!(bench.waiting().len(), hosts, "{now_s}");
        while let Some(sent) = bench.waiting().first().map(|&sent| sent.to_owned()) {
            bench.reply(&sent, Reply::Deleted);
        }
    }
    bench.done();
}

#[test]
fn shadows_get_copies_of_their_share_and_no_say() {
    let mut bench = Bench::new(
        r#"{"type": "PoolRoute", "pool": "a", "shadows": [{"target": "PoolRoute|b", "key_fraction_range": [0, 0.5]},
            {"target": "PoolRoute|c", "keys_to_shadow": ["k7"]}, {"target": "PoolRoute|d", "requests_fraction": 0}]}"#,
    );
    let (mut half, mut named) = (0, 0);
    for key in 0..200 {
        bench.ask(&format!("get k{key}"), "");
        assert_eq!(bench.reply(&format!("a get k{key}"), value("v")), Some(value("v")));
        for sent in bench.waiting().into_iter().map(str::to_owned).collect::<Vec<_>>() {
            half += usize::from(sent.starts_with('b'));
            named += usize::from(sent.starts_with("c get k7"));
            assert!(!sent.starts_with('d'));
            assert_eq!(bench.reply(&sent, error(TIMEOUT)), None);
        }
    }
    assert!((60..140).contains(&half), "{half}");
    assert_eq!(named, 1);
    bench.done();
}

#[test]
fn requests_above_a_rate_are_refused_until_time_passes() {
    let mut bench = Bench::new(
        r#"{"type": "RateLimitRoute", "target": "NullRoute", "rates": {"gets_rate": 10, "gets_burst": 2}}"#,
    );
    let passed =
        |bench: &mut Bench, asked: usize| (0..asked).filter(|_| bench.get() == Some(Reply::Miss)).count();
    assert_eq!(passed(&mut bench, 5), 2);
    bench.now_ms += 100;
    assert_eq!(passed(&mut bench, 5), 1);
    bench.now_ms += 60_000;
    assert_eq!(passed(&mut bench, 5), 2);
    assert_eq!(bench.ask("set k 0 0 1", "x"), Some(Reply::NotStored)); // no limit for these
}

#[test]
fn requests_above_the_outstanding_limit_wait_in_order() {
    let mut bench = Bench::new(r#"{"type": "PoolRoute", "pool": "a", "max_outstanding": 2}"#);
    for key in 0..5 {
        assert_eq!(bench.ask(&format!("get k{key}"), ""), None);
    }
    assert_eq!(bench.waiting(), ["a get k0", "a get k1"]);
    bench.reply("a get k1", Reply::Miss);
    assert_eq!(bench.waiting(), ["a get k0", "a get k2"]);
    bench.reply("a get k0", error(TIMEOUT));
    bench.reply("a get k2", Reply::Miss);
    assert_eq!(bench.waiting(), ["a get k3", "a get k4"]);
    bench.reply("a get k3", Reply::Miss);
    bench.reply("a get k4", Reply::Miss);
    bench.done();
}

#[test]
fn a_split_key_has_a_copy_for_each_host_and_is_deleted_in_all() {
    let text = format!(
        "{{{POOLS}, \"route\": {{\"type\": \"KeySplitRoute\", \"destination\": \"PoolRoute|a\", \"replicas\": 3, \"all_sync\": true, \"first_hit\": true}}}}"
    );
    for (host_id, own) in [(0, "k"), (1, "k::1"), (5, "k::2")] {
        let mut bench = Bench::with(&text, &Options { host_id, ..options() });
        bench.get();
        assert_eq!(bench.reply(&format!("a get {own}"), value("v")), Some(value("v")));
        for (line, data, sent) in [("delete k", "", "a delete K"), ("set k 0 0 1", "x", "a set K 0 x")] {
            bench.ask(line, data);
            for key in ["k", "k::1", "k::2"] {
                bench.reply(&sent.replace('K', key), Reply::Stored);
            }
        }
        bench.done();
    }
    let mut bench = Bench::with(&text, &Options { host_id: 1, ..options() });
    bench.get();
    assert_eq!(bench.reply("a get k::1", Reply::Miss), None);
    assert_eq!(bench.reply("a get k", value("v")), Some(value("v")));
    let longest = "k".repeat(250);
    assert!(matches!(
        bench.ask(&format!("get {longest}"), ""),
        Some(Reply::Error { kind: ErrorKind::BadKey, .. })
    ));
    bench.done();
}

#[test]
fn keys_are_modified_and_checked_again() {
    for (route, asked, sent) in [
        (r#""ensure_key_prefix": "p:""#, "k", "p:k"),
        (r#""ensure_key_prefix": "p:""#, "p:k", "p:k"),
        (r#""ensure_key_prefix": "p:", "replace_key_prefix": "q:""#, "q:k", "p:k"),
        (r#""set_key_suffix": ":s""#, "k", "k:s"),
    ] {
        let mut bench =
            Bench::new(&format!(r#"{{"type": "ModifyKeyRoute", "target": "PoolRoute|a", {route}}}"#));
        bench.ask(&format!("get {asked}"), "");
        bench.reply(&format!("a get {sent}"), Reply::Miss);
        bench.ask(&format!("mg {asked} k"), "");
        let line = format!("HD k{sent}");
        let answer = bench.reply(&format!("a meta-get {sent} k"), meta(&line));
        assert_eq!(answer, Some(meta(&format!("HD k{asked}"))));
        bench.done();
    }
    let mut bench =
        Bench::new(r#"{"type": "ModifyKeyRoute", "target": "PoolRoute|a", "set_key_suffix": "ss"}"#);
    let answer = bench.ask(&format!("get {}", "k".repeat(249)), "");
    assert!(
        matches!(answer, Some(Reply::Error { kind: ErrorKind::BadKey, ref line }) if line == "CLIENT_ERROR bad key")
    );
}

#[test]
fn exptimes_are_set_or_shortened_but_not_of_deletes() {
    for (action, own, sent) in [("set", 100, 7), ("set", 0, 7), ("min", 100, 7), ("min", 3, 3), ("min", 0, 7)]
    {
        let mut bench = Bench::new(&format!(
            r#"{{"type": "ModifyExptimeRoute", "target": "PoolRoute|a", "exptime": 7, "action": "{action}"}}"#
        ));
        bench.ask(&format!("set k 0 {own} 1"), "x");
        bench.reply(&format!("a set k {sent} x"), Reply::Stored);
        bench.ask("delete k", "");
        bench.reply("a delete k", Reply::Deleted);
        bench.done();
    }
}

#[test]
fn a_failed_delete_is_kept_for_later_and_answered_not_found() {
    let text = format!("{{{POOLS}, \"route\": \"PoolRoute|two\"}}");
    let mut bench = Bench::with(&text, &Options::default());
    let refused = || error(ErrorKind::Local);
    for (line, reply, kept, answer) in [
        ("delete k", Reply::Deleted, None, Reply::Deleted),
        ("delete k", error(TIMEOUT), Some(Reply::NotFound), Reply::NotFound),
        ("md k O1", error(ErrorKind::Ejected), Some(Reply::NotFound), meta("NF O1")),
        ("delete k", error(TIMEOUT), Some(refused()), error(TIMEOUT)),
        ("delete k", refused(), None, refused()),
        ("delete k", error(ErrorKind::Client), None, error(ErrorKind::Client)),
    ] {
        bench.ask(line, "");
        let sent = bench.waiting()[0].to_owned();
        let answered = bench.reply(&sent, reply);
        let answered = match kept {
            Some(kept) => {
                assert_eq!(answered, None, "{line}");
                let sent = bench.waiting()[0].to_owned();
                assert!(sent.starts_with("spool "), "{sent}");
                bench.reply(&sent, kept)
            }
            None => answered,
        };
        assert_eq!(answered, Some(answer), "{line}");
        bench.done();
    }
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
            bench.routes.tree().softening_of(&parse(&line, &LineLimits::default())).apply(error(TIMEOUT)),
            answer
        );
    }
}

#[test]
fn past_its_bounds_an_execution_answers_busy_and_recovers() {
    let mut bench = Bench::new("\"FailoverRoute|Pool|two\"");
    bench.execution = Execution::new(&Limits { calls_max: 2, frames_max: 10, calls_with_shadows_max: 1 }, 1);
    bench.get();
    bench.get();
    let busy = bench.get();
    assert!(matches!(busy, Some(Reply::Error { kind: ErrorKind::Busy, .. })), "{busy:?}");
    bench.reply("a get k", Reply::Miss);
    bench.reply("a get k", Reply::Miss);
    bench.done();
    bench.execution = Execution::new(&Limits { calls_max: 10, frames_max: 1, calls_with_shadows_max: 1 }, 1);
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
    let config = Config::parse("test", text, &options(), &|_| Err(String::new())).unwrap();
    let hosts = |resolved: &ResolvedPools| -> Vec<String> {
        let tree = Tree::compile(&config, resolved).unwrap();
        tree.destinations().iter().map(|destination| destination.server.address.to_string()).collect()
    };
    assert_eq!(hosts(&ResolvedPools::new()), ["name:1"]);
    let server = |host: &str| Server {
        address: super::super::config::Address::Tcp { host: host.into(), port: 1 },
        tls: false,
        reply_timeout_ms: 1000,
        connect_timeout_ms: 1000,
    };
    let resolved = ResolvedPools::from([("a".to_owned(), vec![server("10.0.0.1"), server("10.0.0.2")])]);
    assert_eq!(hosts(&resolved), ["10.0.0.1:1", "10.0.0.2:1"]);
    let empty = Tree::compile(&config, &ResolvedPools::from([("a".to_owned(), Vec::new())])).unwrap();
    assert!(empty.destinations().is_empty());
}

/// Random trees, requests and replies in random order: every request is answered once, and nothing is left over.
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
        let limits = Limits { calls_max: 40, frames_max: 30, calls_with_shadows_max: 20 };
        let mut execution = Execution::new(&limits, random.u64(..));
        let (mut answered, mut calls, mut actions) = (vec![0; 40], Vec::new(), Vec::new());
        let mut asked = 0;
        while asked < answered.len() || !calls.is_empty() {
            if asked < answered.len() && random.bool() {
                let line = [
                    "get k",
                    "gets k",
                    "set k 0 5 1",
                    "delete k",
                    "incr k 1",
                    "touch k 5",
                    "mg k v k",
                    "md k",
                    "ms k 1",
                ];
                let line = format!("{}\r\n", random.choice(line).unwrap());
                let line_limits = LineLimits::default();
                let request =
                    OwnedRequest::new(&parse(&line, &line_limits), Bytes::from_static(b"x")).unwrap();
                execution.begin(&routes, request, asked as u64, 1_000_000, &mut actions);
                asked += 1;
            } else if !calls.is_empty() {
                let call = calls.swap_remove(random.usize(..calls.len()));
                let replies = [
                    value("v"),
                    Reply::Miss,
                    Reply::Stored,
                    Reply::NotFound,
                    error(TIMEOUT),
                    error(ErrorKind::Ejected),
                    meta("EN"),
                ];
                execution.replied(call, random.choice(replies).unwrap(), 1_000_000, &mut actions);
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
    ];
    match random.u8(..10) {
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
        6 => format!(r#"{{"type": "ModifyKeyRoute", "target": {a}, "set_key_suffix": "s"}}"#),
        _ => format!(r#"{{"type": "{}", "children": [{a}, {b}, {c}]}}"#, random.choice(children).unwrap()),
    }
}
