//! `stats`: the names that monitoring reads, and correct numbers.

use crate::support::{Backend, Client, Launch, Memcached, Server, Stats, free_port, wait_for, wait_until};

/// The names of `stats` that exporters and agents read.
const NAMES: &str = "pid uptime time version pointer_size rusage_user rusage_system max_connections curr_connections \
    total_connections rejected_connections connection_structures cmd_get cmd_set cmd_flush cmd_touch cmd_meta \
    get_hits get_misses get_expired get_flushed delete_misses delete_hits incr_misses incr_hits decr_misses \
    decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large store_no_memory auth_cmds \
    auth_errors bytes_read bytes_written limit_maxbytes accepting_conns listen_disabled_num threads conn_yields \
    hash_power_level hash_bytes hash_is_expanding bytes curr_items total_items expired_unfetched evicted_unfetched \
    evictions reclaimed crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm \
    moves_within_lru direct_reclaims lru_bumps_dropped unexpected_napi_ids round_robin_fallback lru_crawler_starts \
    lru_crawler_running \
    malloc_fails slabs_moved log_worker_dropped";
const SETTINGS: &str = "maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask \
    growth_factor chunk_size num_threads cas_enabled tcp_backlog binding_protocol item_size_max lru_crawler \
    lru_crawler_sleep lru_crawler_tocrawl lru_maintainer_thread hot_lru_pct warm_lru_pct hot_max_factor \
    warm_max_factor flush_enabled dump_enabled hash_algorithm detail_enabled";
const SLABS: &str = "1:chunk_size 1:chunks_per_page 1:total_pages 1:total_chunks 1:used_chunks 1:free_chunks \
    1:free_chunks_end 1:mem_requested 1:get_hits 1:cmd_set 1:delete_hits 1:incr_hits 1:decr_hits 1:cas_hits \
    1:cas_badval 1:touch_hits active_slabs total_malloced";
const ITEMS: &str = "items:1:number items:1:number_hot items:1:number_warm items:1:number_cold \
    items:1:evicted items:1:outofmemory items:1:tailrepairs \
    items:1:reclaimed items:1:expired_unfetched items:1:evicted_unfetched items:1:evicted_active \
    items:1:crawler_reclaimed items:1:crawler_items_checked items:1:lrutail_reflocked items:1:moves_to_cold \
    items:1:moves_to_warm items:1:moves_within_lru items:1:direct_reclaims items:1:hits_to_hot \
    items:1:hits_to_warm items:1:hits_to_cold items:1:hits_to_temp";
/// The names of memcached whose values are not known here, and would not always be 0.
const LEFT_OUT: &str = "read_buf_count read_buf_bytes read_buf_bytes_free reserved_fds time_in_listen_disabled_us \
    age age_hot age_warm evicted_nonzero evicted_time";
/// The names with values that are not numbers.
const TEXTS: &str = "version inter evictions domain_socket cas_enabled binding_protocol lru_crawler \
    lru_maintainer_thread flush_enabled dump_enabled hash_algorithm detail_enabled";

fn check_names(stats: &Stats, names: &str) {
    for name in names.split_whitespace() {
        let value = stats.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        let is_text = TEXTS.split_whitespace().any(|text| text == name);
        assert!(is_text || value.parse::<f64>().is_ok(), "{name} is {value}, not a number");
    }
}

#[test]
fn all_names_that_monitoring_reads_are_there() {
    let server = Server::start(&["-t", "2"]);
    let mut client = Client::connect(&server);
    client.set("k", b"v");
    check_names(&client.stats(""), NAMES);
    check_names(&client.stats("settings"), SETTINGS);
    check_names(&client.stats("slabs"), SLABS);
    check_names(&client.stats("items"), ITEMS);
    assert_eq!(client.stats("sizes")["sizes_status"], "disabled");
    let conns = client.stats("conns");
    assert!(conns.values().any(|value| value.starts_with("tcp:127.0.0.1:")), "{conns:?}");
    // The addresses that it listens on, and the one that each client connected to.
    let listens = format!("tcp:{}", server.address);
    let named = |ending: &str| {
        let of = |(name, value): (&String, &String)| {
            (name.ends_with(ending) && *value == listens).then(|| name.clone())
        };
        conns.iter().filter_map(of).collect::<Vec<String>>()
    };
    let (listening, by) = (named(":addr"), named(":listen_addr"));
    assert!(listening.len() == 1 && by.len() == 1 && listening[0] != by[0], "{conns:?}");
    let state = format!("{}:state", listening[0].strip_suffix(":addr").unwrap());
    assert_eq!(conns[&state], "conn_listening");
}

