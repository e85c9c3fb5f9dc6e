//! Every command on a key that moves, step by step, against servers by hand.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corecached_protocol::{Limits as LineLimits, Parsed, Parser, Reply};
use corecached_testkit::memcached::{Item, Memcached};

use crate::config::{Config, Options, ResolvedPools, Rings};
use crate::request::OwnedRequest;
use crate::route::{Action, Execution, ExecutionLimits, ResizeCounters, Routes, Tree};

const GRACE_MS: u64 = 1000;
const WINDOW_MS: u64 = 10_000;
const START_MS: u64 = 1_700_000_000_000;
/// In the grace of the change, in the window, in what follows it, and after that.
const GRACE: u64 = START_MS + 500;
const WINDOW: u64 = START_MS + 2000;
const SETTLING: u64 = START_MS + WINDOW_MS + 500;
const OVER: u64 = START_MS + WINDOW_MS + 1000;

/// A pool that goes from server 0 to server 1, and what every server was asked.
struct Bench {
    config: Config,
    rings: Rings,
    routes: Rc<Routes>,
    execution: Execution,
    servers: [Memcached; 3],
    now_ms: u64,
    asked: Vec<String>,
}

fn config(server: usize) -> Config {
    let text = format!(
        "{{\"pools\": {{\"a\": {{\"servers\": [\"s{server}:1\"], \"warm_resize\": {{\"window_ms\": {WINDOW_MS}, \
         \"grace_ms\": {GRACE_MS}}}}}}}, \"route\": \"PoolRoute|a\"}}"
    );
    let options = Options { spool_deletes: false, miss_on_get_errors: false, ..Options::default() };
    Config::parse("test", &text, &options, &|_| Err("no files".into()))
        .unwrap_or_else(|error| panic!("{error}"))
}

impl Bench {
    fn at(now_ms: u64) -> Self {
        let mut rings = Rings::default();
        rings.observe(&config(0), &ResolvedPools::new(), START_MS - 1);
        let mut bench = Self {
            config: config(0),
            routes: Rc::new(Routes::new(Arc::new(
                Tree::compile_over(&config(0), &ResolvedPools::new(), &rings).unwrap(),
            ))),
            rings,
            execution: Execution::new(&ExecutionLimits::default(), 1),
            servers: Default::default(),
            now_ms: START_MS,
            asked: Vec::new(),
        };
        bench.change_to(1);
        bench.pass_to(now_ms);
        bench
    }

    fn change_to(&mut self, server: usize) {
        self.config = config(server);
        self.observe();
    }

    fn pass_to(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.observe();
    }

    fn observe(&mut self) {
        if !self.rings.observe(&self.config, &ResolvedPools::new(), self.now_ms) {
            return;
        }
        let tree = Tree::compile_over(&self.config, &ResolvedPools::new(), &self.rings).unwrap();
        let place = |address: String| address[1..2].parse::<u32>().unwrap();
        let places = tree.destinations().iter().map(|one| place(one.server.address.to_string())).collect();
        self.routes = Rc::new(Routes::with_places(Arc::new(tree), places));
    }

    fn put(&mut self, server: usize, value: &'static str) {
        let cas = self.servers[server].cas + 100;
        self.servers[server].cas = cas;
        let item = Item { value: value.into(), client_flags: 7, cas, ..Item::default() };
        self.servers[server].items.insert("k".into(), item);
    }

    fn request(line: &str, data: &str) -> OwnedRequest {
        let text = format!("{line}\r\n");
        let limits = LineLimits::default();
        let Ok(Parsed::Complete { value, .. }) = Parser::new().parse(text.as_bytes(), &limits) else {
            panic!("{line}");
        };
        OwnedRequest::new(&value, Bytes::copy_from_slice(data.as_bytes())).unwrap()
    }

    /// The client's answer; all that follows from it is done too.
    fn ask(&mut self, line: &str, data: &str) -> Reply {
        self.ask_with(line, data, |_, _, _| {})
    }

