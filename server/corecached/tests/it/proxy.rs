//! The proxy with real caches, which are killed, stopped, moved and renamed.

use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::support::{Backend, Client, Folder, Hosts, Launch, Mounted, Names, Server, wait_until};

/// Enough keys that every cache has some.
const KEYS: usize = 60;

/// Starts a proxy with these arguments, on a free port.
#[track_caller]
pub fn proxy(backend: Backend, shards: usize, args: &[&str]) -> Server {
    launch(backend, shards, args).serve()
}

/// The launch of a proxy with these arguments, on a free port.
pub fn launch(backend: Backend, shards: usize, args: &[&str]) -> Launch {
    let shards = shards.to_string();
    let fixed =
        ["proxy", "-p", "0", "--listen-addresses=127.0.0.1", "--num-proxies", &shards, backend.flag()];
    Launch::bare(&fixed).args(args)
}

/// The configuration of mcrouter's tutorial, with its comment and its trailing comma.
fn config(servers: &[String]) -> String {
    let list = servers.iter().map(|server| format!("\"{server}\",")).collect::<String>();
    format!("{{\"pools\": {{\"A\": {{\"servers\": [ // pods\n{list}]}}}}, \"route\": \"PoolRoute|A\"}}")
}

pub fn addresses(caches: &[Server]) -> Vec<String> {
    caches.iter().map(|cache| cache.address.to_string()).collect()
}

pub fn caches(count: usize) -> Vec<Server> {
    (0..count).map(|_| Server::start(&["-t", "1"])).collect()
}

/// Runs `check` on every backend, with one shard and with two.
pub fn everywhere(check: impl Fn(Backend, usize)) {
    for &backend in Backend::all() {
        for shards in [1, 2] {
            check(backend, shards);
        }
    }
}

/// The count of items of each cache, without the proxy.
pub fn items(caches: &[Server]) -> Vec<u64> {
    caches.iter().map(|cache| Client::connect(cache).stat("curr_items")).collect()
}

#[test]
fn every_kind_of_command_goes_through() {
    everywhere(|backend, shards| {
        let caches = caches(3);
        let proxy = proxy(backend, shards, &["--config-str", &config(&addresses(&caches))]);
        let mut client = Client::connect(&proxy);
        for (request, reply) in [
            ("set a 5 0 3\r\nabc\r\n", "STORED\r\n"),
            ("add a 5 0 3\r\nabc\r\n", "NOT_STORED\r\n"),
            ("append a 0 0 1\r\nd\r\n", "STORED\r\n"),
            ("get a\r\n", "VALUE a 5 4\r\nabcd\r\nEND\r\n"),
            ("get nothing\r\n", "END\r\n"),
            ("gets a\r\n", "VALUE a 5 4 1\r\nabcd\r\nEND\r\n"),
            ("cas a 1 0 1 9\r\nx\r\n", "EXISTS\r\n"),
            ("cas a 1 0 1 1\r\nx\r\n", "STORED\r\n"),
            ("set n 0 0 1 noreply\r\n5\r\nincr n 7\r\n", "12\r\n"),
            ("decr n 2\r\n", "10\r\n"),
            ("incr nothing 2\r\n", "NOT_FOUND\r\n"),
            ("touch n 100\r\n", "TOUCHED\r\n"),
            ("gat 100 n\r\n", "VALUE n 0 2\r\n10\r\nEND\r\n"),
            ("mg n v s k Oq\r\n", "VA 2 s2 kn Oq\r\n10\r\n"),
            ("mg nothing v q\r\nmn\r\n", "MN\r\n"),
            ("ms m 2 T0 F3 q\r\nhi\r\nmn\r\n", "MN\r\n"),
            ("mg bQ== b k f v\r\n", "VA 2 km f3\r\nhi\r\n"),
            ("md m\r\n", "HD\r\n"),
            ("ma n D5 v\r\n", "VA 2\r\n15\r\n"),
            ("delete n\r\n", "DELETED\r\n"),
            ("delete n\r\n", "NOT_FOUND\r\n"),
            ("version\r\n", "VERSION 1.6.45\r\n"),
            ("flush_all\r\n", "SERVER_ERROR Command disabled\r\n"),
            ("stats nothing\r\n", "CLIENT_ERROR bad stats command\r\n"),
        ] {
            client.check(request, reply);
        }
        client.send("nonsense\r\n");
        assert_eq!(client.rest(), b"CLIENT_ERROR malformed request\r\n");
    });
}