#[test]
fn every_name_of_a_memcached_is_there_but_those_of_what_only_it_has() {
    let (theirs, ours) = (Server::memcached(&[]), Server::start(&["-t", "2"]));
    for words in ["", "settings", "items", "slabs", "sizes"] {
        let names = |server: &Server| {
            let mut client = Client::connect(server);
            client.check("set k 0 0 1\r\nx\r\nget k\r\n", "STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n");
            client.stats(words)
        };
        let (theirs, ours) = (names(&theirs), names(&ours));
        // The event library of memcached, and its storage on disk.
        let its_own = |name: &str| name == "libevent" || name.starts_with("ext_");
        // An item has another slab class there, so the class is left out.
        let name_of = |name: &str| name.rsplit(':').next().unwrap().to_owned();
        let left_out = |name: &str| LEFT_OUT.split_whitespace().any(|left_out| left_out == name_of(name));
        let ours: Vec<String> = ours.keys().map(|name| name_of(name)).collect();
        let missing: Vec<&String> =
            theirs.keys().filter(|name| !its_own(name) && !ours.contains(&name_of(name))).collect();
        assert!(missing.iter().all(|name| left_out(name)), "stats {words}: {missing:?}");
        assert!(!ours.iter().any(|name| left_out(name)), "stats {words}: {ours:?}");
    }
}

#[test]
fn numbers_are_true_over_all_cores() {
    for &backend in Backend::all() {
        for shards in [1, 2, 4] {
            let server = Server::start_on(backend, shards, &[]);
            let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&server)).collect();
            // Every client does the same with keys of its own, which belong to all shards.
            for (me, client) in clients.iter_mut().enumerate() {
                for number in 0..10 {
                    client.check(format!("set {me}.{number} 0 0 1\r\n5\r\n"), "STORED\r\n");
                    client.check(
                        format!("get {me}.{number}\r\n"),
                        format!("VALUE {me}.{number} 0 1\r\n5\r\nEND\r\n"),
                    );
                    client.check(format!("get x{me}.{number}\r\n"), "END\r\n");
                    client.check(format!("incr {me}.{number} 1\r\n"), "6\r\n");
                    client.check(format!("incr x{me}.{number} 1\r\n"), "NOT_FOUND\r\n");
                    client.check(format!("decr {me}.{number} 1\r\n"), "5\r\n");
                    client.check(format!("touch {me}.{number} 0\r\n"), "TOUCHED\r\n");
                    client.check(format!("touch x{me}.{number} 0\r\n"), "NOT_FOUND\r\n");
                    client
                        .check(format!("cas {me}.{number} 0 0 1 1152921504606846976\r\n5\r\n"), "EXISTS\r\n");
                    client.check(format!("cas x{me}.{number} 0 0 1 1\r\n5\r\n"), "NOT_FOUND\r\n");
                }
                client.check(format!("delete {me}.0\r\n"), "DELETED\r\n");
                client.check(format!("delete x{me}.0\r\n"), "NOT_FOUND\r\n");
                client.check(format!("mg {me}.1\r\n"), "HD\r\n");
            }
            let stats = clients[0].stats("");
            for (name, value) in [
                ("curr_items", 72),
                ("total_items", 80),
                ("cmd_get", 168),
                ("get_hits", 88),
                ("get_misses", 80),
                ("cmd_set", 240),
                ("incr_hits", 80),
                ("incr_misses", 80),
                ("decr_hits", 80),
                ("decr_misses", 0),
                ("cmd_touch", 160),
                ("touch_hits", 80),
                ("touch_misses", 80),
                ("cas_badval", 80),
                ("cas_misses", 80),
                ("cas_hits", 0),
                ("delete_hits", 8),
                ("delete_misses", 8),
                ("cmd_meta", 8),
                ("curr_connections", 8),
                ("total_connections", 8),
                ("threads", shards),
                ("cmd_flush", 0),
                ("evictions", 0),
            ] {
                assert_eq!(stats[name], value.to_string(), "{name}: {backend:?}, {shards} shards");
            }
            clients[1].check("flush_all\r\n", "OK\r\n");
            assert_eq!(clients[2].stat("cmd_flush"), 1);
            clients[3].check("stats reset\r\n", "RESET\r\n");
            let stats = clients[4].stats("");
            for name in
                ["cmd_get", "cmd_set", "get_hits", "get_misses", "cmd_flush", "total_items", "delete_hits"]
            {
                assert_eq!(stats[name], "0", "{name}: {backend:?}, {shards} shards");
            }
            assert_eq!(stats["curr_connections"], "8", "what is so now is not reset");
        }
    }
}

