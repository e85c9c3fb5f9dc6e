//! Pools whose servers change while their keys are in use, with two proxies, and with corecached and
//! memcached as caches: no stored key is missing, and no deleted key comes back.

use rustix::process::Signal;

use super::proxy::proxy;
use super::support::{Backend, Client, Folder, Hosts, Launch, Names, Server, wait_for, wait_until};

/// Enough keys that every cache has some.
const KEYS: usize = 80;
/// Window in milliseconds: short, but longer than the time between the reloads of both proxies.
const GRACE_MS: u64 = 700;

fn config(servers: &[String], resolve: bool) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    format!(
        "{{\"pools\": {{\"A\": {{\"servers\": [{}], \"resolve\": {resolve}, \"warm_resize\": {{\"window_ms\": 60000, \
         \"grace_ms\": {GRACE_MS}}}}}}}, \"route\": \"PoolRoute|A\"}}",
        servers.join(",")
    )
}

/// Asserts that every key is there, with its value and flags.
fn check_all(client: &mut Client, proxy: &Server, what: &str) {
    for key in 0..KEYS {
        let reply = client.ask(&format!("mg k{key} v f\r\nget k{key}"));
        let expected = format!("VA 4 f{key}");
        assert!(reply.starts_with(&expected), "{what}: k{key}: {reply}\n{}", proxy.stderr());
        client.expect(format!("{key:04}\r\nVALUE k{key} {key} 4\r\n{key:04}\r\nEND\r\n"));
    }
}

fn delete_all(client: &mut Client) {
    for key in 0..KEYS {
        let reply = client.ask(&format!("delete k{key}"));
        assert!(matches!(reply.as_str(), "DELETED" | "NOT_FOUND"), "{reply}");
    }
}

#[test]
fn keys_follow_a_name_to_more_servers_and_to_fewer() {
    let Some(names) = Names::start() else { return };
    let caches = Hosts::start(21..=23);
    let items = |host: u8| caches.stat(host, "curr_items");
    let config = config(&[format!("caches.test:{}", caches.port())], true);
    for &backend in Backend::all() {
        names.tell(&[21, 22]);
        let dns = format!("--dns-server=127.0.0.1:{}", names.port());
        let proxy = proxy(backend, 2, &["--config-str", &config, &dns]);
        let mut client = Client::connect(&proxy);
        wait_until("the name to be known", || client.stat("num_servers") == 2);
        for key in 0..KEYS {
            client.check(format!("set k{key} {key} 500 4\r\n{key:04}\r\n"), "STORED\r\n");
        }
        names.tell(&[21, 22, 23]);
        wait_until("keys to be copied to a third server", || {
            check_all(&mut client, &proxy, "scale-out");
            items(23) > 0
        });
        let (copied, lost) = (client.stat("resize_copied"), client.stat("resize_lost"));
        assert!(copied > 0 && lost == 0, "{copied} {lost}");
        names.tell(&[23]);
        wait_until("keys to be copied to the one that stays", || {
            check_all(&mut client, &proxy, "scale-in");
            items(23) as usize >= KEYS
        });
        delete_all(&mut client);
        assert_eq!([21, 22, 23].map(items), [0, 0, 0], "what was deleted is nowhere");
        (0..KEYS).for_each(|key| client.check(format!("get k{key}\r\n"), "END\r\n"));
        assert_eq!([21, 22, 23].map(items), [0, 0, 0], "and leaves no leases");
    }
}

/// Two proxies with one configuration that changes, before real memcacheds.
struct Stage {
    caches: Vec<Server>,
    folder: Folder,
    proxies: Vec<Server>,
}

impl Stage {
    fn new(backend: Backend, caches: usize) -> Self {
        let caches: Vec<Server> = (0..caches).map(|_| Server::memcached(&[])).collect();
        let stage = Self { caches, folder: Folder::new(), proxies: Vec::new() };
        stage.tell(&[0]);
        let path = stage.folder.file("config");
        let args = ["-f", path.to_str().unwrap(), "--reconfiguration-delay-ms=10"];
        Self { proxies: (0..2).map(|_| proxy(backend, 2, &args)).collect(), ..stage }
    }