    /// The same, and `before` may do something each time before a server is asked for the n-th time.
    fn ask_with(
        &mut self,
        line: &str,
        data: &str,
        mut before: impl FnMut(usize, &OwnedRequest, &mut [Memcached; 3]),
    ) -> Reply {
        self.asked.clear();
        let mut actions = Vec::new();
        let request = Self::request(line, data);
        self.execution.begin(&self.routes, request, 1, self.now_ms, &mut actions);
        let mut answer = None;
        let mut sent = std::collections::VecDeque::new();
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Send { call, place, request, .. } => sent.push_back((call, place, request)),
                    Action::Answer { reply, .. } => {
                        assert_eq!(answer, None, "two answers");
                        answer = Some(reply);
                    }
                    Action::Keep { .. } => panic!("deletes are not kept here"),
                }
            }
            let Some((call, place, request)) = sent.pop_front() else { break };
            before(self.asked.len(), &request, &mut self.servers);
            let operation = format!("{:?}", request.operation()).to_lowercase();
            self.asked.push(format!("{place} {operation}"));
            let reply = self.servers[place as usize].execute(&request.command(), request.data(), self.now_ms);
            self.execution.replied(call, reply, self.now_ms, &mut actions);
        }
        assert_eq!((self.execution.calls(), self.execution.frames()), (0, 0), "{line}");
        answer.unwrap_or_else(|| panic!("no answer to {line}"))
    }

    fn held(&self, server: usize) -> Option<&str> {
        let item = self.servers[server].items.get(&b"k"[..])?;
        Some(std::str::from_utf8(&item.value).unwrap())
    }

    fn counters(&self) -> [u64; 5] {
        let ResizeCounters { tried, found, copied, lost, unreached } = *self.execution.resize_counters();
        [tried, found, copied, lost, unreached]
    }
}

fn value(text: &'static str) -> Reply {
    Reply::Value { client_flags: 7, cas_unique: None, value: text.into() }
}

#[test]
fn a_miss_is_answered_by_the_old_server_and_copied() {
    let mut bench = Bench::at(WINDOW);
    bench.put(0, "v");
    assert_eq!(bench.ask("get k", ""), value("v"));
    assert_eq!(bench.asked, ["1 gets", "0 gets", "1 cas"]);
    let item = &bench.servers[1].items[&b"k"[..]];
    assert_eq!((&item.value[..], item.client_flags, item.token_sent), (&b"v"[..], 7, false));
    assert_eq!(bench.ask("get k", ""), value("v"));
    assert_eq!(bench.asked, ["1 gets"]);
    assert_eq!(bench.counters(), [1, 1, 1, 0, 0]);
}

#[test]
fn a_copy_lives_as_long_as_what_it_was_made_of() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    for left_ms in [1000, 30_000, 40 * DAY_MS] {
        let mut bench = Bench::at(WINDOW);
        bench.put(0, "v");
        bench.servers[0].items.get_mut(&b"k"[..]).unwrap().expires_at_ms = Some(WINDOW + left_ms);
        assert_eq!(bench.ask("get k", ""), value("v"));
        let expires_at_ms = bench.servers[1].items[&b"k"[..]].expires_at_ms.unwrap();
        assert!(expires_at_ms.abs_diff(WINDOW + left_ms) < 1000, "{left_ms}: {expires_at_ms}");
    }
}

#[test]
fn what_dies_within_the_second_is_shown_and_not_copied() {
    let mut bench = Bench::at(WINDOW);
    bench.put(0, "v");
    bench.servers[0].items.get_mut(&b"k"[..]).unwrap().expires_at_ms = Some(WINDOW + 900);
    assert_eq!(bench.ask("get k", ""), value("v"));
    assert_eq!((bench.held(1), bench.counters()), (None, [1, 1, 0, 1, 0]));
}

#[test]
fn a_key_that_is_nowhere_leaves_nothing_behind() {
    let mut bench = Bench::at(WINDOW);
    assert_eq!(bench.ask("get k", ""), Reply::Miss);
    assert_eq!(bench.asked, ["1 gets", "0 gets", "1 delete"]);
    assert_eq!((bench.held(1), bench.counters()), (None, [1, 0, 0, 0, 0]));
}

#[test]
fn in_the_grace_the_old_server_is_used_and_the_new_one_cleared() {
    let mut bench = Bench::at(GRACE);
    bench.put(0, "v");
    bench.put(1, "left over");
    assert_eq!(bench.ask("get k", ""), value("v"));
    assert_eq!(bench.asked, ["0 get"]);
    assert_eq!(bench.ask("set k 0 0 1", "w"), Reply::Stored);
    assert_eq!(bench.asked, ["0 set", "1 delete"]);
    assert_eq!((bench.held(0), bench.held(1)), (Some("w"), None));
    assert_eq!(bench.ask("delete k", ""), Reply::Deleted);
    assert_eq!(bench.asked, ["0 delete", "1 delete"]);
}