#[test]
fn a_real_memcached_counts_the_same() {
    let mut shown = Vec::new();
    for server in [Server::memcached(&[]), Server::start(&["-t", "2"])] {
        let mut client = Client::connect(&server);
        let lines = "set a 0 0 1\r\n1\r\nadd a 0 0 1\r\n1\r\nreplace b 0 0 1\r\n1\r\nappend a 0 0 1\r\n2\r\n\
            get a\r\nget b\r\nget a b\r\ngets a\r\ngat 0 a\r\ngat 0 b\r\ntouch a 0\r\ntouch b 0\r\nincr a 1\r\n\
            incr b 1\r\ndecr a 1\r\ndecr b 1\r\ndelete b\r\ncas b 0 0 1 5\r\n1\r\ncas a 0 0 1 99999999\r\n1\r\n\
            mg a v\r\nmg b v\r\nmg a T0\r\nmd b\r\nms c 1\r\n1\r\nma c\r\nma d\r\nmd c\r\nmg n T30\r\nmg n N30\r\n\
            mg o N30 T30\r\nmd n C9\r\nmd n I\r\nmd n\r\nma p N0\r\nma q N0 MD\r\nms a 1 C9\r\n1\r\nms z 1 C9\r\n1\r\n\
            set a 0 0 1\r\nabc\r\nms a 1\r\nabc\r\nset a 0 0\r\nget\r\nincr a x\r\nflush_all\r\nget a\r\nmn\r\n";
        client.send(lines);
        client.through(b"MN\r\n");
        client.send([&b"set l 0 0 2000000\r\n"[..], &[b'x'; 2_000_000], b"\r\n"].concat());
        client.expect("SERVER_ERROR object too large for cache\r\n");
        let stats = client.stats("");
        let names = "cmd_get cmd_set cmd_touch get_hits get_misses touch_hits touch_misses incr_hits incr_misses \
            decr_hits decr_misses delete_hits delete_misses cas_hits cas_misses cas_badval curr_items cmd_flush \
            store_too_large expired_unfetched reclaimed evictions";
        let numbers: Vec<(String, String)> =
            names.split_whitespace().map(|name| (name.to_owned(), stats[name].clone())).collect();
        shown.push(numbers);
    }
    assert_eq!(shown[0], shown[1], "memcached's, ours");
}

#[test]
fn what_was_counted_by_prefix_is_reset_with_the_rest() {
    let server = Server::start(&["-t", "2", "-D", ":"]);
    let mut client = Client::connect(&server);
    for key in ["a:1", "a:2", "b:1"] {
        client.set(key, b"v");
    }
    client.check("stats reset x\r\nstats detail dump\r\n", "RESET\r\nEND\r\n");
    client.check("get a:1\r\n", "VALUE a:1 0 1\r\nv\r\nEND\r\n");
    client.check("stats detail dump\r\n", "PREFIX a get 1 hit 1 set 0 del 0\r\nEND\r\n");
    assert_eq!(client.stats("settings")["detail_enabled"], "yes");
    client.check("stats detail off\r\n", "OK\r\n");
    assert_eq!(client.stats("settings")["detail_enabled"], "no");
}

