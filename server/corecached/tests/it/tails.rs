//! What limits the effect of a slow cache: hedged gets, adaptive concurrency, bounded loads.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::admin::{ADMIN, scrape};
use super::proxy::{addresses, caches, everywhere, items, proxy};
use super::support::{Backend, Client, Server, wait_until};

/// Enough keys that every cache has some.
const KEYS: usize = 60;

/// A forwarder to a cache that delays requests by a time that can be set, and keeps their order.
struct DelayedLink {
    address: SocketAddr,
    delay_ms: Arc<AtomicU64>,
}

impl DelayedLink {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms);
        std::thread::spawn(move || {
            for inwards in listener.incoming().map_while(Result::ok) {
                let Ok(outwards) = TcpStream::connect(target) else { continue };
                let (Ok(from), Ok(to)) = (outwards.try_clone(), inwards.try_clone()) else { continue };
                forward(inwards, outwards, Arc::clone(&delay));
                forward(from, to, Arc::default());
            }
        });
        Self { address, delay_ms }
    }

    fn slow_by(&self, delay_ms: u64) {
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
    }
}

/// Forwards bytes, each delayed by `delay_ms`, until either connection ends.
fn forward(mut from: TcpStream, mut to: TcpStream, delay_ms: Arc<AtomicU64>) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut chunk) {
            let at = Instant::now() + Duration::from_millis(delay_ms.load(Ordering::Relaxed));
            if sender.send((at, chunk[..len].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((at, bytes)) = receiver.recv() {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// The counters of these features: the name in `stats`, and the metric.
const COUNTERS: [(&str, &str); 5] = [
    ("hedge_sent", r#"corecached_proxy_hedges_total{outcome="sent"}"#),
    ("hedge_won", r#"corecached_proxy_hedges_total{outcome="won"}"#),
    ("hedge_denied", r#"corecached_proxy_hedges_total{outcome="denied"}"#),
    ("bounded_load_moved", "corecached_proxy_bounded_load_moved_total"),
    ("adaptive_concurrency_refused", "corecached_proxy_adaptive_concurrency_refused_total"),
];

/// Asserts that the counters of `names` have grown and the others have not, and that metrics agree with
/// `stats`.
fn counted(proxy: &Server, client: &mut Client, names: &[&str]) {
    for (name, sample) in COUNTERS {
        let count = client.stat(name);
        assert_eq!(count > 0, names.contains(&name), "{name} is {count}");
        wait_until("metrics to say the same", || scrape(proxy)[sample] == count as f64);
    }
}

/// Starts two caches and a proxy that sends up to `budget_percent` of the gets a second time, and a client
/// that has set every key. Also returns the link to the first cache, and the caches.
fn hedging(
    backend: Backend,
    shards: usize,
    budget_percent: f64,
) -> (Server, Client, DelayedLink, Vec<Server>) {
    let caches = caches(2);
    let link = DelayedLink::to(caches[0].address);
    let config = format!(
        r#"{{"pools": {{"A": {{"servers": ["{}", "{}"], "server_timeout": 5000}}}},
            "route": {{"type": "PoolRoute", "pool": "A", "replicas": 2, "hedge": {{"budget_percent": {budget_percent}}}}}}}"#,
        link.address, caches[1].address
    );
    let proxy = proxy(backend, shards, &[ADMIN, "--config-str", &config]);
    let mut client = Client::connect(&proxy);
    for key in 0..KEYS {
        client.set(&format!("k{key}"), b"value");
    }
    (proxy, client, link, caches)
}

#[test]
fn gets_that_wait_for_a_slow_cache_are_answered_by_the_second_copy() {
    everywhere(|backend, shards| {
        let (proxy, mut client, link, _caches) = hedging(backend, shards, 100.0);
        assert_eq!(COUNTERS.map(|(name, _)| client.stat(name)), [0; 5]);
        let get_all = |client: &mut Client| {
            for key in 0..KEYS {
                assert_eq!(client.get(&format!("k{key}")).as_deref(), Some(&b"value"[..]), "k{key}");
            }
        };
        for _ in 0..8 {
            get_all(&mut client); // replies of each cache, for what is usual
        }
        link.slow_by(1000);
        get_all(&mut client);
        let (sent, won) = (client.stat("hedge_sent"), client.stat("hedge_won"));
        assert!(won >= 5 && sent >= won, "{won} of {sent}\n{}", proxy.stderr());
        counted(&proxy, &mut client, &["hedge_sent", "hedge_won"]);
    });
}

/// Sends `gets` gets of `k` at once, and counts the replies by the length of their value.
fn lengths(client: &mut Client, gets: usize) -> [usize; 6] {
    client.send("mg k s\r\n".repeat(gets));
    let mut lengths = [0; 6];
    for _ in 0..gets {
        match client.line().as_str() {
            "HD s5" => lengths[5] += 1,
            "HD s2" => lengths[2] += 1,
            other => panic!("{other}"),
        }
    }
    lengths
}

/// Sends gets until the proxy has measured its servers without load for a few windows.
fn at_their_best(client: &mut Client) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        lengths(client, 16);
    }
}

#[test]
fn gets_a_slow_cache_has_too_many_of_go_to_the_next_until_it_is_fast_again() {
    everywhere(|backend, shards| {
        let caches = caches(2);
        Client::connect(&caches[1]).set("k", b"no");
        let link = DelayedLink::to(caches[0].address);
        let config = format!(
            r#"{{"pools": {{"A": {{"servers": ["{}"], "server_timeout": 5000, "adaptive_concurrency": {{}}}},
                "B": {{"servers": ["{}"]}}}},
                "route": {{"type": "FailoverRoute", "children": ["PoolRoute|A", "PoolRoute|B"]}}}}"#,
            link.address, caches[1].address
        );
        let proxy = proxy(backend, shards, &[ADMIN, "--config-str", &config]);
        let mut client = Client::connect(&proxy);
        client.set("k", b"value");
        at_their_best(&mut client);
        link.slow_by(60);
        wait_until("gets to go to the other", || lengths(&mut client, 16)[2] > 8);
        counted(&proxy, &mut client, &["adaptive_concurrency_refused"]);
        client.check("set k 0 0 5\r\nother\r\n", "STORED\r\n");
        link.slow_by(0);
        wait_until("none to go there", || lengths(&mut client, 16)[5] == 16);
    });
}