#[test]
fn in_the_grace_an_old_server_that_is_gone_is_done_without() {
    let mut bench = Bench::at(GRACE);
    bench.servers[0].dead = true;
    assert_eq!(bench.ask("set k 7 0 1", "v"), Reply::Stored);
    assert_eq!(bench.ask("get k", ""), value("v"));
    assert_eq!(bench.asked, ["0 get", "1 gets"]);
    assert_eq!(bench.ask("delete k", ""), Reply::Deleted);
    assert_eq!(bench.held(1), None);
}

#[test]
fn an_old_server_that_is_gone_is_a_miss_and_never_an_error() {
    let mut bench = Bench::at(WINDOW);
    bench.servers[0].dead = true;
    assert_eq!(bench.ask("get k", ""), Reply::Miss);
    assert_eq!(bench.ask("delete k", ""), Reply::NotFound);
    assert_eq!(bench.ask("set k 7 0 1", "v"), Reply::Stored);
    assert_eq!(bench.ask("get k", ""), value("v"));
    assert_eq!(bench.counters(), [1, 0, 0, 0, 2]);
}

#[test]
fn after_the_window_nothing_is_fetched_and_deletes_still_go_to_both() {
    let mut bench = Bench::at(SETTLING);
    bench.put(0, "old");
    assert_eq!(bench.ask("get k", ""), Reply::Miss);
    assert_eq!(bench.asked, ["1 gets"]);
    assert_eq!(bench.ask("set k 0 0 1", "v"), Reply::Stored);
    assert_eq!((bench.held(0), bench.held(1)), (None, Some("v")));
    let mut bench = Bench::at(OVER);
    bench.put(0, "old");
    assert_eq!(bench.ask("delete k", ""), Reply::NotFound);
    assert_eq!((&bench.asked[..], bench.held(0)), (&["1 delete".to_owned()][..], Some("old")));
    assert!(bench.routes.direct(b"k", &Bench::request("get k", "").command()).is_some());
}

#[test]
fn writes_and_deletes_clear_the_old_server_first() {
    for (line, data, reply, held) in [
        ("set k 0 0 1", "v", Reply::Stored, Some("v")),
        ("ms k 1", "v", Reply::Meta { line: "HD".into(), value: None }, Some("v")),
        ("delete k", "", Reply::Deleted, None),
        ("md k O7", "", Reply::Meta { line: "HD O7".into(), value: None }, None),
    ] {
        let mut bench = Bench::at(WINDOW);
        bench.put(0, "old");
        assert_eq!(bench.ask(line, data), reply, "{line}");
        assert_eq!((bench.held(0), bench.held(1)), (None, held), "{line}");
        assert!(
            bench.asked[0].starts_with("0 delete") && bench.asked.len() == 2,
            "{line}: {:?}",
            bench.asked
        );
    }
}

#[test]
fn what_changes_a_value_finds_it_on_the_old_server() {
    let meta = |line: &'static str, value: Option<&'static str>| Reply::Meta {
        line: line.into(),
        value: value.map(Into::into),
    };
    for (line, data, reply, held) in [
        ("append k 0 0 1", "0", Reply::Stored, "120"),
        ("prepend k 0 0 1", "9", Reply::Stored, "912"),
        ("replace k 0 0 1", "x", Reply::Stored, "x"),
        ("incr k 5", "", Reply::Number(17), "17"),
        ("decr k 2", "", Reply::Number(10), "10"),
        ("touch k 60", "", Reply::Touched, "12"),
        ("gat 60 k", "", value("12"), "12"),
        ("add k 0 0 1", "x", Reply::NotStored, "12"),
        ("cas k 0 0 1 100", "x", Reply::Exists, "12"),
        ("ms k 1 MA", "0", meta("HD", None), "120"),
        ("ms k 1 ME", "x", meta("NS", None), "12"),
        ("ms k 1 C100", "x", meta("EX", None), "12"),
        ("ma k v D5", "", meta("VA 2", Some("17")), "17"),
        ("mg k v f", "", meta("VA 2 f7", Some("12")), "12"),
        ("mg k T60 v", "", meta("VA 2", Some("12")), "12"),
    ] {
        let mut bench = Bench::at(WINDOW);
        bench.put(0, "12");
        assert_eq!(bench.ask(line, data), reply, "{line}");
        assert_eq!(bench.held(1), Some(held), "{line}");
        let reads = line.starts_with("mg") || line.starts_with("add") || line.contains("ME");
        assert_eq!(bench.held(0), reads.then_some("12"), "{line}");
        if line.contains("60") {
            assert_eq!(bench.servers[1].items[&b"k"[..]].expires_at_ms, Some(WINDOW + 60_000), "{line}");
        }
    }
}

