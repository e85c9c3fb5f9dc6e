//! Items that expire.

use std::time::{Duration, Instant};

use crate::support::{Backend, Client, Server, wait_until};

#[test]
fn items_go_when_their_time_has_come_and_not_before() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &[]);
        let mut client = Client::connect(&server);
        let start = Instant::now();
        for number in 0..50 {
            client.check(format!("set short{number} 0 2 1\r\nv\r\n"), "STORED\r\n");
            client.check(format!("set long{number} 0 1000 1\r\nv\r\n"), "STORED\r\n");
        }
        assert!(client.get("short49").is_some() || start.elapsed() > Duration::from_secs(1));
        for number in 0..50 {
            let key = format!("short{number}");
            wait_until("an item to expire", || client.get(&key).is_none());
        }
        // Times are whole seconds, so the second in which it was stored may count.
        assert!(start.elapsed() > Duration::from_millis(900), "after {:?}", start.elapsed());
        for number in 0..50 {
            assert!(client.get(&format!("long{number}")).is_some());
        }
        wait_until("their memory to be taken back", || client.stat("curr_items") == 50);
    }
}

#[test]
fn touch_moves_the_moment() {
    let server = Server::start(&["-t", "2"]);
    let mut client = Client::connect(&server);
    let start = Instant::now();
    client.check("set kept 0 2 1\r\nv\r\nset gone 0 1000 1\r\nv\r\n", "STORED\r\nSTORED\r\n");
    client.check("touch kept 1000\r\ntouch gone 1\r\n", "TOUCHED\r\nTOUCHED\r\n");
    wait_until("the touched item to expire", || client.get("gone").is_none());
    wait_until("the time the other had at first", || start.elapsed() > Duration::from_secs(3));
    assert_eq!(client.get("kept").unwrap(), b"v");
    let left: u32 = client.ask("mg kept t").strip_prefix("HD t").unwrap().parse().unwrap();
    assert!((900..1_000).contains(&left), "{left}");
    client.check("add gone 0 0 1\r\nw\r\n", "STORED\r\n");
}

#[test]
fn a_flush_of_later_happens_later() {
    let server = Server::start(&["-t", "2"]);
    let mut client = Client::connect(&server);
    client.set("before", b"v");
    let start = Instant::now();
    client.check("flush_all 2\r\n", "OK\r\n");
    assert!(client.get("before").is_some() || start.elapsed() > Duration::from_secs(1));
    wait_until("the flush", || client.get("before").is_none());
    assert!(start.elapsed() > Duration::from_millis(900), "after {:?}", start.elapsed());
    client.set("after", b"v");
    assert!(client.get("after").is_some());
}

#[test]
fn debugtime_moves_the_time_of_all_shards_and_exists_only_when_asked_for() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &["--debug-time"]);
        let mut client = Client::connect(&server);
        client.check("debugtime p\r\n", "OK\r\n");
        let stopped = client.stat("time");
        for n in 0..32 {
            client.check(format!("set k{n} 0 100 1\r\nv\r\n"), "STORED\r\n");
        }
        client.check("debugtime 99\r\nmg k0 t\r\n", "OK\r\nHD t1\r\n");
        assert_eq!(client.stat("time"), stopped + 99);
        assert!((0..32).all(|n| client.get(&format!("k{n}")).is_some()));
        client.check("debugtime 1\r\n", "OK\r\n");
        assert!((0..32).all(|n| client.get(&format!("k{n}")).is_none()));
        client.check("debugtime r\r\n", "OK\r\n");
        assert!(client.stat("time") >= stopped + 100);
        for words in ["", "x", "-5", "1 2"] {
            assert_eq!(client.ask(&format!("debugtime {words}")), "ERROR", "{words}");
        }
    }
    assert_eq!(Client::connect(&Server::start(&[])).ask("debugtime p"), "ERROR");
}