#[test]
fn a_refused_line_is_answered_and_the_connection_goes_on() {
    everywhere(|backend, shards| {
        let caches = caches(2);
        let proxy = proxy(backend, shards, &["--config-str", &config(&addresses(&caches))]);
        let mut client = Client::connect(&proxy);
        client.check("set good 0 0 1\r\nx\r\n", "STORED\r\n");
        let good = "VALUE good 0 1\r\nx\r\nEND\r\n";
        let long = "k".repeat(251);
        for (refused, answer) in [
            (format!("get {long}"), "CLIENT_ERROR bad key\r\n"),
            (format!("get good {long} good"), "CLIENT_ERROR bad key\r\n"),
            (format!("gat 0 {long}"), "CLIENT_ERROR bad key\r\n"),
            (format!("set {long} 0 0 9\r\nflush_all"), "CLIENT_ERROR bad key\r\n"),
            (format!("set {long} 0 0 9 noreply\r\nflush_all"), ""),
            (format!("delete {long}"), "CLIENT_ERROR bad key\r\n"),
            (format!("delete {long} noreply"), ""),
            (format!("mg {long} v"), "CLIENT_ERROR bad key\r\n"),
            ("set good x 0 9\r\nflush_all".into(), "CLIENT_ERROR bad command line format\r\n"),
            ("cas good 0 0 9\r\nflush_all".into(), "CLIENT_ERROR bad command line format\r\n"),
            ("ms good 9 !\r\nflush_all".into(), "CLIENT_ERROR invalid flag\r\n"),
            ("mg good !".into(), "CLIENT_ERROR invalid flag\r\n"),
            ("incr good -1".into(), "CLIENT_ERROR invalid numeric delta argument\r\n"),
            ("incr good -1 noreply".into(), ""),
            ("touch good x".into(), "CLIENT_ERROR invalid exptime argument\r\n"),
            ("gat x good".into(), "CLIENT_ERROR invalid exptime argument\r\n"),
            ("flush_all".into(), "SERVER_ERROR Command disabled\r\n"),
            ("flush_all noreply".into(), ""),
            ("flush_all x noreply".into(), ""),
            ("stats items".into(), "END\r\n"),
            ("stats slabs".into(), "END\r\n"),
            ("get /no/where/good".into(), "SERVER_ERROR RootRoute: No rh found\r\n"),
            ("gets /no/where/good good".into(), "SERVER_ERROR RootRoute: No rh found\r\n"),
            ("delete nothing 100".into(), "NOT_FOUND\r\n"),
        ] {
            client.check(format!("get good\r\n{refused}\r\nget good\r\n"), format!("{good}{answer}{good}"));
        }
        for closes in ["nonsense", "get", "set good 0 0", "set good 0 0 -1", "GET / HTTP/1.1", "a"] {
            let mut client = Client::connect(&proxy);
            client.send(format!("{closes}\r\nflush_all\r\n"));
            assert_eq!(client.rest(), b"CLIENT_ERROR malformed request\r\n", "{closes}");
        }
    });
}

#[test]
fn a_flush_stands_between_what_one_client_asked_before_and_after() {
    everywhere(|backend, shards| {
        let caches = caches(2);
        let servers = config(&addresses(&caches));
        let proxy = proxy(backend, shards, &["--enable-flush-cmd", "--config-str", &servers]);
        let mut client = Client::connect(&proxy);
        for round in 0..50 {
            let mut request = String::new();
            for key in 0..KEYS {
                let _ = write!(request, "set {round}-{key} 0 0 1 noreply\r\nx\r\n");
            }
            request.push_str(if round % 2 == 0 { "flush_all noreply\r\n" } else { "flush_all\r\n" });
            for key in 0..KEYS {
                let _ = write!(request, "get {round}-{key}\r\n");
            }
            let flushed = if round % 2 == 0 { "" } else { "OK\r\n" };
            client.check(&request, &(flushed.to_owned() + &"END\r\n".repeat(KEYS)));
        }
    });
}

