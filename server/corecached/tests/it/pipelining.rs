//! Pipelines: replies are in the order of requests, and memory does not grow with replies that clients do not
//! read.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::{Backend, Client, Random, Server, shorten};

/// A value that names its client and its key.
fn value(random: &mut Random, key: &str) -> Vec<u8> {
    let len = match random.below(20) {
        0 => 100_000 + random.below(100_000),
        1..4 => 10_000 + random.below(20_000),
        _ => random.below(300),
    };
    format!("<{key} {}>", random.next()).bytes().cycle().take(len).collect()
}

#[test]
fn replies_keep_the_order_of_requests_on_all_cores() {
    for (seed, shards) in [(1, 1), (2, 2), (3, 4)] {
        for &backend in Backend::all() {
            let server = Server::start_on(backend, shards, &["-m", "256"]);
            let mut client = Client::connect(&server);
            let mut random = Random::new(seed);
            let mut model: HashMap<String, Vec<u8>> = HashMap::new();
            for round in 0..60 {
                let (mut requests, mut expected) = (Vec::new(), Vec::new());
                for _ in 0..1 + random.below(120) {
                    request(&mut random, &mut model, &mut requests, &mut expected);
                }
                let got = client.exchange(&requests, |got| got.len() >= expected.len());
                let differs = got.iter().zip(&expected).position(|(got, expected)| got != expected);
                if let Some(at) = differs.or((got.len() != expected.len()).then_some(expected.len())) {
                    let from = at.saturating_sub(100);
                    panic!(
                        "{backend:?}, {shards} shards, round {round}, byte {at}\n  expected {}\n  got      {}",
                        shorten(&expected[from..]),
                        shorten(&got[from.min(got.len())..])
                    );
                }
            }
        }
    }
}

/// Adds a request and the reply that is expected.
fn request(
    random: &mut Random,
    model: &mut HashMap<String, Vec<u8>>,
    requests: &mut Vec<u8>,
    expected: &mut Vec<u8>,
) {
    let key = |random: &mut Random| format!("key{}", random.below(40));
    let show = |key: &str, expected: &mut Vec<u8>| {
        if let Some(value) = model.get(key) {
            expected.extend_from_slice(format!("VALUE {key} 0 {}\r\n", value.len()).as_bytes());
            expected.extend_from_slice(value);
            expected.extend_from_slice(b"\r\n");
        }
    };
    match random.below(10) {
        0..3 => {
            let key = key(random);
            requests.extend_from_slice(format!("get {key}\r\n").as_bytes());
            show(&key, expected);
            expected.extend_from_slice(b"END\r\n");
        }
        3 => {
            requests.extend_from_slice(b"get");
            for _ in 0..1 + random.below(30) {
                let key = key(random);
                requests.extend_from_slice(format!(" {key}").as_bytes());
                show(&key, expected);
            }
            requests.extend_from_slice(b"\r\n");
            expected.extend_from_slice(b"END\r\n");
        }
        4..7 => {
            let key = key(random);
            let value = value(random, &key);
            requests.extend_from_slice(format!("set {key} 0 0 {}\r\n", value.len()).as_bytes());
            requests.extend_from_slice(&value);
            requests.extend_from_slice(b"\r\n");
            expected.extend_from_slice(b"STORED\r\n");
            model.insert(key, value);
        }
        7 => {
            let key = key(random);
            requests.extend_from_slice(format!("mg {key} s v q\r\nmn\r\n").as_bytes());
            if let Some(value) = model.get(&key) {
                expected.extend_from_slice(format!("VA {0} s{0}\r\n", value.len()).as_bytes());
                expected.extend_from_slice(value);
                expected.extend_from_slice(b"\r\n");
            }
            expected.extend_from_slice(b"MN\r\n");
        }
        8 => {
            let key = key(random);
            requests.extend_from_slice(format!("delete {key}\r\n").as_bytes());
            let deleted = model.remove(&key).is_some();
            expected.extend_from_slice(if deleted { b"DELETED\r\n" } else { b"NOT_FOUND\r\n" });
        }
        _ => {
            let lines: [(&str, &str); 4] = [
                ("nothing\r\n", "ERROR\r\n"),
                ("verbosity 0\r\n", "OK\r\n"),
                ("version\r\n", "VERSION 1.6.45\r\n"),
                ("incr missing 1\r\n", "NOT_FOUND\r\n"),
            ];
            let (request, answer) = random.pick(&lines);
            requests.extend_from_slice(request.as_bytes());
            expected.extend_from_slice(answer.as_bytes());
        }
    }
}

