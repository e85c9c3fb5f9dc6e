//! Route handles of the proxy with real caches, where time, the log or several items of a key matter.

use std::time::{Duration, Instant};

use super::proxy::{addresses, caches, everywhere, items, proxy};
use super::support::{Backend, Client, Folder, Launch, Server, wait_until};

/// The configuration with all `caches` in pool `A`, and `route`.
fn config(caches: &[Server], route: &str) -> String {
    let servers = addresses(caches);
    format!("{{\"pools\": {{\"A\": {{\"servers\": {servers:?}}}}}, \"route\": {route}}}")
}

#[test]
fn a_route_may_hold_requests_and_replies_back() {
    everywhere(|backend, shards| {
        let caches = caches(1);
        let route = r#"{"type": "LatencyInjectionRoute", "child": "PoolRoute|A", "before_latency_ms": 100, "after_latency_ms": 100}"#;
        let proxy = proxy(backend, shards, &["--config-str", &config(&caches, route)]);
        let mut client = Client::connect(&proxy);
        let begun = Instant::now();
        client.check("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        // More than one of the two. They are exact by the time of a turn's begin, which is some time before
        // what it reads.
        assert!(begun.elapsed() > Duration::from_millis(150), "{:?}", begun.elapsed());
        client.check("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    });
}

#[test]
fn a_black_hole_times_out() {
    everywhere(|backend, shards| {
        let caches = caches(1);
        let text = config(&caches, "\"BlackholeRoute\"");
        let proxy =
            proxy(backend, shards, &["-t", "50", "--disable-miss-on-get-errors", "--config-str", &text]);
        Client::connect(&proxy).check("get k\r\n", "SERVER_ERROR timeout\r\n");
    });
}

#[test]
fn a_route_that_logs_writes_a_line_for_a_request_and_no_other_route_does() {
    let backend = Backend::all()[0];
    for (route, args, expected) in [
        ("\"PoolRoute|A\"", &[][..], 0),
        ("\"LoggingRoute|PoolRoute|A\"", &[], 1),
        ("\"PoolRoute|A\"", &["--enable-logging-route"], 1),
    ] {
        let caches = caches(1);
        let text = config(&caches, route);
        let proxy = proxy(backend, 1, &[args, &["--config-str", &text]].concat());
        Client::connect(&proxy).check("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        let address = caches[0].address;
        let line = format!(
            "request key: k response: stored responseLength: 0 operation: set requestLength: 1 destination: {address}"
        );
        if expected > 0 {
            wait_until("the line is logged", || proxy.stderr().contains(&line));
        }
        assert_eq!(proxy.stderr().matches("request key").count(), expected, "{}", proxy.stderr());
    }
}

#[test]
fn values_larger_than_any_item_are_stored_in_chunks_and_come_back_whole() {
    everywhere(|backend, shards| check_large_values(backend, shards, &caches(3)));
    let real: Vec<Server> = (0..3).map(|_| Server::memcached(&["-t", "1"])).collect();
    check_large_values(Backend::all()[0], 1, &real);
}

fn check_large_values(backend: Backend, shards: usize, caches: &[Server]) {
    let text = config(caches, "\"PoolRoute|A\"");
    let args = ["--big-value-split-threshold=100000", "--config-str", &text];
    let proxy = proxy(backend, shards, &args);
    let mut client = Client::connect(&proxy);
    for len in [0, 1, 99_999, 100_000, 100_001, 200_000, 1_234_567, 5_000_000] {
        let value: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        client.set(&format!("v{len}"), &value);
        assert_eq!(client.get(&format!("v{len}")).as_deref(), Some(&value[..]), "{len} bytes");
    }
    let value = "x".repeat(150_000);
    client.check(format!("ms m 150000 F7 T0\r\n{value}\r\n"), "HD\r\n");
    client.check("mg m v f s\r\n", format!("VA 150000 f7 s150000\r\n{value}\r\n"));
    client.check(
        "get v1 m v0\r\n",
        format!("VALUE v1 0 1\r\n\0\r\nVALUE m 7 150000\r\n{value}\r\nVALUE v0 0 0\r\n\r\nEND\r\n"),
    );
    client.check("touch m 100\r\n", "TOUCHED\r\n");
    // When one of the items is missing, the whole value is.
    for cache in caches {
        Client::connect(cache).check("flush_all\r\n", "OK\r\n");
        assert_eq!(client.get("v5000000"), None);
    }
    client.set("m", value.as_bytes());
    client.check("delete m\r\nget m\r\n", "DELETED\r\nEND\r\n");
}

/// Enough keys that every cache has some.
const KEYS: usize = 60;

#[test]
fn a_cache_that_is_gone_costs_no_key_that_has_a_copy() {
    everywhere(|backend, shards| {
        let mut caches = caches(3);
        let text = config(&caches, r#"{"type": "PoolRoute", "pool": "A", "replicas": 2}"#);
        let spool = Folder::new();
        let dir = format!("--async-dir={}", spool.path().display());
        let proxy = proxy(backend, shards, &[&dir, "--config-str", &text]);
        let mut client = Client::connect(&proxy);
        for key in 0..KEYS {
            client.set(&format!("k{key}"), b"old");
        }
        assert_eq!(items(&caches).iter().sum::<u64>(), 2 * KEYS as u64);
        drop(caches.remove(0));
        for key in 0..KEYS {
            assert_eq!(client.get(&format!("k{key}")).as_deref(), Some(&b"old"[..]), "k{key}");
            client.set(&format!("k{key}"), b"new");
            assert_eq!(client.get(&format!("k{key}")).as_deref(), Some(&b"new"[..]), "k{key}");
            client.check(format!("delete k{key}\r\n"), "DELETED\r\n");
            client.check(format!("get k{key}\r\n"), "END\r\n");
        }
    });
}

#[test]
fn gets_stay_in_the_zone_of_the_proxy() {
    for (args, env) in [(&["--zone=near"][..], ""), (&[], "near")] {
        let caches = caches(3);
        let route = r#"{"type": "PoolRoute", "pool": "A", "replicas": 2}"#;
        let text =
            config(&caches, route).replace("\"servers\"", r#""zones": ["near", "far", "far"], "servers""#);
        let fixed = ["proxy", "-p", "0", "--listen-addresses=127.0.0.1", "--num-proxies=1"];
        let launch = Launch::bare(&[&fixed, args, &["--config-str", &text]].concat());
        let proxy = launch.env("CORECACHED_ZONE", env).serve();
        let mut client = Client::connect(&proxy);
        for key in 0..KEYS {
            client.set(&format!("k{key}"), b"x");
            assert_eq!(client.get(&format!("k{key}")).as_deref(), Some(&b"x"[..]));
        }
        let hits: Vec<u64> = caches.iter().map(|cache| Client::connect(cache).stat("get_hits")).collect();
        assert_eq!(hits, [KEYS as u64, 0, 0]);
    }
}