#[test]
fn a_get_of_many_keys_is_answered_in_their_order_from_all_caches() {
    everywhere(|backend, shards| {
        let caches = caches(3);
        let proxy = proxy(backend, shards, &["--config-str", &config(&addresses(&caches))]);
        let mut client = Client::connect(&proxy);
        let (mut request, mut reply) = ("get".to_owned(), String::new());
        for number in 0..KEYS {
            let value = "v".repeat(number * 37);
            client.set(&format!("key-{number}"), value.as_bytes());
            let _ = write!(request, " key-{number} missing-{number}");
            let _ = write!(reply, "VALUE key-{number} 0 {}\r\n{value}\r\n", value.len());
        }
        client.check(format!("{request}\r\nmn\r\n"), format!("{reply}END\r\nMN\r\n"));
        assert!(items(&caches).iter().all(|&items| items > 0), "a cache has nothing");
    });
}

#[test]
fn values_up_to_the_largest_item_pass_in_both_directions() {
    everywhere(|backend, shards| {
        let caches = caches(2);
        let proxy = proxy(backend, shards, &["--config-str", &config(&addresses(&caches))]);
        let mut client = Client::connect(&proxy);
        for len in [0, 1, 4095, 4096, 65_535, 65_536, 65_537, 300_000, 1_000_000] {
            let value: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            client.set(&format!("v{len}"), &value);
            assert_eq!(client.get(&format!("v{len}")).as_deref(), Some(&value[..]), "{len} bytes");
        }
        client.check(
            [&b"set huge 0 0 1100000\r\n"[..], &vec![b'x'; 1_100_000], b"\r\n"].concat(),
            "SERVER_ERROR object too large for cache\r\n",
        );
        client.check("get v1\r\n", "VALUE v1 0 1\r\n\0\r\nEND\r\n");
    });
}

#[test]
fn a_cache_that_is_gone_costs_its_own_keys_until_it_is_back() {
    everywhere(|backend, shards| {
        let mut caches = caches(3);
        let proxy = proxy(
            backend,
            shards,
            &["--config-str", &config(&addresses(&caches)), "--probe-timeout-initial=50"],
        );
        let mut client = Client::connect(&proxy);
        for number in 0..KEYS {
            client.set(&format!("key-{number}"), b"before");
        }
        let lost = items(&caches)[1] as usize;
        let gone = caches.remove(1);
        let port = gone.address.port().to_string();
        gone.signal(Signal::KILL);
        drop(gone);
        let mut found = 0;
        for number in 0..KEYS {
            found += usize::from(client.get(&format!("key-{number}")).is_some());
        }
        assert_eq!(found, KEYS - lost, "keys of other caches were lost");
        let errors = (0..KEYS)
            .filter(|number| client.ask(&format!("set key-{number} 0 0 1\r\nx")).starts_with("SERVER_ERROR"))
            .count();
        assert_eq!(errors, lost);
        assert_eq!(client.stats("suspect_servers").len(), 1);
        let _back = Launch::bare(&["-l", "127.0.0.1", "-p", &port, "-t", "1"]).serve();
        wait_until("all keys to be stored again", || {
            (0..KEYS).all(|number| client.ask(&format!("set key-{number} 0 0 1\r\nx")) == "STORED")
        });
        assert!(client.stats("suspect_servers").is_empty());
    });
}

#[test]
fn one_key_that_fails_is_the_reply_to_its_whole_line() {
    everywhere(|backend, shards| {
        let mut caches = caches(2);
        let args = ["--config-str", &config(&addresses(&caches)), "--disable-miss-on-get-errors"];
        let proxy = proxy(backend, shards, &args);
        let mut client = Client::connect(&proxy);
        let (mut request, mut found) = ("get".to_owned(), String::new());
        for number in 0..KEYS {
            client.set(&format!("key-{number}"), b"v");
            let _ = write!(request, " key-{number}");
            let _ = write!(found, "VALUE key-{number} 0 1\r\nv\r\n");
        }
        request.push_str("\r\n");
        client.check(&request, format!("{found}END\r\n"));
        drop(caches.remove(0));
        let reply = client.ask(request.trim_end());
        assert!(reply.starts_with("SERVER_ERROR "), "{reply}");
        client.check("mn\r\n", "MN\r\n");
        // Replies to a line of this length are not held back, so values may have been sent before the error.
        let reply = client.ask(&format!("{}{}", request.trim_end(), " missing".repeat(600)));
        assert!(reply.starts_with("SERVER_ERROR ") || reply.starts_with("VALUE "), "{reply}");
    });
}