#[test]
fn gets_of_100_mb_that_nobody_reads_do_not_fill_memory() {
    const VALUE_BYTES: usize = 1_000;
    const GETS: usize = 100_000;
    /// Bytes that may wait in the server for a client that does not read.
    const GROWTH_MAX: usize = 16 << 20;
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &[]);
            let mut other = Client::connect(&server);
            let value = vec![b'v'; VALUE_BYTES];
            for number in 0..10 {
                other.set(&format!("k{number}"), &value);
            }
            let before = server.resident_bytes();
            let mut slow = Client::connect(&server);
            slow.set_receive_buffer(16 << 10);
            let mut requests = Vec::new();
            for number in 0..GETS {
                requests.extend_from_slice(format!("get k{}\r\n", number % 10).as_bytes());
            }
            let (head, tail) = requests.split_at(requests.len() / 8);
            slow.send(head);
            // While it reads nothing, other clients are served and memory does not grow.
            for number in 0..2_000 {
                assert_eq!(other.get(&format!("k{}", number % 10)).unwrap(), value);
            }
            let reply = |number: usize| format!("VALUE k{} 0 {VALUE_BYTES}\r\n", number % 10);
            let expected_bytes: usize = (0..GETS).map(|number| reply(number).len() + VALUE_BYTES + 7).sum();
            let mut received = 0;
            let got = slow.exchange(tail, |got| {
                received = got.len();
                received >= expected_bytes
            });
            assert_eq!(got.len(), expected_bytes);
            let mut at = 0;
            for number in 0..GETS {
                let header = reply(number);
                assert!(
                    got[at..].starts_with(header.as_bytes()),
                    "reply {number}: {}",
                    shorten(&got[at..at + 40])
                );
                at += header.len() + VALUE_BYTES + 7;
            }
            let grown = server.peak_resident_bytes().saturating_sub(before);
            println!("{backend:?}, {shards} shards: grew by {} KiB", grown >> 10);
            assert!(grown < GROWTH_MAX, "{backend:?}, {shards} shards: grew by {grown} bytes");
        }
    }
}

#[test]
fn sets_of_100_mb_from_one_client_do_not_keep_others_waiting() {
    const VALUE_BYTES: usize = 10_000;
    const SETS: usize = 10_000;
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &["-m", "64"]);
            let address = server.address;
            let writer = std::thread::spawn(move || {
                let mut client = Client::connect_to(address);
                let value = vec![b'v'; VALUE_BYTES];
                let mut requests = Vec::new();
                for number in 0..SETS {
                    requests
                        .extend_from_slice(format!("set k{} 0 0 {VALUE_BYTES}\r\n", number % 100).as_bytes());
                    requests.extend_from_slice(&value);
                    requests.extend_from_slice(b"\r\n");
                }
                let expected = b"STORED\r\n".repeat(SETS);
                let got = client.exchange(&requests, |got| got.len() >= expected.len());
                assert!(got == expected, "got {}", shorten(&got));
            });
            let mut other = Client::connect(&server);
            let mut slowest = Duration::ZERO;
            while !writer.is_finished() {
                let start = Instant::now();
                other.check("mn\r\n", "MN\r\n");
                slowest = slowest.max(start.elapsed());
            }
            writer.join().unwrap();
            println!("{backend:?}, {shards} shards: others waited {slowest:?} at most");
            assert!(slowest < Duration::from_secs(2), "{backend:?}, {shards} shards: {slowest:?}");
            let resident = server.peak_resident_bytes();
            assert!(resident < 160 << 20, "{backend:?}: {resident} bytes");
        }
    }
}