#[test]
fn what_changes_a_value_that_is_nowhere_says_so_and_leaves_nothing() {
    for (line, reply) in [
        ("append k 0 0 1", Reply::NotStored),
        ("replace k 0 0 1", Reply::NotStored),
        ("incr k 5", Reply::NotFound),
        ("touch k 60", Reply::NotFound),
        ("gat 60 k", Reply::Miss),
        ("cas k 0 0 1 100", Reply::NotFound),
        ("ma k v", Reply::Meta { line: "NF".into(), value: None }),
        ("mg k v", Reply::Meta { line: "EN".into(), value: None }),
    ] {
        let mut bench = Bench::at(WINDOW);
        let data = if line.ends_with(" 1") && !line.starts_with("incr") { "x" } else { "" };
        assert_eq!(bench.ask(line, data), reply, "{line}");
        assert_eq!(bench.held(1), None, "{line}");
    }
    let mut bench = Bench::at(WINDOW);
    assert_eq!(bench.ask("add k 7 0 1", "x"), Reply::Stored);
    assert_eq!(bench.ask("get k", ""), value("x"));
}

#[test]
fn gets_shows_a_cas_unique_that_the_new_server_takes() {
    let mut bench = Bench::at(WINDOW);
    bench.put(0, "v");
    let Reply::Value { cas_unique: Some(cas), .. } = bench.ask("gets k", "") else { panic!() };
    assert_eq!(bench.ask(&format!("cas k 0 0 1 {cas}"), "w"), Reply::Stored);
    assert_eq!((bench.held(0), bench.held(1)), (None, Some("w")));
}

#[test]
fn a_delete_between_the_old_value_and_its_copy_wins() {
    for line in ["get k", "gets k"] {
        let mut bench = Bench::at(WINDOW);
        bench.put(0, "old");
        let reply = bench.ask_with(line, "", |at, _, servers| {
            if at == 2 {
                servers[0].items.clear(); // as another proxy does
                servers[1].items.clear();
            }
        });
        // It was asked before the delete was done.
        assert!(matches!(reply, Reply::Value { .. } | Reply::Miss), "{reply:?}");
        assert_eq!((bench.held(1), bench.counters()[3]), (None, 1), "{line}");
        assert_eq!(bench.ask("get k", ""), Reply::Miss);
    }
}

#[test]
fn a_lease_of_another_proxy_is_no_value_and_no_place_for_one() {
    let lease = |bench: &mut Bench| {
        let request = Bench::request("mg k N2", "");
        bench.servers[1].execute(&request.command(), request.data(), WINDOW);
    };
    let mut bench = Bench::at(WINDOW);
    lease(&mut bench);
    assert_eq!(bench.ask("get k", ""), Reply::Miss);
    assert_eq!(bench.ask("mg k v", ""), Reply::Meta { line: "EN".into(), value: None });
    assert_eq!(bench.ask("append k 0 0 1", "x"), Reply::NotStored);
    assert_eq!(bench.ask("touch k 9", ""), Reply::NotFound);
    assert_eq!(bench.ask("add k 0 0 1", "x"), Reply::NotStored);
    bench.put(0, "old");
    assert_eq!(bench.ask("get k", ""), value("old"));
    assert_eq!(bench.counters()[2], 0, "only who has the lease copies");
    // Touched by a client's own command it would live on: it is taken away.
    bench.ask("mg k T100 v", "");
    assert_ne!(bench.held(1), Some(""), "{:?}", bench.asked);
}

#[test]
fn what_was_declared_stale_is_not_fetched() {
    let mut bench = Bench::at(WINDOW);
    bench.put(0, "old");
    bench.servers[0].items.get_mut(&b"k"[..]).unwrap().stale = true;
    assert_eq!(bench.ask("get k", ""), Reply::Miss);
}

#[test]
fn a_value_that_the_new_server_refuses_is_shown_all_the_same() {
    let mut bench = Bench::at(WINDOW);
    bench.put(0, "v");
    let reply = bench.ask_with("get k", "", |at, _, servers| servers[1].dead = at == 2);
    assert_eq!((reply, bench.counters()), (value("v"), [1, 1, 0, 1, 0]));
}