#[test]
fn options_that_are_gone_are_named_and_change_nothing() {
    let cache = Server::start(&["-o", "core_ports=0"]);
    let config = config(&[cache.address.to_string()]);
    let proxy = proxy(Backend::Epoll, 1, &["--config-str", &config, "--core-aware"]);
    Client::connect(&proxy).set("k", b"v");
    assert_eq!(Client::connect(&cache).get("k"), Some(b"v".to_vec()));
    for (server, option) in [(&cache, "-o core_ports is gone"), (&proxy, "--core-aware is gone")] {
        wait_until(option, || server.stderr().contains(option));
    }
}

#[test]
fn gets_for_one_key_are_sent_once_while_one_is_under_way() {
    everywhere(|backend, shards| {
        let caches = caches(1);
        let args =
            ["--config-str", &config(&addresses(&caches)), "--single-flight", "--server-timeout=20000"];
        let proxy = proxy(backend, shards, &args);
        let mut direct = Client::connect(&caches[0]);
        direct.set("k", b"value");
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(&proxy)).collect();
        clients[0].check("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
        let before = direct.stat("cmd_get");
        caches[0].stop();
        for client in &mut clients {
            client.send("get k\r\nget k other\r\n");
        }
        let mut other = Client::connect(&proxy);
        wait_until("all to have been asked", || other.stat("single_flight_joined") >= 19 + 20 + 19);
        caches[0].signal(Signal::CONT);
        for client in &mut clients {
            client.expect("VALUE k 0 5\r\nvalue\r\nEND\r\nVALUE k 0 5\r\nvalue\r\nEND\r\n");
        }
        assert_eq!(direct.stat("cmd_get") - before, 2, "one for each key");
    });
}

#[test]
fn values_of_hot_keys_are_kept_until_something_is_written_through_the_proxy() {
    everywhere(|backend, shards| {
        let caches = caches(1);
        let config = config(&addresses(&caches));
        let args =
            ["--config-str", &config, "--hot-keys=10", "--hot-key-stale-ms=60000", "--enable-flush-cmd"];
        let proxy = proxy(backend, shards, &args);
        let (mut direct, mut client) = (Client::connect(&caches[0]), Client::connect(&proxy));
        let mut other = Client::connect(&proxy);
        let mut version = 0;
        for write in ["set", "/././", "ms", "flush"] {
            version += 1;
            let value = format!("{version}");
            match write {
                "set" => client.check(format!("set k 0 0 1\r\n{value}\r\n"), "STORED\r\n"),
                "ms" => client.check(format!("ms aw== 1 b\r\n{value}\r\n"), "HD\r\n"),
                "/././" => client.check(format!("set /././k 0 0 1\r\n{value}\r\n"), "STORED\r\n"),
                _ => {
                    client.check("flush_all\r\n", "OK\r\n");
                    direct.check(format!("set k 0 0 1\r\n{value}\r\n"), "STORED\r\n");
                }
            }
            for _ in 0..3 {
                assert_eq!(other.get("k").as_deref(), Some(value.as_bytes()), "after {write}");
            }
            direct.set("k", b"elsewhere");
            assert_eq!(client.get("k").as_deref(), Some(value.as_bytes()), "kept after {write}");
        }
        let hot = client.stats("hot");
        assert!(hot["k"].starts_with("count:") && hot["k"].contains(" kept_bytes:1"), "{hot:?}");
        assert!(client.stat("hot_key_hits") >= 4);
    });
}

/// Starts a cache that answers `get big` with `sent` bytes of a value of `len` and no more. The connection
/// breaks when the stream is dropped, so that the proxy has forwarded what was sent before.
fn breaks_off(len: usize, sent: usize) -> (String, JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let cache = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 9];
        stream.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"get big\r\n");
        stream.write_all(format!("VALUE big 0 {len}\r\n").as_bytes()).unwrap();
        stream.write_all(&vec![b'v'; sent]).unwrap();
        stream
    });
    (address, cache)
}

