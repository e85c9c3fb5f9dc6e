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
        assert!(start.elapsed() > Duration::from_secs(1) || client.get("short49").is_some());
        for number in 0..50 {
            let key = format!("short{number}");
            wait_until("an item to expire", || client.get(&key).is_none());
        }
        // Seconds are whole: one that begins with the store may count.
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
    assert!(start.elapsed() > Duration::from_secs(1) || client.get("before").is_some());
    wait_until("the flush", || client.get("before").is_none());
    assert!(start.elapsed() > Duration::from_millis(900), "after {:?}", start.elapsed());
    client.set("after", b"v");
    assert!(client.get("after").is_some());
}
