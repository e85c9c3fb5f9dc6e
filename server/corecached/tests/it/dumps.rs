//! `lru_crawler metadump` and `mgdump`: all keys of all shards, once each, and a slow reader delays no other
//! client.

use std::collections::BTreeSet;

use crate::support::{Backend, Client, Server, wait_until};

/// Takes the lines of a list up to `end`.
fn list(client: &mut Client, command: &str, end: &str) -> Vec<String> {
    assert_eq!(client.ask(command), "OK");
    let mut lines = Vec::new();
    loop {
        let line = String::from_utf8(client.through(b"\n")).unwrap();
        if line == end {
            return lines;
        }
        lines.push(line);
    }
}

fn set_keys(client: &mut Client, keys: usize) {
    for chunk in (0..keys).collect::<Vec<_>>().chunks(1000) {
        let requests = chunk.iter().map(|n| format!("set key{n} 7 0 3\r\nabc\r\n")).collect::<String>();
        let stored = b"STORED\r\n".repeat(chunk.len());
        assert!(client.exchange(requests.as_bytes(), |got| got.len() == stored.len()) == stored);
    }
}

#[test]
fn every_key_of_every_shard_is_listed_once() {
    const KEYS: usize = 30_000;
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &[]);
            let mut client = Client::connect(&server);
            assert_eq!(list(&mut client, "lru_crawler metadump all", "END\r\n"), [""; 0]);
            set_keys(&mut client, KEYS);
            let expected: BTreeSet<String> = (0..KEYS).map(|n| format!("key{n}")).collect();
            for classes in ["all", "hash", "1", "2,1"] {
                let lines = list(&mut client, &format!("lru_crawler metadump {classes}"), "END\r\n");
                assert_eq!(lines.len(), KEYS, "{classes}");
                let keys =
                    lines.iter().map(|line| line.split(' ').next().unwrap()["key=".len()..].to_owned());
                assert!(keys.collect::<BTreeSet<_>>() == expected, "{classes}");
            }
            let lines = list(&mut client, "lru_crawler mgdump all", "EN\r\n");
            assert_eq!(lines.len(), KEYS);
            let keys = lines.iter().map(|line| line["mg ".len()..].trim_end().to_owned());
            assert!(keys.collect::<BTreeSet<_>>() == expected);
            // The list is in order with the replies before and after it.
            client.send("mn\r\nlru_crawler metadump 2\r\nmn\r\n");
            client.expect("MN\r\nOK\r\nEND\r\nMN\r\n");
        }
    }
}

#[test]
fn a_line_says_what_is_known_of_the_item() {
    let server = Server::start(&["-t", "2"]);
    let mut client = Client::connect(&server);
    client.check("set b%25 5 1000 3\r\nabc\r\nget b%25\r\n", "STORED\r\nVALUE b%25 5 3\r\nabc\r\nEND\r\n");
    client.check("gets b%25\r\n", "VALUE b%25 5 3 1\r\nabc\r\nEND\r\n");
    let time: u64 = client.stat("time");
    let lines = list(&mut client, "lru_crawler metadump all", "END\r\n");
    let fields: Vec<&str> = lines[0].split(' ').collect();
    let [key, exp, la, cas, fetch, cls, size, flags, end] = fields[..] else { panic!("{lines:?}") };
    assert_eq!(
        (key, cas, fetch, cls, flags, end),
        ("key=b%2525", "cas=1", "fetch=yes", "cls=1", "flags=5", "\n")
    );
    let number = |field: &str| field.split_once('=').unwrap().1.parse::<u64>().unwrap();
    assert!(
        number(exp).abs_diff(time + 1000) <= 10 && number(la) <= time + 1 && number(size) > 0,
        "{lines:?}"
    );
    client.check("delete b%25\r\nms AAEC 3 b\r\nabc\r\n", "DELETED\r\nHD\r\n");
    assert_eq!(list(&mut client, "lru_crawler mgdump hash", "EN\r\n"), ["mg AAEC b\r\n"]);
    let lines = list(&mut client, "lru_crawler metadump hash", "END\r\n");
    assert!(lines[0].starts_with("key=%00%01%02 exp=-1 "), "{lines:?}");
}

#[test]
fn what_memcached_refuses_is_refused_in_its_words() {
    let reference = Server::memcached(&[]);
    let ours = Server::start(&[]);
    for words in [
        "metadump 99",
        "metadump x",
        "metadump 1,x",
        "metadump 0",
        "metadump",
        "",
        "x",
        "crawl all",
        "crawl 1",
        "crawl 400",
        "crawl x",
        "crawl",
        "enable",
        "sleep 5",
        "sleep x",
        "sleep",
        "sleep 1000001",
        "tocrawl 5",
        "tocrawl x",
        "tocrawl",
    ] {
        let line = format!("lru_crawler {words}");
        let expected = Client::connect(&reference).ask(&line);
        assert_eq!(Client::connect(&ours).ask(&line), expected, "{line}");
    }
    // These are not compared: memcached has other replies while its thread ends.
    let mut client = Client::connect(&ours);
    client.check("lru_crawler disable\r\n", "OK\r\n");
    client.check("lru_crawler metadump all\r\n", "CLIENT_ERROR lru crawler disabled\r\n");
    client.check(
        "lru_crawler enable\r\nlru_crawler enable\r\n",
        "OK\r\nERROR failed to start lru crawler thread\r\n",
    );
    let closed = Server::start(&["-X"]);
    for words in ["metadump all", "mgdump hash"] {
        let answer = Client::connect(&closed).ask(&format!("lru_crawler {words}"));
        assert_eq!(answer, "ERROR metadump not allowed");
    }
}

#[test]
fn a_client_that_does_not_read_its_list_stops_nobody_and_costs_little() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &["-m", "256"]);
        let mut client = Client::connect(&server);
        set_keys(&mut client, 200_000);
        let before = server.resident_bytes();
        let mut slow = Client::connect(&server);
        slow.set_receive_buffer(4096);
        slow.send("lru_crawler metadump all\r\n");
        slow.expect("OK\r\n");
        assert_eq!(client.ask("lru_crawler metadump all"), "BUSY currently processing crawler request");
        for n in 0..1000 {
            client.check(format!("get key{n}\r\n"), format!("VALUE key{n} 7 3\r\nabc\r\nEND\r\n"));
        }
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 4 << 20, "{grown} bytes for a list that waits");
        // The client disconnects in the middle of its list; the next client may have one.
        drop(slow);
        wait_until("the list to be given up", || {
            let answer = client.ask("lru_crawler mgdump all");
            if answer == "OK" {
                let rest = client.through(b"\r\nEN\r\n");
                assert_eq!(rest.iter().filter(|&&byte| byte == b'\n').count(), 200_001);
            }
            answer == "OK"
        });
    }
}