#[test]
fn a_large_value_that_breaks_off_ends_the_connection_of_its_client_alone() {
    everywhere(|backend, shards| {
        let (address, cache) = breaks_off(1_000_000, 300_000);
        let proxy = proxy(backend, shards, &["--config-str", &config(&[address])]);
        let (mut client, mut other) = (Client::connect(&proxy), Client::connect(&proxy));
        client.send("get big\r\n");
        client.expect("VALUE big 0 1000000\r\n");
        client.expect(vec![b'v'; 300_000]);
        drop(cache.join().unwrap());
        assert_eq!(client.rest(), b"");
        other.check("mn\r\n", "MN\r\n");
    });
}

#[test]
fn nothing_that_was_asked_after_a_large_value_that_breaks_off_is_taken_for_the_rest_of_it() {
    everywhere(|backend, shards| {
        let (address, cache) = breaks_off(100_000, 99_990);
        let proxy = proxy(backend, shards, &["--config-str", &config(&[address])]);
        let mut client = Client::connect(&proxy);
        client.send("get big\r\nmn\r\nversion\r\n");
        client.expect("VALUE big 0 100000\r\n");
        client.expect(vec![b'v'; 99_990]);
        drop(cache.join().unwrap());
        assert_eq!(client.rest(), b"");
        Client::connect(&proxy).check("mn\r\n", "MN\r\n");
    });
}

#[test]
fn a_cache_that_stalls_times_out_is_ejected_and_comes_back() {
    everywhere(|backend, shards| {
        let caches = caches(2);
        let args = ["--config-str", &config(&addresses(&caches)), "--server-timeout=1000"];
        let proxy = proxy(backend, shards, &[&args[..], &["--probe-timeout-initial=50"]].concat());
        let mut client = Client::connect(&proxy);
        for number in 0..KEYS {
            client.set(&format!("key-{number}"), b"before");
        }
        caches[0].stop();
        let mut replies: Vec<String> = Vec::new();
        for number in 0..KEYS {
            replies.push(client.ask(&format!("set key-{number} 0 0 1\r\nx")));
        }
        let stored = replies.iter().filter(|reply| *reply == "STORED").count() as u64;
        let timeouts = replies.iter().filter(|reply| *reply == "SERVER_ERROR timeout").count();
        assert_eq!(stored, items(&caches[1..])[0], "{replies:?}");
        // After three timeouts in a row on each core no request waits any more.
        assert!(timeouts >= 1 && timeouts <= 3 * shards, "{replies:?}");
        caches[0].signal(Signal::CONT);
        wait_until("all keys to be stored again", || {
            (0..KEYS).all(|number| client.ask(&format!("set key-{number} 0 0 1\r\nx")) == "STORED")
        });
    });
}

#[test]
fn a_changed_configuration_is_used_and_a_wrong_one_is_not() {
    everywhere(|backend, shards| {
        let caches = caches(2);
        let addresses = addresses(&caches);
        let folder = Mounted::new(&[("config.json", &config(&addresses[..1]))]);
        let put = |text: &str| folder.hold(&[("config.json", text)]);
        let path = folder.path("config.json");
        let proxy = proxy(backend, shards, &["-f", &path, "--reconfiguration-delay-ms=10"]);
        let mut client = Client::connect(&proxy);
        client.set("k", b"in the first");
        put(&config(&addresses[1..]));
        wait_until("the second cache to be used", || client.get("k").is_none());
        put("{\"pools\": {\"A\": {\"servers\": 7}}, \"route\": \"PoolRoute|A\"}");
        wait_until("the mistake to be told", || {
            proxy.stderr().contains("the configuration before stays in use")
        });
        assert!(proxy.stderr().contains("config.json:1: pools.A.servers"), "{}", proxy.stderr());
        client.set("k", b"in the second");
        assert_eq!(Client::connect(&caches[1]).get("k").as_deref(), Some(&b"in the second"[..]));
        put(&config(&addresses[..1]));
        wait_until("the first cache to be used again", || {
            client.get("k").as_deref() == Some(b"in the first")
        });
    });
}