#[test]
fn of_several_changes_the_newest_server_that_has_the_key_answers() {
    let mut bench = Bench::at(WINDOW);
    bench.put(0, "v");
    bench.change_to(2);
    // Held by none of the new: not copied while a ring is not yet in use.
    assert_eq!(bench.ask("get k", ""), value("v"));
    assert_eq!(bench.asked, ["1 gets", "0 gets"]);
    bench.pass_to(WINDOW + GRACE_MS);
    assert_eq!(bench.ask("get k", ""), value("v"));
    assert_eq!(bench.asked, ["2 gets", "1 gets", "0 gets", "2 cas"]);
    assert_eq!(bench.ask("delete k", ""), Reply::Deleted);
    assert_eq!((bench.held(0), bench.held(1), bench.held(2)), (None, None, None));
}

#[test]
fn a_change_in_the_grace_of_another_waits_for_its_end() {
    let mut bench = Bench::at(GRACE);
    bench.change_to(2);
    assert_eq!(bench.rings.for_pool("a").unwrap().len(), 2);
    bench.pass_to(START_MS + GRACE_MS);
    assert_eq!(bench.rings.for_pool("a").unwrap().len(), 3);
    bench.put(0, "v");
    assert_eq!(bench.ask("set k 0 0 1", "w"), Reply::Stored);
    assert_eq!(bench.asked, ["0 delete", "1 set", "2 delete"]);
}

#[test]
fn of_more_changes_than_are_kept_the_oldest_is_forgotten() {
    let mut bench = Bench::at(START_MS);
    for change in 1..8 {
        bench.pass_to(START_MS + change * GRACE_MS);
        bench.change_to((change % 2) as usize * 2);
    }
    assert_eq!(bench.rings.for_pool("a").unwrap().len(), crate::config::EARLIER_MAX + 1);
}

#[test]
fn keys_that_do_not_move_take_the_short_way() {
    let text = |servers: &str| {
        format!(
            "{{\"pools\": {{\"a\": {{\"servers\": [{servers}], \"warm_resize\": {{\"window_ms\": 9000, \
             \"grace_ms\": 1000}}}}}}, \"route\": \"PoolRoute|a\"}}"
        )
    };
    let parse =
        |text: String| Config::parse("test", &text, &Options::default(), &|_| Err("".into())).unwrap();
    let mut rings = Rings::default();
    rings.observe(&parse(text("\"s0:1\", \"s1:1\", \"s2:1\"")), &ResolvedPools::new(), 0);
    let config = parse(text("\"s0:1\", \"s1:1\", \"s2:1\", \"s3:1\""));
    rings.observe(&config, &ResolvedPools::new(), 10);
    let tree = Tree::compile_over(&config, &ResolvedPools::new(), &rings).unwrap();
    let direct = |key: u32| {
        let line = format!("get k{key}");
        tree.direct(format!("k{key}").as_bytes(), &Bench::request(&line, "").command()).is_some()
    };
    let stay = (0..1000).filter(|&key| direct(key)).count();
    assert!((650..850).contains(&stay), "{stay} of 1000 stay");
}

#[test]
fn requests_on_a_key_that_is_being_changed_wait_in_their_order() {
    let mut bench = Bench::at(WINDOW);
    bench.put(0, "1");
    let mut actions = Vec::new();
    for (ticket, line) in
        ["append k 0 0 1", "get k", "set k 7 0 1", "get k", "delete k", "get k"].iter().enumerate()
    {
        let data = if line.contains("0 1") { "2" } else { "" };
        let request = Bench::request(line, data);
        bench.execution.begin(&bench.routes, request, ticket as u64, WINDOW, &mut actions);
    }
    let mut answers = Vec::new();
    while !actions.is_empty() {
        for action in std::mem::take(&mut actions) {
            match action {
                Action::Send { call, place, request, .. } => {
                    let reply =
                        bench.servers[place as usize].execute(&request.command(), request.data(), WINDOW);
                    bench.execution.replied(call, reply, WINDOW, &mut actions);
                }
                Action::Answer { ticket, reply } => answers.push((ticket, reply)),
                Action::Keep { .. } => panic!("deletes are not kept here"),
            }
        }
    }
    answers.sort_by_key(|(ticket, _)| *ticket);
    let replies: Vec<Reply> = answers.into_iter().map(|(_, reply)| reply).collect();
    assert_eq!(replies, [Reply::Stored, value("12"), Reply::Stored, value("2"), Reply::Deleted, Reply::Miss]);
    assert_eq!((bench.execution.calls(), bench.execution.frames()), (0, 0));
}