#[test]
fn gets_are_answered_where_every_cache_is_slow() {
    everywhere(|backend, shards| {
        let caches = caches(2);
        let links: Vec<DelayedLink> = caches.iter().map(|cache| DelayedLink::to(cache.address)).collect();
        let config = format!(
            r#"{{"pools": {{"A": {{"servers": ["{}", "{}"], "server_timeout": 5000,
                "adaptive_concurrency": {{"max": 100}}}}}}, "route": {{"type": "PoolRoute", "pool": "A", "replicas": 2}}}}"#,
            links[0].address, links[1].address
        );
        let proxy = proxy(backend, shards, &[ADMIN, "--config-str", &config]);
        let mut client = Client::connect(&proxy);
        client.set("k", b"value");
        at_their_best(&mut client);
        links.iter().for_each(|link| link.slow_by(60));
        let limit = |link: &DelayedLink| {
            let sample = "corecached_proxy_destination_concurrency_limit";
            scrape(&proxy)[&format!("{sample}{{destination=\"{}\"}}", link.address)] as u64
        };
        // No reply that `lengths` counts is an error, whatever the limits are.
        wait_until("a cache to be taken for slow", || {
            assert_eq!(lengths(&mut client, 16)[5], 16);
            links.iter().any(|link| limit(link) <= 100 * shards as u64 - 90) // on the key's shard
        });
        for _ in 0..10 {
            assert_eq!(lengths(&mut client, 16)[5], 16);
        }
        counted(&proxy, &mut client, &["adaptive_concurrency_refused"]);
    });
}

#[test]
fn gets_beyond_the_budget_of_hedges_wait_and_are_counted() {
    everywhere(|backend, shards| {
        let (proxy, mut client, link, _caches) = hedging(backend, shards, 0.1);
        let gets: String = (0..KEYS).map(|key| format!("mg k{key} s\r\n")).collect();
        for _ in 0..8 {
            client.check(&gets, "HD s5\r\n".repeat(KEYS));
        }
        link.slow_by(500);
        wait_until("a get to be denied its hedge", || {
            client.check(&gets, "HD s5\r\n".repeat(KEYS));
            client.stat("hedge_denied") > 0 && client.stat("hedge_won") > 0
        });
        counted(&proxy, &mut client, &["hedge_sent", "hedge_won", "hedge_denied"]);
    });
}

#[test]
fn a_key_with_too_much_under_way_goes_to_other_caches_and_is_deleted_from_all() {
    everywhere(|backend, shards| {
        let caches = caches(3);
        let config = format!(
            r#"{{"pools": {{"A": {{"servers": {:?}}}}},
                "route": {{"type": "PoolRoute", "pool": "A", "bounded_load": 1.25}}}}"#,
            addresses(&caches)
        );
        let proxy = proxy(backend, shards, &[ADMIN, "--config-str", &config]);
        for cache in &caches {
            Client::connect(cache).set("hot", b"value");
        }
        let mut client = Client::connect(&proxy);
        client.send("mg hot s\r\n".repeat(60));
        for _ in 0..60 {
            client.expect("HD s5\r\n");
        }
        counted(&proxy, &mut client, &["bounded_load_moved"]);
        for cache in &caches {
            assert!(Client::connect(cache).stat("get_hits") > 0, "it goes to all three");
        }
        client.check("delete hot\r\n", "DELETED\r\n");
        assert_eq!(items(&caches), [0, 0, 0]);
    });
}