#[test]
fn a_configuration_that_is_wrong_ends_the_start_with_its_place() {
    for (config, told) in [
        ("{\"route\": \"PoolRoute|A\"}", "A"),
        (
            "{\"pools\": {\"A\": {\"servers\": [\"a:b:c:d:e:f\"]}}, \"route\": \"PoolRoute|A\"}",
            "pools.A.servers",
        ),
        ("{", "--config"),
    ] {
        let exit = Launch::bare(&["proxy", "-p", "0", "--config-str", config]).exit();
        assert_eq!(exit.code(), Some(78), "{}", exit.stderr);
        for mode in ["--validate-config", "--validate-config=exit", "--validate-config=run"] {
            let exit = launch(Backend::all()[0], 1, &[mode, "--config-str", config]).exit();
            assert_eq!(exit.code(), Some(3), "{mode}: {}", exit.stderr);
        }
        assert!(exit.stderr.contains(told), "{}", exit.stderr);
    }
    let exit = Launch::bare(&["check-config", "--config-str", &config(&["127.0.0.1:1".into()])]).exit();
    assert_eq!(exit.code(), Some(0), "{}", exit.stderr);
    assert!(exit.stdout.contains("127.0.0.1:1"), "{}", exit.stdout);
}

#[test]
fn a_failover_route_answers_for_a_cache_that_is_gone() {
    let caches = caches(2);
    let servers = addresses(&caches);
    let config = format!(
        "{{\"pools\": {{\"main\": {{\"servers\": [\"{}\"]}}, \"gutter\": {{\"servers\": [\"{}\"]}}}}, \
         \"route\": {{\"type\": \"FailoverRoute\", \"children\": [\"PoolRoute|main\", \"PoolRoute|gutter\"]}}}}",
        servers[0], servers[1]
    );
    for &backend in Backend::all() {
        let proxy = proxy(backend, 2, &["--config-str", &config]);
        let mut client = Client::connect(&proxy);
        client.set("k", b"main");
        caches[0].stop();
        client.set("k", b"gutter");
        assert_eq!(client.get("k").as_deref(), Some(&b"gutter"[..]));
        caches[0].signal(Signal::CONT);
        Client::connect(&caches[1]).check("flush_all\r\n", "OK\r\n");
    }
}

#[test]
fn a_pool_follows_the_addresses_of_its_name() {
    let Some(names) = Names::start() else { return };
    let caches = Hosts::start(11..=13);
    let items = |host: u8| caches.stat(host, "curr_items");
    let config = format!(
        "{{\"pools\": {{\"A\": {{\"servers\": [\"caches.test:{}\"], \"resolve\": true}}}}, \"route\": \"PoolRoute|A\"}}",
        caches.port()
    );
    for &backend in Backend::all() {
        names.tell(&[11, 12]);
        let dns = format!("--dns-server=127.0.0.1:{}", names.port());
        let proxy = proxy(backend, 2, &["--config-str", &config, &dns]);
        let mut client = Client::connect(&proxy);
        wait_until("the name to be known", || client.stat("num_servers") == 2);
        for number in 0..KEYS {
            client.set(&format!("key-{number}"), b"x");
        }
        assert!(items(11) > 0 && items(12) > 0 && items(13) == 0);
        names.tell(&[11, 12, 13]);
        let start = Instant::now();
        wait_until("the third cache to be used", || {
            (0..KEYS).for_each(|number| client.set(&format!("key-{number}"), b"x"));
            items(13) > 0
        });
        println!("{backend:?}: a third address was used after {:?}", start.elapsed());
        let moved = items(13) as usize;
        assert!(moved < KEYS * 2 / 3, "{moved} of {KEYS} keys moved");
        names.tell(&[13]);
        wait_until("only the third cache to be used", || {
            (0..KEYS).all(|number| client.ask(&format!("set key-{number} 0 0 1\r\ny")) == "STORED")
                && items(13) as usize >= KEYS
        });
        for host in 11..=13 {
            caches.client(host).check("flush_all\r\n", "OK\r\n");
        }
    }
}