    /// Sets the servers of the pool to these caches.
    fn tell(&self, caches: &[usize]) {
        let servers: Vec<String> =
            caches.iter().map(|&cache| self.caches[cache].address.to_string()).collect();
        let path = self.folder.file("config");
        std::fs::write(path.with_extension("new"), config(&servers, false)).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    fn clients(&self) -> [Client; 2] {
        [Client::connect(&self.proxies[0]), Client::connect(&self.proxies[1])]
    }

    fn cache(&self, cache: usize) -> Client {
        Client::connect(&self.caches[cache])
    }

    /// Both proxies use `cache`, and fetch what it has not got.
    fn wait_for_copies_to(&self, cache: usize) {
        for (number, client) in self.clients().iter_mut().enumerate() {
            let key = format!("probe-{cache}-{number}");
            client.set(&key, b"x");
            wait_until("the new cache to be in use", || {
                assert_eq!(client.get(&key).as_deref(), Some(&b"x"[..]));
                self.cache(cache).get(&key).is_some()
            });
        }
    }
}

#[test]
fn every_command_finds_its_key_on_a_memcached_that_was_left() {
    for &backend in Backend::all() {
        let stage = Stage::new(backend, 2);
        let [mut client, mut other] = stage.clients();
        let names = [
            "append", "prepend", "replace", "incr", "decr", "touch", "gat", "gats", "gets", "add", "cas",
            "mg", "ma", "ms", "set", "delete", "ttl", "late",
        ];
        for name in names {
            client.check(format!("set {name} 7 500 2\r\n12\r\n"), "STORED\r\n");
        }
        // An exptime of more than 30 days is an absolute time.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let long = format!("set long 1 {} 1\r\nx\r\n", now + 5_000_000);
        client.check(long, "STORED\r\n");
        client.check("set ever 1 0 1\r\nx\r\n", "STORED\r\n");
        stage.tell(&[1]);
        stage.wait_for_copies_to(1);
        for (request, reply) in [
            ("append append 0 0 1\r\n3\r\nget append\r\n", "STORED\r\nVALUE append 7 3\r\n123\r\nEND\r\n"),
            (
                "prepend prepend 0 0 1\r\n0\r\nget prepend\r\n",
                "STORED\r\nVALUE prepend 7 3\r\n012\r\nEND\r\n",
            ),
            ("replace replace 9 0 1\r\n5\r\nget replace\r\n", "STORED\r\nVALUE replace 9 1\r\n5\r\nEND\r\n"),
            ("incr incr 5\r\n", "17\r\n"),
            ("decr decr 5\r\n", "7\r\n"),
            ("touch touch 100\r\n", "TOUCHED\r\n"),
            ("gat 100 gat\r\n", "VALUE gat 7 2\r\n12\r\nEND\r\n"),
            ("add add 0 0 1\r\nx\r\nget add\r\n", "NOT_STORED\r\nVALUE add 7 2\r\n12\r\nEND\r\n"),
            ("cas cas 0 0 1 987654\r\nx\r\nget cas\r\n", "EXISTS\r\nVALUE cas 7 2\r\n12\r\nEND\r\n"),
            ("mg mg v f k O5\r\n", "VA 2 f7 kmg O5\r\n12\r\n"),
            ("ma ma v D8 O3\r\n", "VA 2 O3\r\n20\r\n"),
            ("ms ms 1 MA O2 kx\r\n3\r\nmg ms v\r\n", "HD O2 kms\r\nVA 3\r\n123\r\n"),
            ("append nothing 0 0 1\r\n3\r\nincr nothing 1\r\n", "NOT_STORED\r\nNOT_FOUND\r\n"),
            ("touch nothing 9\r\nmg nothing v\r\nmg nothing v q\r\nmn\r\n", "NOT_FOUND\r\nEN\r\nMN\r\n"),
            ("add nothing 4 0 1\r\nx\r\nget nothing\r\n", "STORED\r\nVALUE nothing 4 1\r\nx\r\nEND\r\n"),
            ("set set 0 0 1\r\nx\r\nget set\r\n", "STORED\r\nVALUE set 0 1\r\nx\r\nEND\r\n"),
            ("delete delete\r\nget delete\r\n", "DELETED\r\nEND\r\n"),
            ("delete late noreply\r\nmd ever q\r\nmn\r\nget late ever\r\n", "MN\r\nEND\r\n"),
        ] {
            client.check(request, reply);
        }
        client.check("set ever 1 0 1\r\nx\r\n", "STORED\r\n");
        // The new server accepts the cas unique that it shows.
        let shown = client.ask("gets gets");
        client.expect("12\r\nEND\r\n");
        let cas = shown.rsplit(' ').next().unwrap().to_owned();
        other.check(format!("cas gets 0 0 1 {cas}\r\nx\r\n"), "STORED\r\n");
        client.check(format!("cas gets 0 0 1 {cas}\r\ny\r\n"), "EXISTS\r\n");
        let shown = client.ask("gats 100 gats");
        client.expect("12\r\nEND\r\n");
        let cas = shown.rsplit(' ').next().unwrap().to_owned();
        client.check(format!("cas gats 0 0 1 {cas}\r\nx\r\n"), "STORED\r\n");
        // A value that clients of the other proxy got is gone when a client of this one deletes it.
        other.check("get ttl\r\n", "VALUE ttl 7 2\r\n12\r\nEND\r\n");
        client.check("delete ttl\r\n", "DELETED\r\n");
        other.check("get ttl\r\n", "END\r\n");
        // Flags and the remaining TTL are copied, also a TTL of more than 30 days, as exactly as two clocks
        // agree.
        client.check("get long\r\n", "VALUE long 1 1\r\nx\r\nEND\r\n");
        let mut fresh = stage.cache(1);
        for (key, least, most) in [("touch", 80, 100), ("gat", 80, 100), ("long", 4_999_000, 5_000_002)] {
            // The client has its reply before the copy is stored.
            let ttl: i64 = wait_for(&format!("the copy of {key}"), || {
                fresh.ask(&format!("mg {key} t")).strip_prefix("HD t")?.parse().ok()
            });
            assert!((least..=most).contains(&ttl), "{key}: {ttl}");
        }
        for key in names.iter().filter(|name| !["mg", "add"].contains(name)) {
            let left = stage.cache(0).get(key);
            assert!(left.is_none() || ["gets", "gats"].contains(key), "{key} is still on the old server");
        }
    }
}

#[test]
fn a_server_that_went_away_at_once_is_a_miss() {
    let backend = Backend::all()[0];
    let mut stage = Stage::new(backend, 2);
    let [mut client, mut other] = stage.clients();
    client.set("k", b"v");
    stage.caches[0].signal(Signal::KILL);
    stage.caches[0].exit_within(std::time::Duration::from_secs(10));
    stage.tell(&[1]);
    wait_until("the new server to take a value", || client.ask("set k 0 0 1\r\nw") == "STORED");
    wait_until("the other proxy to show it", || other.get("k").is_some());
    for key in 0..KEYS {
        client.check(format!("get n{key}\r\ndelete n{key}\r\n"), "END\r\nNOT_FOUND\r\n");
        client.check(format!("set n{key} 0 0 1\r\nx\r\n"), "STORED\r\n");
        other.check(format!("get n{key}\r\n"), format!("VALUE n{key} 0 1\r\nx\r\nEND\r\n"));
    }
}

#[test]
fn a_warm_resize_that_cannot_be_is_refused_by_name() {
    for (pool, told) in [
        ("\"servers\": [\"a:1\"], \"warm_resize\": {\"window_ms\": 5, \"grace_ms\": 5}", "grace_ms"),
        ("\"servers\": [\"a:1\"], \"warm_resize\": {\"windows_ms\": 5}", "windows_ms"),
        ("\"servers\": [\"a:1\"], \"warm_resize\": 5", "warm_resize"),
        ("\"servers\": [\"a:1\"], \"weights\": [1], \"warm_resize\": {\"window_ms\": 5000}", "weights"),
    ] {
        let config = format!("{{\"pools\": {{\"A\": {{{pool}}}}}, \"route\": \"PoolRoute|A\"}}");
        let exit = Launch::bare(&["check-config", "--config-str", &config]).exit();
        assert_eq!(exit.code(), Some(78), "{pool}: {}", exit.stderr);
        assert!(exit.stderr.contains(told), "{pool}: {}", exit.stderr);
    }
    let config = "{\"pools\": {\"A\": {\"servers\": [\"a:1\"]}}, \"route\": \"PoolRoute|A\"}";
    let exit = Launch::bare(&["check-config", "--config-str", config, "--warm-resize-ms=60000"]).exit();
    assert_eq!(exit.code(), Some(0), "{}", exit.stderr);
    assert!(exit.stdout.contains("\"window_ms\": 60000"), "{}", exit.stdout);
}
