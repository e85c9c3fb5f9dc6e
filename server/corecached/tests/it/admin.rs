//! What orchestrators and monitoring use: pages over HTTP, draining, structured logs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::proxy::proxy;
use crate::support::{Backend, Client, DEADLINE, Folder, LateNames, Launch, Names, Server, wait_until};

/// The option that has the admin server listen on a free port of the loopback interface.
pub const ADMIN: &str = "--admin-listen=127.0.0.1:0";
/// Connections that the admin server answers at once, as in its `http.rs`.
const CONNECTIONS_MAX: usize = 32;

/// A response: status and body.
fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A server that refuses a request before it has read all of it resets the connection.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

pub fn get(server: &Server, path: &str) -> (u16, String) {
    ask(server.admin(), &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
}

/// The samples of `/metrics`, by name and labels.
pub fn scrape(server: &Server) -> BTreeMap<String, f64> {
    let (status, page) = get(server, "/metrics");
    assert_eq!(status, 200);
    assert!(page.ends_with("# EOF\n"), "{page}");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    let all: Vec<(String, f64)> = samples.map(sample).collect();
    let count = all.len();
    let by_name: BTreeMap<String, f64> = all.into_iter().collect();
    assert_eq!(by_name.len(), count, "a sample stands twice:\n{page}");
    by_name
}

#[test]
fn metrics_come_in_the_older_format_to_those_who_do_not_accept_openmetrics() {
    let server = Server::start(&[ADMIN]);
    let as_asked = |accept: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\n\r\n");
        let (status, page) = ask(server.admin(), &request);
        assert_eq!(status, 200);
        page
    };
    for accept in ["*/*", "text/plain;version=0.0.4"] {
        let page = as_asked(accept);
        assert!(!page.contains("# EOF"), "{page}");
        assert!(
            page.contains("\n# TYPE memcached_connections_total counter\nmemcached_connections_total "),
            "{page}"
        );
    }
    // The header that Prometheus sends.
    let page =
        as_asked("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1");
    assert!(page.contains("\n# TYPE memcached_connections counter\n") && page.ends_with("# EOF\n"), "{page}");
}

#[test]
fn there_is_no_admin_server_unless_asked_for() {
    let server = Server::start(&[]);
    assert_eq!(server.try_admin(), None);
}

