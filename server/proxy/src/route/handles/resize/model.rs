//! Several proxies and clients, servers that come, go and die, in seeded orders of every single step: no
//! client is shown a value that was overwritten or deleted before it asked.
//!
//! What is taken for granted, and what the proxies are told of it: they learn of a change at most [`SKEW_MS`]
//! apart; each list of servers lasts longer than that, so that all see it; a message arrives within
//! [`DELAY_MS`]; the grace is longer than both together with a lease; a server that died stays dead; servers
//! come back into a ring only within the window since they left it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corecached_protocol::{Limits as LineLimits, Parsed, Parser, Reply};
use corecached_testkit::memcached::Memcached;

use crate::config::{Config, Options, ResolvedPools, Rings};
use crate::request::OwnedRequest;
use crate::route::{Action, CallId, Execution, ExecutionLimits, Routes, Tree};

const SKEW_MS: u64 = 1000;
const DELAY_MS: u64 = 100;
const GRACE_MS: u64 = 4500;
const WINDOW_MS: u64 = 60_000;
const KEYS: usize = 6;
const CLIENTS: usize = 5;
const PROXIES: usize = 3;
const SERVERS: usize = 6;
const START_MS: u64 = 1_700_000_000_000;

/// What a proxy has under way at one server, in order.
#[derive(Default)]
struct Link {
    requests: VecDeque<(u64, CallId, OwnedRequest)>,
    replies: VecDeque<(u64, CallId, Reply)>,
}

struct Proxy {
    rings: Rings,
    /// Which of the server lists it knows.
    knows: usize,
    routes: Rc<Routes>,
    execution: Execution,
    links: Vec<Link>,
}

/// A write or delete that a client asked for.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    begun: u64,
    /// When its success became known.
    ended: Option<u64>,
    what: String,
}

struct Asked {
    begun: u64,
    key: usize,
    /// Of a change: its place in `changes`.
    change: Option<usize>,
    line: String,
}

#[derive(Clone, Copy)]
struct Scenario {
    grace_ms: u64,
    fenced: bool,
    deaths: bool,
}

const SOUND: Scenario = Scenario { grace_ms: GRACE_MS, fenced: true, deaths: true };

struct World {
    random: fastrand::Rng,
    scenario: Scenario,
    now_ms: u64,
    /// Of single steps; orders everything.
    step: u64,
    servers: Vec<Memcached>,
    proxies: Vec<Proxy>,
    /// By client: what it waits for.
    asked: Vec<Option<Asked>>,
    changes: BTreeMap<usize, Vec<Change>>,
    versions: u64,
    configs: Vec<Config>,
    /// When each server list comes up.
    comes_ms: Vec<u64>,
    stale: Vec<String>,
    hits: u64,
    log: RefCell<Vec<String>>,
}