#[test]
fn connections_are_listed_in_the_state_that_memcached_shows() {
    let launches = [Launch::memcached(Memcached::newest(), &["-t", "1"]), Launch::new(&["-t", "1"])];
    let mut states = Vec::new();
    for launch in launches {
        let port = free_port().to_string();
        let server = launch.args(&["-U", &port]).serve();
        let mut asking = Client::connect(&server);
        let waiting: Vec<Client> = [
            "set k 0 0 10\r\nabc",
            "ms k 10\r\n",
            "set k 0 0 100000\r\nabc",
            "set k 0 0 9000000\r\nabc",
            "get k",
            "get k\r\n",
            "watch fetchers\r\n",
        ]
        .iter()
        .map(|sent| {
            let mut client = Client::connect(&server);
            client.send(sent);
            client
        })
        .collect();
        let mut list = |wanted: &str| {
            wait_for("every state", || {
                let conns = asking.stats("conns");
                let mut shown: Vec<String> = conns
                    .iter()
                    .filter(|(name, _)| name.ends_with(":state") || name.ends_with(":UDP"))
                    .map(|(_, state)| state.clone())
                    .collect();
                shown.sort();
                let udp = format!("udp:127.0.0.1:{port}");
                (shown.join(" ") == wanted && conns.values().any(|address| *address == udp)).then_some(())
            });
        };
        // Two read: the one whose line is not whole, and the one that was answered. The third is the socket of
        // datagrams, and one connection asks.
        list(
            "UDP conn_listening conn_nread conn_nread conn_nread conn_parse_cmd conn_read conn_read conn_read \
             conn_swallow conn_watch",
        );
        states.push(waiting);
    }
    let server = Launch::bare(&["-t", "1"]).on_unix_socket().serve();
    let path = server.unix_socket().unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    std::io::Write::write_all(&mut stream, b"stats conns\r\nquit\r\n").unwrap();
    let text = std::io::read_to_string(stream).unwrap();
    assert!(text.contains(&format!(":listen_addr unix:{}\r\n", path.display())), "{text}");
}

#[test]
fn bytes_are_counted_to_the_last() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &[]);
        let mut client = Client::connect(&server);
        let mut other = Client::connect(&server);
        let before = client.stats("");
        let number = |stats: &Stats, name: &str| stats[name].parse::<usize>().unwrap();
        let value = vec![b'v'; 200_000];
        for round in 0..10 {
            other.set(&format!("k{round}"), &value);
            assert!(other.get(&format!("k{round}")).unwrap() == value);
        }
        let sent = 10 * ("set k0 0 0 200000\r\n".len() + 200_002 + "get k0\r\n".len());
        let received = 10 * ("STORED\r\n".len() + "VALUE k0 0 200000\r\n".len() + 200_002 + "END\r\n".len());
        let after = client.stats("");
        let question = "stats\r\n".len();
        assert_eq!(number(&after, "bytes_read") - number(&before, "bytes_read"), sent + question);
        let answer: usize =
            before.iter().map(|(name, value)| "STAT  \r\n".len() + name.len() + value.len()).sum::<usize>()
                + "END\r\n".len();
        wait_until("what was written to be counted", || {
            number(&client.stats(""), "bytes_written") - number(&before, "bytes_written") >= received + answer
        });
        let _ = after;
    }
}

#[test]
fn keys_can_be_listed_by_class() {
    let server = Server::start(&["-t", "2"]);
    let mut client = Client::connect(&server);
    client.set("listed", b"12345");
    client.send("stats cachedump 1 0\r\n");
    loop {
        let line = client.line();
        if line == "END" {
            break;
        }
        assert!(line.starts_with("ITEM ") && line.contains(" ["), "{line}");
    }
}