#[test]
fn metrics_of_a_cache_say_what_its_stats_say() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &[ADMIN, "-m", "100", "-c", "77"]);
        let mut client = Client::connect(&server);
        for number in 0..50 {
            client.set(&format!("k{number}"), b"some value");
        }
        client.check("incr k1 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
        client.check("get absent\r\n", "END\r\n");
        client.check("get k2\r\n", "VALUE k2 0 10\r\nsome value\r\nEND\r\n");
        client.check("delete k3\r\n", "DELETED\r\n");
        client.check("mg k4\r\n", "HD\r\n");
        let stats = client.stats("");
        let page = scrape(&server);
        for (sample, stat) in [
            (r#"memcached_commands_total{command="get",status="hit"}"#, "get_hits"),
            (r#"memcached_commands_total{command="get",status="miss"}"#, "get_misses"),
            (r#"memcached_commands_total{command="set",status="hit"}"#, "cmd_set"),
            (r#"memcached_commands_total{command="delete",status="hit"}"#, "delete_hits"),
            ("memcached_current_items", "curr_items"),
            ("memcached_items_total", "total_items"),
            ("memcached_current_bytes", "bytes"),
            ("memcached_limit_bytes", "limit_maxbytes"),
            ("memcached_max_connections", "max_connections"),
            ("memcached_current_connections", "curr_connections"),
            ("memcached_connections_total", "total_connections"),
            ("memcached_read_bytes_total", "bytes_read"),
            ("corecached_meta_commands_total", "cmd_meta"),
            ("corecached_shards", "threads"),
        ] {
            let shown = page.get(sample).unwrap_or_else(|| panic!("{sample} is missing: {page:?}"));
            assert_eq!(shown.to_string(), stats[stat], "{sample}");
        }
        let name = if backend == Backend::Epoll { "epoll" } else { "io_uring" };
        assert_eq!(page[&format!(r#"corecached_io_backend_info{{backend="{name}",reason=""}}"#)], 1.0);
        assert_eq!(page["corecached_ready"], 1.0);
        // A turn is counted by the next turn, and a shard that just started may be idle.
        wait_until("the other shard to show its turns", || {
            scrape(&server)[r#"corecached_shard_turns_total{shard="1"}"#] > 0.0
        });
        assert!(page["process_resident_memory_bytes"] > 1e6);
        assert!(page["process_cpu_seconds_total"] >= 0.0);
    }
}

#[test]
fn metrics_of_a_proxy_tell_of_each_destination() {
    for &backend in Backend::all() {
        let caches = [Server::start(&["-t", "1"]), Server::start(&["-t", "1"])];
        let list: Vec<String> = caches.iter().map(|cache| format!("\"{}\"", cache.address)).collect();
        let config = format!(
            "{{\"pools\": {{\"A\": {{\"servers\": [{}]}}}}, \"route\": \"PoolRoute|A\"}}",
            list.join(",")
        );
        let proxy = proxy(backend, 2, &[ADMIN, "--config-str", &config]);
        let mut client = Client::connect(&proxy);
        for number in 0..40 {
            client.set(&format!("k{number}"), b"v");
        }
        let page = scrape(&proxy);
        assert_eq!(page[r#"corecached_proxy_commands_total{command="set"}"#], 40.0);
        assert_eq!(page[r#"corecached_proxy_destinations{state="up"}"#], 2.0);
        let replies: Vec<f64> = caches
            .iter()
            .map(|cache| {
                page[&format!(
                    "corecached_proxy_destination_replies_total{{destination=\"{}\"}}",
                    cache.address
                )]
            })
            .collect();
        assert_eq!(replies.iter().sum::<f64>(), 40.0, "{replies:?}");
        assert!(replies.iter().all(|&replies| replies > 0.0), "{replies:?}");
        assert!(!page.contains_key("memcached_current_items"), "a proxy stores nothing");
        // Counters have grown when the page is read again.
        client.set("k0", b"v");
        assert_eq!(scrape(&proxy)[r#"corecached_proxy_commands_total{command="set"}"#], 41.0);
    }
}

#[test]
fn the_page_of_a_cache_shows_each_of_its_cores() {
    let server = Server::start_on(Backend::all()[0], 2, &[ADMIN]);
    let mut client = Client::connect(&server);
    client.set("k", b"value");
    client.check("get absent\r\n", "END\r\n");
    let (status, page) = get(&server, "/");
    assert_eq!(status, 200);
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    for part in [
        "<title>corecached cache</title>",
        "prefers-color-scheme: dark",
        "<dt>cores</dt><dd>2</dd>",
        "<dt>gets</dt><dd>0 found, 1 not found</dd>",
        "<dd>1 items, ",
        "<tr><td>0</td>",
        "<tr><td>1</td>",
    ] {
        assert!(page.contains(part), "{part} is missing: {page}");
    }
    for part in ["<script", "http://", "https://", "http-equiv"] {
        assert!(!page.contains(part), "{part}: {page}");
    }
    assert!(get(&server, "/?refresh=7").1.contains(r#"<meta http-equiv="refresh" content="7">"#));
    assert!(!get(&server, "/?refresh=x%22").1.contains("http-equiv"));
    assert_eq!(get(&server, "/proxy").0, 404, "it is none");
    assert_eq!(ask(server.admin(), "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").0, 405);
}

#[test]
fn the_page_of_a_proxy_shows_rings_destinations_hot_keys_and_reloads_with_every_text_escaped() {
    let caches = [Server::start(&["-t", "1"]), Server::start(&["-t", "1"])];
    let folder = Folder::new();
    let path = folder.file("config.json");
    let pools = |name: &str| {
        let [one, two] = &caches;
        format!(
            r#"{{"pools": {{"{name}": {{"servers": ["{}", "{}"]}}}}, "route": "PoolRoute|{name}"}}"#,
            one.address, two.address
        )
    };
    std::fs::write(&path, pools("A")).unwrap();
    let file = path.to_str().unwrap();
    let args = ["proxy", "-p", "0", "--listen-addresses=127.0.0.1", "--num-proxies=1", ADMIN, "-f", file];
    let more = ["--reconfiguration-delay-ms=10", "--hot-keys=16", "--single-flight"];
    let proxy = Launch::bare(&args).args(&more).serve();
    let mut client = Client::connect(&proxy);
    let key = "<script>alert('&')</script>";
    client.set(key, b"v");
    for _ in 0..20 {
        client.check(format!("get {key}\r\n"), format!("VALUE {key} 0 1\r\nv\r\nEND\r\n"));
    }
    client.set("k", b"v");
    let (status, page) = get(&proxy, "/proxy");
    assert_eq!(status, 200);
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("&lt;script&gt;alert('&amp;')&lt;/script&gt;</td><td>20</td>"), "{page}");
    assert!(page.contains("Ch3") && page.contains("<h3>A</h3>") && page.contains(" %</td>"), "{page}");
    for cache in &caches {
        assert!(page.contains(&format!(">{}</td><td class=\"", cache.address)), "{page}");
    }
    assert!(page.contains("<dt>changes in use</dt><dd>0</dd>"), "{page}");
    let metrics = scrape(&proxy);
    assert_eq!(metrics[r#"corecached_proxy_pool_members{pool="A"}"#], 2.0);
    assert_eq!(metrics[r#"corecached_proxy_config_reloads_total{result="good"}"#], 0.0);
    assert!(metrics["corecached_proxy_hot_keys"] >= 1.0);
    for name in ["single_flight_joined_total", "hot_key_hits_total", "hot_key_bytes"] {
        assert_eq!(metrics[&format!("corecached_proxy_{name}")], 0.0, "{name}");
    }

    std::fs::write(&path, r#"{"pools": {}, "route": "PoolRoute|<b>none</b>"}"#).unwrap();
    wait_until("the wrong one to be shown", || {
        let page = get(&proxy, "/").1;
        page.contains("&lt;b&gt;none&lt;/b&gt;") && !page.contains("<b>")
    });
    std::fs::write(&path, pools("<i>")).unwrap();
    wait_until("the good one to be shown", || get(&proxy, "/").1.contains("<h3>&lt;i&gt;</h3>"));
    let page = get(&proxy, "/").1;
    assert!(page.contains("<dt>changes in use</dt><dd>1</dd>"), "{page}");
    assert!(page.contains("<dt>wrong ones</dt><dd>1</dd>"), "{page}");
    let metrics = scrape(&proxy);
    assert_eq!(metrics[r#"corecached_proxy_config_reloads_total{result="good"}"#], 1.0);
    assert_eq!(metrics[r#"corecached_proxy_config_reloads_total{result="wrong"}"#], 1.0);
}

#[test]
fn what_is_no_page_is_refused() {
    let server = Server::start(&[ADMIN]);
    assert_eq!(get(&server, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(&server, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(&server, "/nothing").0, 404);
    assert_eq!(get(&server, "/drain").0, 405);
    let admin = server.admin();
    assert_eq!(ask(admin, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").0, 405);
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
    assert_ne!(ask(admin, &head).0, 200);
    assert_ne!(ask(admin, "\0\0\0nonsense\r\n\r\n").0, 200);
    assert_eq!(get(&server, "/readyz").0, 200, "none of it changed anything");
}

#[test]
fn connections_that_ask_nothing_are_cut_off_and_others_get_their_turn() {
    let server = Server::start(&[ADMIN]);
    let _idle: Vec<TcpStream> =
        (0..2 * CONNECTIONS_MAX).map(|_| TcpStream::connect(server.admin()).unwrap()).collect();
    assert_eq!(get(&server, "/healthz").0, 200);
    Client::connect(&server).check("mn\r\n", "MN\r\n");
}

#[test]
fn on_sigterm_readiness_fails_first_and_serving_goes_on_for_a_while() {
    for &backend in Backend::all() {
        let mut server = Server::start_on(backend, 2, &[ADMIN, "--drain-delay-ms=3000"]);
        let mut client = Client::connect(&server);
        let start = Instant::now();
        server.signal(Signal::TERM);
        wait_until("readiness to fail", || get(&server, "/readyz").0 == 503);
        assert_eq!(get(&server, "/healthz").0, 200, "a draining server is no reason to kill it");
        client.set("k", b"still served");
        Client::connect(&server).check("mn\r\n", "MN\r\n");
        assert!(start.elapsed() < Duration::from_secs(3), "this machine is too slow to tell");
        let exit = server.exit_within(DEADLINE);
        assert_eq!(exit.code(), Some(0), "{}", exit.stderr);
        assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(client.rest(), b"");
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut server = Server::start(&["--drain-delay-ms=3600000", ADMIN]);
    server.signal(Signal::TERM);
    // The kernel merges two equal signals when the second comes before the first was handled.
    wait_until("the first to be seen", || get(&server, "/readyz").0 == 503);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_within(DEADLINE).code(), Some(0));
    let mut server = Server::start(&["--drain-delay-ms=3600000"]);
    server.signal(Signal::INT);
    assert_eq!(server.exit_within(DEADLINE).code(), Some(0));
}

#[test]
fn drain_announces_the_end_waits_and_leaves_the_server_serving() {
    let mut server = Server::start(&[ADMIN, "--drain-delay-ms=300"]);
    let target = server.admin().to_string();
    let start = Instant::now();
    let exit = Launch::bare(&["drain", &target, "--wait-ms", "400"]).exit();
    assert_eq!(exit.code(), Some(0), "{}", exit.stderr);
    assert!(start.elapsed() >= Duration::from_millis(400));
    assert_eq!(get(&server, "/readyz"), (503, "draining\n".to_owned()));
    assert_eq!(scrape(&server)["corecached_ready"], 0.0);
    Client::connect(&server).check("mn\r\n", "MN\r\n");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_within(DEADLINE).code(), Some(0));
    let exit = Launch::bare(&["drain", &target]).exit();
    assert_eq!(exit.code(), Some(1));
    assert!(exit.stderr.contains(&target) && exit.stderr.contains("connect"), "{}", exit.stderr);
}

#[test]
fn addresses_that_cannot_be_used_are_named() {
    for (value, remedy) in [("9150", "give an IP address"), ("here:9150", "give an IP address")] {
        let exit = Launch::new(&["--admin-listen", value]).exit();
        assert_eq!(exit.code(), Some(1));
        assert!(exit.stderr.contains("--admin-listen") && exit.stderr.contains(value), "{}", exit.stderr);
        assert!(exit.stderr.contains(remedy), "{}", exit.stderr);
    }
    let server = Server::start(&[ADMIN]);
    let taken = server.admin().to_string();
    let exit = Launch::new(&["--admin-listen", &taken]).exit();
    assert_eq!(exit.code(), Some(71));
    assert!(exit.stderr.contains("--admin-listen") && exit.stderr.contains(&taken), "{}", exit.stderr);
    let exit = Launch::new(&["--drain-delay-ms", "soon"]).exit();
    assert_eq!(exit.code(), Some(1));
    assert!(exit.stderr.contains("--drain-delay-ms") && exit.stderr.contains("soon"), "{}", exit.stderr);
}

#[test]
fn a_log_in_json_is_one_object_a_line() {
    let mut server = Server::start(&["-v", "--log-format=json", ADMIN]);
    server.signal(Signal::TERM);
    let exit = server.exit_within(DEADLINE);
    assert!(!exit.stderr.is_empty());
    for line in exit.stderr.lines() {
        let object: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for name in ["timestamp", "level", "message"] {
            assert!(object[name].is_string(), "{line} has no {name}");
        }
    }
    assert!(exit.stderr.contains("listening on"), "{}", exit.stderr);
}

/// Starts a proxy on two cores with a pool of all servers of `caches.test`, which it looks up at `dns`.
fn proxy_before_names(backend: Backend, port: u16, dns: u16, more: &[&str]) -> Server {
    let config = format!(
        r#"{{"pools": {{"A": {{"servers": ["caches.test:{port}"], "resolve": true}}}}, "route": "PoolRoute|A"}}"#
    );
    let dns = format!("--dns-server=127.0.0.1:{dns}");
    proxy(backend, 2, &[&[ADMIN, "--config-str", &config, &dns], more].concat())
}

#[test]
fn a_proxy_is_ready_when_its_pools_have_servers_and_then_no_request_meets_an_empty_one() {
    let Some(names) = Names::start() else { return };
    let cache = Server::start(&["-t", "1"]); // on 127.0.0.1
    for &backend in Backend::all() {
        names.tell(&[]);
        let late = LateNames::before(&names);
        let proxy = proxy_before_names(backend, cache.address.port(), late.port(), &[]);
        let unready = (503, "a pool has no server yet\n".to_owned());
        assert_eq!(get(&proxy, "/readyz"), unready, "nobody answered");
        assert_eq!(scrape(&proxy)["corecached_ready"], 0.0);
        assert_eq!(get(&proxy, "/healthz").0, 200, "it is not to be restarted for that");
        late.open();
        // The DNS server answers that the name has no address.
        late.wait_for_answers();
        assert_eq!(get(&proxy, "/readyz"), unready);
        let mut client = Client::connect(&proxy);
        client.check("set k 0 0 1\r\nx\r\n", "SERVER_ERROR pool A is empty\r\n");
        names.tell(&[1]);
        wait_until("the proxy to be ready", || get(&proxy, "/readyz") == (200, "ready\n".to_owned()));
        for number in 0..40 {
            client.set(&format!("k{number}"), b"x"); // on either core
        }
        names.tell(&[]);
        late.wait_for_answers();
        assert_eq!(get(&proxy, "/readyz").0, 200, "it stays so");
        assert!(!proxy.stderr().contains("--ready-wait-ms"), "{}", proxy.stderr());
    }
}

#[test]
fn a_proxy_waits_for_names_for_so_long_and_says_what_it_did_not_find() {
    let Some(names) = Names::start() else { return };
    names.tell(&[]);
    let proxy = proxy_before_names(Backend::Epoll, 1, names.port(), &["--ready-wait-ms=1500"]);
    assert_eq!(get(&proxy, "/readyz").0, 503);
    wait_until("the proxy to be ready all the same", || get(&proxy, "/readyz").0 == 200);
    wait_until("a warning", || proxy.stderr().contains("no server of pool A was found"));
    // With a wait of 0 the proxy is ready at once.
    let proxy = proxy_before_names(Backend::Epoll, 1, names.port(), &["--ready-wait-ms=0"]);
    assert_eq!(get(&proxy, "/readyz").0, 200);
}