fn config(servers: &[usize], grace_ms: u64) -> Config {
    let list: Vec<String> = servers.iter().map(|server| format!("\"s{server}:1\"")).collect();
    let text = format!(
        "{{\"pools\": {{\"a\": {{\"servers\": [{}], \"warm_resize\": {{\"window_ms\": {WINDOW_MS}, \
         \"grace_ms\": {grace_ms}}}}}}}, \"route\": \"PoolRoute|a\"}}",
        list.join(",")
    );
    let options = Options { spool_deletes: false, miss_on_get_errors: false, ..Options::default() };
    Config::parse("test", &text, &options, &|_| Err("no files".into()))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn routes(config: &Config, rings: &Rings) -> Rc<Routes> {
    let tree = Tree::compile_over(config, &ResolvedPools::new(), rings).unwrap();
    let place = |address: String| address[1..2].parse::<u32>().unwrap();
    let places = tree.destinations().iter().map(|one| place(one.server.address.to_string())).collect();
    Rc::new(Routes::with_places(Arc::new(tree), places))
}

impl World {
    fn new(seed: u64, scenario: Scenario) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let lists: [&[usize]; 4] = [&[0, 1, 2], &[0, 1, 2, 3], &[0, 1, 2, 3, 4, 5], &[0, 1, 2]];
        let configs: Vec<Config> = lists.iter().map(|list| config(list, scenario.grace_ms)).collect();
        let mut comes_ms = vec![0];
        let mut at_ms = START_MS + 1000;
        for _ in 1..lists.len() {
            at_ms += random.u64(SKEW_MS + DELAY_MS..9000);
            comes_ms.push(at_ms);
        }
        let proxy = |number: usize| {
            let mut rings = Rings::default();
            rings.observe(&configs[0], &ResolvedPools::new(), START_MS);
            Proxy {
                routes: routes(&configs[0], &rings),
                rings,
                knows: 0,
                execution: Execution::new(&ExecutionLimits::default(), number as u64),
                links: (0..SERVERS).map(|_| Link::default()).collect(),
            }
        };
        let server = |_| Memcached { ignores_cas: !scenario.fenced, ..Memcached::default() };
        Self {
            proxies: (0..PROXIES).map(proxy).collect(),
            servers: (0..SERVERS).map(server).collect(),
            random,
            scenario,
            now_ms: START_MS,
            step: 0,
            asked: (0..CLIENTS).map(|_| None).collect(),
            changes: BTreeMap::new(),
            versions: 0,
            configs,
            comes_ms,
            stale: Vec::new(),
            hits: 0,
            log: RefCell::default(),
        }
    }

    fn run(&mut self, steps: u64) {
        for step in 1..=steps {
            self.step = step;
            match self.random.u32(0..100) {
                0..20 => self.ask(),
                20..85 => self.deliver(),
                85..97 => self.pass_time(),
                97..98 => self.evict(),
                _ => self.learn(),
            }
            if !self.stale.is_empty() {
                return;
            }
        }
    }

    fn say(&self, text: String) {
        let mut log = self.log.borrow_mut();
        log.push(format!("{} {} {text}", self.step, self.now_ms - START_MS));
        if log.len() > 160 {
            log.remove(0);
        }
    }

    /// Time goes on as far as no message gets too old, and no proxy learns too late.
    fn pass_time(&mut self) {
        let next_ms = self.now_ms + self.random.u64(1..80);
        loop {
            let late = |at: &u64| at + DELAY_MS < next_ms;
            let link = self.proxies.iter().flat_map(|proxy| &proxy.links);
            let mut ages = link.flat_map(|link| {
                let requests = link.requests.iter().map(|(at, ..)| *at);
                requests.chain(link.replies.iter().map(|(at, ..)| *at))
            });
            if !ages.any(|at| late(&at)) {
                break;
            }
            self.deliver();
        }
        self.now_ms = next_ms;
        let list = self.comes_ms.iter().rposition(|&at| at + SKEW_MS <= next_ms).unwrap_or(0);
        for proxy in 0..PROXIES {
            self.proxies[proxy].knows = self.proxies[proxy].knows.max(list);
            self.observe(proxy);
        }
        // Those that left the last list die one after the other.
        let left_ms = self.comes_ms[3] + 500;
        if self.scenario.deaths && next_ms > left_ms && self.random.u32(0..60) == 0 {
            let server = self.random.usize(3..SERVERS);
            self.servers[server].dead = true;
        }
    }

    fn learn(&mut self) {
        let proxy = self.random.usize(0..PROXIES);
        let list = self.comes_ms.iter().rposition(|&at| at <= self.now_ms).unwrap_or(0);
        self.proxies[proxy].knows = self.proxies[proxy].knows.max(list);
        self.observe(proxy);
    }

    fn observe(&mut self, number: usize) {
        let proxy = &mut self.proxies[number];
        let config = &self.configs[proxy.knows];
        if proxy.rings.observe(config, &ResolvedPools::new(), self.now_ms) {
            proxy.routes = routes(config, &proxy.rings);
            let text = format!("proxy {number} has {} rings", proxy.rings.for_pool("a").unwrap().len());
            self.say(text);
        }
    }

    fn evict(&mut self) {
        let server = self.random.usize(0..SERVERS);
        if let Some(key) = self.servers[server].items.keys().next().cloned() {
            self.say(format!("s{server} evicts {key:?}"));
            self.servers[server].items.remove(&key);
        }
    }

    fn ask(&mut self) {
        let client = self.random.usize(0..CLIENTS);
        if self.asked[client].is_some() {
            return;
        }
        let key = self.random.usize(0..KEYS);
        let version = self.versions + 1;
        let ttl = self.random.u32(0..4) * 5;
        let value = format!("v{version}");
        let len = value.len();
        let (line, is_change) = match self.random.u32(0..24) {
            0..8 => (format!("get k{key}"), false),
            8..10 => (format!("gets k{key}"), false),
            10 => (format!("mg k{key} v t"), false),
            11 => (format!("gat 20 k{key}"), false),
            12 => (format!("touch k{key} 20"), false),
            13..16 => (format!("set k{key} 0 {ttl} {len}"), true),
            16 => (format!("ms k{key} {len} T{ttl}"), true),
            17 => (format!("add k{key} 0 {ttl} {len}"), true),
            18 => (format!("replace k{key} 0 {ttl} {len}"), true),
            19..23 => (format!("delete k{key}"), true),
            _ => (format!("md k{key}"), true),
        };
        let change = is_change.then(|| {
            self.versions = version;
            let changes = self.changes.entry(key).or_default();
            changes.push(Change { version, begun: self.step, ended: None, what: line.clone() });
            changes.len() - 1
        });
        let text = format!("{line}\r\n");
        let limits = LineLimits::default();
        let Ok(Parsed::Complete { value: command, .. }) = Parser::new().parse(text.as_bytes(), &limits)
        else {
            panic!("{line}");
        };
        let stores = is_change && !line.contains("delete") && !line.starts_with("md");
        let data = if stores { Bytes::from(value) } else { Bytes::new() };
        let request = OwnedRequest::new(&command, data).unwrap();
        self.asked[client] = Some(Asked { begun: self.step, key, change, line: line.clone() });
        let at = self.random.usize(0..PROXIES);
        self.say(format!("client {client} by proxy {at}: {line} ({version})"));
        let mut actions = Vec::new();
        let proxy = &mut self.proxies[at];
        proxy.execution.begin(&proxy.routes, request, client as u64, self.now_ms, &mut actions);
        self.act(at, actions);
    }

    /// One message arrives, of those that are first on their way.
    fn deliver(&mut self) {
        let mut ways = Vec::new();
        for (proxy, one) in self.proxies.iter().enumerate() {
            for (server, link) in one.links.iter().enumerate() {
                if !link.requests.is_empty() {
                    ways.push((proxy, server, true));
                }
                if !link.replies.is_empty() {
                    ways.push((proxy, server, false));
                }
            }
        }
        if ways.is_empty() {
            return;
        }
        let (proxy, server, is_request) = ways[self.random.usize(..ways.len())];
        let link = &mut self.proxies[proxy].links[server];
        if is_request {
            let Some((_, call, request)) = link.requests.pop_front() else { return };
            let reply = self.servers[server].execute(&request.command(), request.data(), self.now_ms);
            link.replies.push_back((self.now_ms, call, reply.clone()));
            self.say(format!("  s{server} to proxy {proxy}: {:?} {reply:?}", request.command()));
        } else {
            let Some((_, call, reply)) = link.replies.pop_front() else { return };
            let mut actions = Vec::new();
            self.proxies[proxy].execution.replied(call, reply, self.now_ms, &mut actions);
            self.act(proxy, actions);
        }
    }

    fn act(&mut self, proxy: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { call, place, request, .. } => {
                    let link = &mut self.proxies[proxy].links[place as usize];
                    link.requests.push_back((self.now_ms, call, request));
                }
                Action::Answer { ticket, reply } => self.answered(ticket as usize, &reply),
                Action::Keep { .. } => panic!("deletes are not kept here"),
            }
        }
    }

    fn answered(&mut self, client: usize, reply: &Reply) {
        let asked = self.asked[client].take().expect("nobody asked");
        self.say(format!("client {client} gets {reply:?}"));
        let succeeded = match reply {
            Reply::Stored | Reply::Deleted | Reply::NotFound => true,
            Reply::Meta { line, .. } => matches!(line.get(..2), Some(b"HD" | b"NF")),
            _ => false,
        };
        if let Some(change) = asked.change {
            if succeeded && let Some(changes) = self.changes.get_mut(&asked.key) {
                changes[change].ended = Some(self.step);
            }
            return;
        }
        let value = match reply {
            Reply::Value { value, .. } | Reply::Meta { value: Some(value), .. } => value,
            _ => return,
        };
        self.hits += 1;
        let shown: u64 = match std::str::from_utf8(value).ok().and_then(|text| text.strip_prefix('v')) {
            Some(version) => version.parse().unwrap(),
            None => {
                self.stale.push(format!("{} shows what nobody stored: {value:?}", asked.line));
                return;
            }
        };
        let changes = &self.changes[&asked.key];
        let Some(ended) =
            changes.iter().find(|change| change.version == shown).and_then(|change| change.ended)
        else {
            return; // not known to be over
        };
        let newer = changes
            .iter()
            .find(|change| change.begun > ended && change.ended.is_some_and(|ended| ended < asked.begun));
        if let Some(newer) = newer {
            let Change { what, version, .. } = newer;
            let line = &asked.line;
            self.stale
                .push(format!("{line} shows v{shown}, over since {ended}; {what} ({version}) came after"));
        }
    }
}

