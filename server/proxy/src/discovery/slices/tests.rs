//! A cluster's API server that exists for one test, and what is made of its answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::client::RetryPolicy;
use super::*;
use crate::config::Options;
use crate::discovery::{Dns, Found};

/// A test gives up after this time.
const DEADLINE: Duration = Duration::from_secs(20);
const TOKEN: &str = "the-token";

/// What the server knows and does.
#[derive(Default)]
struct State {
    slices: BTreeMap<String, Value>,
    version: u64,
    /// Refuse with this status.
    status: Option<u16>,
    /// Refuse watches alone with it.
    watch_status: Option<u16>,
    lists: usize,
    /// Nothing is answered any more.
    hangs: bool,
    watchers: Vec<Sender<Line>>,
}

enum Line {
    Event(String),
    /// Break off in the middle of one.
    Break,
}

struct Api {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    folder: PathBuf,
    authorities: Option<PathBuf>,
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Api {
    fn start(is_secure: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let folder =
            std::env::temp_dir().join(format!("corecached-api-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
        let (mut secure, mut authorities) = (None, None);
        if is_secure {
            let (pem, config) = certificates();
            authorities = Some(folder.join("ca.crt"));
            std::fs::write(folder.join("ca.crt"), pem).unwrap();
            secure = Some(config);
        }
        let state = Arc::new(Mutex::new(State { version: 1, ..State::default() }));
        let api = Self { state: Arc::clone(&state), address, folder, authorities };
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (state, secure) = (Arc::clone(&state), secure.clone());
                std::thread::spawn(move || match secure {
                    None => answer(stream, &state),
                    Some(config) => {
                        answer(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &state);
                    }
                });
            }
        });
        api
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn access(&self) -> ApiAccess {
        ApiAccess {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            authorities: self.authorities.clone(),
            token: self.folder.join("token"),
            retry: RetryPolicy {
                pause_max: Duration::from_millis(200),
                patience: Duration::from_secs(1),
                silence_max: DEADLINE,
            },
        }
    }

    /// The slice is there, with these endpoints.
    fn put(&self, name: &str, endpoints: &[(&str, &str)]) {
        let mut state = self.state();
        state.version += 1;
        let list = |(host, ip): &(&str, &str)| json!({"addresses": [ip], "hostname": host});
        let slice = json!({
            "metadata": {"name": name, "resourceVersion": state.version.to_string()},
            "addressType": "IPv4",
            "endpoints": endpoints.iter().map(list).collect::<Vec<_>>(),
        });
        state.slices.insert(name.to_owned(), slice.clone());
        state.tell("MODIFIED", &slice);
    }

    fn remove(&self, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let mut slice = state.slices.remove(name).unwrap();
        slice["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.tell("DELETED", &slice);
    }

    fn break_off(&self) {
        self.state().watchers.drain(..).for_each(|watcher| drop(watcher.send(Line::Break)));
    }
}

impl State {
    fn tell(&mut self, kind: &str, object: &Value) {
        let line = json!({"type": kind, "object": object}).to_string();
        self.watchers.retain(|watcher| watcher.send(Line::Event(line.clone())).is_ok());
    }
}

/// An authority in PEM format, and what a server with a certificate by it begins with.
fn certificates() -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    (pem, Arc::new(config.unwrap()))
}

fn answer(mut stream: impl Read + Write, state: &Mutex<State>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let expected = "get /apis/discovery.k8s.io/v1/namespaces/n/endpointslices?labelselector=kubernetes.io%2fservice-name%3dcache";
    let is_watch = head.contains("&watch=1&");
    while state.lock().unwrap().hangs {
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut known = state.lock().unwrap();
    let status = match (known.status, known.watch_status.filter(|_| is_watch)) {
        (Some(status), _) | (None, Some(status)) => status,
        _ if !head.contains(&format!("authorization: bearer {TOKEN}\r\n")) => 401,
        _ if !head.starts_with(expected) => 404,
        _ => 200,
    };
    if status != 200 {
        drop(known);
        let _ = write!(stream, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    if !is_watch {
        known.lists += 1;
        let list = json!({"metadata": {"resourceVersion": known.version.to_string()},
            "items": known.slices.values().collect::<Vec<_>>()})
        .to_string();
        drop(known);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{list}", list.len());
        let _ = stream.flush();
        return;
    }
    // What is listed is asked to be watched from there on, or the test's changes would be lost in between.
    let from =
        head.split("resourceversion=").nth(1).and_then(|rest| rest.split('&').next()).unwrap().to_owned();
    let (sender, lines) = channel();
    if from == known.version.to_string() {
        known.watchers.push(sender);
    } else {
        let gone = json!({"type": "ERROR", "object": {"code": 410, "message": "too old"}});
        sender.send(Line::Event(gone.to_string())).unwrap();
    }
    drop(known);
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let _ = stream.flush();
    send(&mut stream, &lines);
}

fn send(stream: &mut impl Write, lines: &Receiver<Line>) {
    for line in lines {
        let outcome = match line {
            // In two pieces.
            Line::Event(line) => {
                let (head, rest) = line.split_at(line.len() / 2);
                write!(stream, "{:x}\r\n{head}\r\n", head.len())
                    .and_then(|()| write!(stream, "{:x}\r\n{rest}\n\r\n", rest.len() + 1))
            }
            Line::Break => {
                let _ = write!(stream, "9\r\n{{\"type\": \r\n");
                let _ = stream.flush();
                return;
            }
        };
        if outcome.and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
    let _ = write!(stream, "0\r\n\r\n");
    let _ = stream.flush();
}

fn config(pools: &str) -> Config {
    let text = format!("{{\"pools\": {{{pools}}}, \"route\": \"NullRoute\"}}");
    Config::parse("test", &text, &Options::default(), &|_: &str| Err("nothing is imported".into())).unwrap()
}

/// A configuration that uses the pool `a`, of the Service n/cache.
fn one_pool() -> Config {
    let text = r#"{"pools": {"a": {"servers": ["cache.n.svc:7000"], "resolve": true, "endpoint_slices": "n/cache"}},
        "route": "PoolRoute|a"}"#;
    Config::parse("test", text, &Options::default(), &|_: &str| Err("nothing is imported".into())).unwrap()
}

fn service() -> Service {
    Service { namespace: "n".to_owned(), name: "cache".to_owned() }
}

fn start(api: &Api) -> EndpointSlices {
    EndpointSlices::start(api.access(), crossbeam_channel::bounded(1).0)
}

/// What is found becomes this, and how long that took.
#[track_caller]
fn wait_for(slices: &mut EndpointSlices, expected: Option<&[&str]>) -> Duration {
    let begun = Instant::now();
    loop {
        let found = slices.found.borrow_and_update().get(&service()).cloned();
        let shown = |list: Vec<Endpoint>| {
            list.iter().map(|one| format!("{} {}", one.name, one.ip)).collect::<Vec<_>>()
        };
        let shown = found.map(|found| found.map(shown));
        if shown.as_ref().is_some_and(|shown| shown.as_deref().is_some() == expected.is_some())
            && shown.clone().flatten().unwrap_or_default() == expected.unwrap_or_default()
        {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < DEADLINE, "{expected:?} is wanted, there is {shown:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn members_follow_what_the_cluster_tells_at_once() {
    for is_secure in [false, true] {
        let api = Api::start(is_secure);
        api.put("s1", &[("c-1", "10.0.0.1"), ("c-10", "10.0.0.10")]);
        let mut slices = start(&api);
        slices.follow(&one_pool());
        let first = slices.wait_for_first(DEADLINE);
        assert_eq!(first[&service()].as_ref().map(Vec::len), Some(2));
        wait_for(&mut slices, Some(&["c-1 10.0.0.1", "c-10 10.0.0.10"]));
        assert!(slices.take_changes().is_none());
        api.put("s2", &[("c-2", "10.0.0.2")]);
        let took = wait_for(&mut slices, Some(&["c-1 10.0.0.1", "c-2 10.0.0.2", "c-10 10.0.0.10"]));
        println!("a change was known after {took:?}");
        assert!(took < Duration::from_secs(1));
        api.put("s1", &[("c-1", "10.0.0.99")]);
        wait_for(&mut slices, Some(&["c-1 10.0.0.99", "c-2 10.0.0.2"]));
        api.remove("s2");
        wait_for(&mut slices, Some(&["c-1 10.0.0.99"]));
        assert_eq!(api.state().lists, 1, "the rest was watched");
        // What nobody wants is not followed.
        slices.follow(&config(""));
        let begun = Instant::now();
        while !slices.found.borrow().is_empty() {
            assert!(begun.elapsed() < DEADLINE);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_watch_that_breaks_off_or_is_out_of_date_is_begun_anew_with_a_list() {
    let api = Api::start(false);
    api.put("s", &[("c-0", "10.0.0.1")]);
    let mut slices = start(&api);
    slices.follow(&one_pool());
    wait_for(&mut slices, Some(&["c-0 10.0.0.1"]));
    for number in 2..6 {
        api.break_off();
        let ip = format!("10.0.0.{number}");
        api.put("s", &[("c-0", &ip)]);
        wait_for(&mut slices, Some(&[&format!("c-0 {ip}")]));
    }
    // As a server that has forgotten what was: in the stream, and as the answer.
    let lists = api.state().lists;
    let gone = json!({"code": 410, "message": "too old resource version"});
    api.state().tell("ERROR", &gone);
    let begun = Instant::now();
    while api.state().lists == lists || api.state().watchers.is_empty() {
        assert!(begun.elapsed() < DEADLINE);
        std::thread::sleep(Duration::from_millis(2));
    }
    api.put("s", &[("c-0", "10.0.0.7")]);
    wait_for(&mut slices, Some(&["c-0 10.0.0.7"]));
    api.state().watch_status = Some(410);
    api.break_off();
    let lists = api.state().lists;
    while api.state().lists < lists + 2 {
        assert!(begun.elapsed() < DEADLINE);
        std::thread::sleep(Duration::from_millis(2));
    }
    api.state().watch_status = None;
    api.put("s", &[("c-0", "10.0.0.8")]);
    wait_for(&mut slices, Some(&["c-0 10.0.0.8"]));
}

#[test]
fn a_server_that_refuses_or_is_away_gives_the_service_back_to_dns_until_it_answers() {
    let api = Api::start(false);
    api.put("s", &[("c-0", "10.0.0.1")]);
    let mut slices = start(&api);
    // To list is not enough.
    api.state().watch_status = Some(403);
    slices.follow(&one_pool());
    wait_for(&mut slices, None);
    api.state().watch_status = None;
    wait_for(&mut slices, Some(&["c-0 10.0.0.1"]));
    api.state().status = Some(403);
    api.break_off();
    wait_for(&mut slices, None);
    api.state().status = None;
    wait_for(&mut slices, Some(&["c-0 10.0.0.1"]));
    // Away: what is known stays for a while, however long nothing had changed before.
    std::thread::sleep(Duration::from_millis(1100));
    api.state().status = Some(503);
    api.break_off();
    let took = wait_for(&mut slices, None);
    assert!(took >= Duration::from_millis(800), "{took:?}");
    api.state().status = None;
    wait_for(&mut slices, Some(&["c-0 10.0.0.1"]));
    // A token is read anew.
    std::fs::write(api.folder.join("token"), "another").unwrap();
    api.break_off();
    wait_for(&mut slices, None);
    std::fs::write(api.folder.join("token"), TOKEN).unwrap();
    wait_for(&mut slices, Some(&["c-0 10.0.0.1"]));
}

#[test]
fn a_silent_watch_is_begun_anew_where_it_was_and_a_server_that_hangs_is_noticed() {
    let api = Api::start(false);
    api.put("s", &[("c-0", "10.0.0.1")]);
    let mut access = api.access();
    // Longer than a watch that counts as a failure.
    access.retry.silence_max = Duration::from_millis(1100);
    let mut slices = EndpointSlices::start(access, crossbeam_channel::bounded(1).0);
    slices.follow(&one_pool());
    wait_for(&mut slices, Some(&["c-0 10.0.0.1"]));
    let begun = Instant::now();
    while api.state().watchers.len() < 2 {
        assert!(begun.elapsed() < DEADLINE);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(api.state().lists, 1);
    assert!(slices.take_changes().is_none());
    api.state().hangs = true;
    wait_for(&mut slices, None);
    api.state().hangs = false;
    wait_for(&mut slices, Some(&["c-0 10.0.0.1"]));
}

#[test]
fn a_server_by_another_authority_gets_no_token() {
    let api = Api::start(true);
    std::fs::write(api.folder.join("ca.crt"), certificates().0).unwrap();
    let mut slices = start(&api);
    slices.follow(&one_pool());
    wait_for(&mut slices, None);
    assert_eq!(api.state().lists, 0);
}

#[test]
fn nonsense_and_lines_without_end_break_the_watch_alone() {
    let api = Api::start(false);
    api.put("s", &[("c-0", "10.0.0.1")]);
    let mut slices = start(&api);
    slices.follow(&one_pool());
    wait_for(&mut slices, Some(&["c-0 10.0.0.1"]));
    for line in ["nonsense".to_owned(), "{}".to_owned(), "x".repeat(3 << 20)] {
        let lists = api.state().lists;
        for watcher in &api.state().watchers {
            watcher.send(Line::Event(line.clone())).unwrap();
        }
        let begun = Instant::now();
        while api.state().lists == lists {
            assert!(begun.elapsed() < DEADLINE);
            std::thread::sleep(Duration::from_millis(2));
        }
        wait_for(&mut slices, Some(&["c-0 10.0.0.1"]));
        while api.state().watchers.len() < 2 {
            assert!(begun.elapsed() < DEADLINE);
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut state = api.state();
        let current = state.watchers.pop().unwrap();
        state.watchers = vec![current];
    }
}

#[test]
fn pools_have_the_members_that_slices_name_and_what_is_gone_is_forgotten() {
    let config = one_pool();
    let endpoint = |name: &str, ip: &str| Endpoint { name: name.to_owned(), ip: ip.parse().unwrap() };
    let told = |endpoints| SlicesFound::from([(service(), endpoints)]);
    let before = Found::default();
    let two = told(Some(vec![endpoint("c-0", "10.0.0.1"), endpoint("c-1", "10.0.0.2")]));
    let found = before.with_slices(&config, &two);
    let names: Vec<String> = found.pools["a"].iter().map(|server| server.address.to_string()).collect();
    assert_eq!(names, ["c-0.cache.n.svc:7000", "c-1.cache.n.svc:7000"]);
    assert_eq!(found.addresses[&found.pools["a"][1]].as_socket(), Some("10.0.0.2:7000".parse().unwrap()));
    assert!(found.differs(&before) && !found.with_slices(&config, &two).differs(&found));
    let one = found.with_slices(&config, &told(Some(vec![endpoint("c-0", "10.0.0.9")])));
    assert_eq!((one.pools["a"].len(), one.addresses.len()), (1, 1));
    assert_eq!(one.addresses[&one.pools["a"][0]].as_socket(), Some("10.0.0.9:7000".parse().unwrap()));
    assert!(!one.with_slices(&config, &told(None)).differs(&one), "what DNS said stays");
    assert!(one.with_slices(&config, &told(Some(Vec::new()))).pools["a"].is_empty());
}

#[test]
fn names_are_not_looked_up_where_slices_tell() {
    // Nobody answers there.
    let dns = Dns::new(Some("127.0.0.1:9".parse().unwrap())).unwrap();
    let config = one_pool();
    let endpoints = vec![Endpoint { name: "c-0".to_owned(), ip: "10.0.0.1".parse().unwrap() }];
    let told = SlicesFound::from([(service(), Some(endpoints))]);
    let found = dns.find(&config, &Found::default(), &told);
    assert!(!found.differs(&Found::default().with_slices(&config, &told)));
    assert_eq!(found.pools["a"][0].address.to_string(), "c-0.cache.n.svc:7000");
    // Where they do not, and nobody can say: what was known stays.
    let kept = dns.find(&config, &found, &SlicesFound::from([(service(), None)]));
    assert_eq!(kept.pools, found.pools);
}