#[test]
fn thousands_of_clients_share_a_few_connections() {
    let caches = caches(2);
    for &backend in Backend::all() {
        let proxy = proxy(backend, 2, &["--config-str", &config(&addresses(&caches))]);
        let mut clients: Vec<Client> = (0..2000).map(|_| Client::connect(&proxy)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("set k{number} 0 0 4\r\n{number:04}\r\nget k{number}\r\n"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            client.expect(format!("STORED\r\nVALUE k{number} 0 4\r\n{number:04}\r\nEND\r\n"));
        }
        for cache in &caches {
            let connections = Client::connect(cache).stat("curr_connections");
            assert!(connections <= 4, "{connections} connections for two cores");
        }
    }
}

#[test]
fn deletes_that_no_cache_takes_are_kept_and_delivered_when_it_is_back() {
    everywhere(|backend, shards| {
        let caches = caches(1);
        let folder = Folder::new();
        let spool = folder.path().join("spool");
        let config = config(&addresses(&caches));
        let args = [
            "--config-str",
            &config,
            "--async-dir",
            spool.to_str().unwrap(),
            "--async-replay-ms=50",
            "--server-timeout=100",
            "--timeouts-until-tko=1",
            "--probe-timeout-initial=100",
        ];
        let proxy = proxy(backend, shards, &args);
        let mut client = Client::connect(&proxy);
        for key in 0..KEYS {
            client.set(&format!("k{key}"), b"v");
        }
        caches[0].stop();
        for key in 0..KEYS {
            let (request, reply) = match key % 3 {
                0 => (format!("delete k{key}\r\n"), "NOT_FOUND\r\n"),
                1 => (format!("md k{key} O1\r\n"), "NF O1\r\n"),
                _ => (format!("delete k{key} noreply\r\n"), ""),
            };
            client.check(format!("{request}mn\r\n"), format!("{reply}MN\r\n"));
        }
        assert_eq!(client.stat("asynclog_requests"), KEYS as u64);
        caches[0].signal(Signal::CONT);
        wait_until("every key to be gone", || items(&caches) == [0]);
        wait_until("the spool to be empty", || std::fs::read_dir(&spool).unwrap().count() == 0);
    });
}

#[test]
fn a_spool_outlives_its_proxy_and_is_replayed_by_hand() {
    let caches = caches(1);
    let folder = Folder::new();
    let spool = folder.path().to_str().unwrap();
    let dead = "127.0.0.1:1".to_owned();
    let config = config(&[dead]);
    let args = ["--config-str", &config, "-a", spool, "--async-replay-ms=0"];
    let mut proxy = proxy(Backend::all()[0], 1, &args);
    Client::connect(&proxy).check("delete k\r\n", "NOT_FOUND\r\n");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_within(Duration::from_secs(10)).code(), Some(0));
    let replay = || Launch::bare(&["replay", spool]).exit();
    let exit = replay();
    assert_eq!((exit.code(), exit.stdout.trim()), (Some(1), "0 delivered, 1 kept, 0 unreadable"));
    // The cache has another address now.
    let hour = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(hour).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    let port = caches[0].address.port().to_string();
    std::fs::write(&file, text.replace("\"127.0.0.1\",1,", &format!("\"127.0.0.1\",{port},"))).unwrap();
    Client::connect(&caches[0]).set("k", b"v");
    let exit = replay();
    assert_eq!((exit.code(), exit.stdout.trim()), (Some(0), "1 delivered, 0 kept, 0 unreadable"));
    assert_eq!(items(&caches), [0]);
    let exit = Launch::bare(&["replay", "/nowhere/at/all"]).exit();
    assert_eq!(exit.code(), Some(1));
    assert!(exit.stderr.contains("/nowhere/at/all"), "{}", exit.stderr);
}

#[test]
fn without_a_spool_a_failed_delete_is_answered_with_the_error() {
    let config = config(&["127.0.0.1:1".to_owned()]);
    for args in [&["--asynclog-disable"][..], &["-a", "/proc/no/folder"], &["-a", "/dev/null"]] {
        let args = [&["--config-str", &config], args].concat();
        let proxy = proxy(Backend::all()[0], 1, &args);
        Client::connect(&proxy).check("delete k\r\n", "SERVER_ERROR connection error\r\n");
        assert_eq!(proxy.stderr().contains("--async-dir"), args.contains(&"-a"), "{}", proxy.stderr());
    }
}