/// The first that was stale, of all these seeds; how many values were shown, copied and lost.
fn run(scenario: Scenario, seeds: std::ops::Range<u64>) -> (Vec<String>, u64, u64, u64) {
    let (mut stale, mut hits, mut copied, mut lost) = (Vec::new(), 0, 0, 0);
    for seed in seeds {
        let mut world = World::new(seed, scenario);
        world.run(8_000);
        hits += world.hits;
        for proxy in &world.proxies {
            copied += proxy.execution.resize_counters().copied;
            lost += proxy.execution.resize_counters().lost;
        }
        if let Some(one) = world.stale.first() {
            let log = world.log.borrow().join("\n");
            stale.push(format!("seed {seed}: {one}\n{log}"));
            break;
        }
    }
    (stale, hits, copied, lost)
}

/// Seeds of a run; more with `RESIZE_SEEDS`.
fn seeds() -> u64 {
    std::env::var("RESIZE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

#[test]
fn nothing_overwritten_or_deleted_is_shown_again_whatever_the_order_of_steps() {
    let (stale, hits, copied, lost) = run(SOUND, 0..seeds());
    assert!(stale.is_empty(), "{}", stale[0]);
    println!("{} seeds: {hits} values shown, {copied} copied, {lost} copies lost", seeds());
    assert!(copied > seeds() && lost > 0, "{copied} copied, {lost} lost: nothing was tried");
}

#[test]
fn copies_without_a_fence_are_caught() {
    let (stale, ..) = run(Scenario { fenced: false, ..SOUND }, 0..seeds());
    assert!(!stale.is_empty());
}

#[test]
fn without_a_grace_proxies_that_learn_at_different_moments_are_caught() {
    let (stale, ..) = run(Scenario { grace_ms: 0, ..SOUND }, 0..seeds());
    assert!(!stale.is_empty());
}
