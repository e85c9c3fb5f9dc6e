//! Values near and above a megabyte.

use crate::support::{Backend, Client, Server};

/// What an item counts beside key and value, bytes; as in memcached.
const BESIDE: usize = 59;
/// The same for one with flags.
const BESIDE_WITH_FLAGS: usize = 63;

/// Bytes in which a byte out of place is noticed.
fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed).collect()
}

#[test]
fn the_default_limit_is_memcacheds_to_the_byte() {
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &[]);
            let mut client = Client::connect(&server);
            for (number, (flags, beside)) in [(0, BESIDE), (1, BESIDE_WITH_FLAGS)].into_iter().enumerate() {
                for key in [format!("k{number}"), format!("{}{number}", "x".repeat(249))] {
                    let most = (1 << 20) - beside - key.len();
                    let value = pattern(1, most);
                    client.send(format!("set {key} {flags} 0 {most}\r\n"));
                    client.send(&value);
                    client.check("\r\n", "STORED\r\n");
                    let expected = format!("VALUE {key} {flags} {most}\r\n");
                    client.check(
                        format!("get {key}\r\n"),
                        [expected.as_bytes(), &value, b"\r\nEND\r\n"].concat(),
                    );
                    client.send(format!("set {key} {flags} 0 {}\r\n", most + 1));
                    client.send(&value);
                    client.check("x\r\n", "SERVER_ERROR object too large for cache\r\n");
                    assert_eq!(client.get(&key), None, "the old value is gone");
                }
            }
            assert_eq!(client.stat("store_too_large"), 4);
        }
    }
}

#[test]
fn a_real_memcached_has_the_same_default_limit() {
    let server = Server::memcached(&[]);
    let mut client = Client::connect(&server);
    let most = (1 << 20) - BESIDE - 1;
    client.set("k", &pattern(1, most));
    client.send(format!("set k 0 0 {}\r\n", most + 1));
    client.send(pattern(1, most + 1));
    client.check("\r\n", "SERVER_ERROR object too large for cache\r\n");
    assert_eq!(client.get("k"), None);
}

#[test]
fn values_of_30_mb_come_back_whole_from_every_core() {
    const BYTES: usize = 30 << 20;
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &["-I", "64m", "-m", "1024"]);
            let mut client = Client::connect(&server);
            let value = pattern(7, BYTES);
            // Enough keys that some are stored where the client is and some elsewhere.
            for number in 0..6 {
                client.set(&format!("big{number}"), &value);
            }
            for number in 0..6 {
                assert!(
                    client.get(&format!("big{number}")).unwrap() == value,
                    "{backend:?}, {shards} shards"
                );
            }
            client.send("get big0 big1 big2\r\n");
            for number in 0..3 {
                client.expect(format!("VALUE big{number} 0 {BYTES}\r\n"));
                assert!(client.read(BYTES) == value);
                client.expect("\r\n");
            }
            client.expect("END\r\n");
        }
    }
}

#[test]
fn a_value_that_is_replaced_while_it_is_sent_arrives_as_it_was() {
    const BYTES: usize = 4 << 20;
    let other = pattern(50, BYTES - 1);
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &["-I", "16m", "-m", "64"]);
            let mut writer = Client::connect(&server);
            for round in 0..6u8 {
                let key = format!("big{round}");
                let old = pattern(round, BYTES);
                writer.set(&key, &old);
                let mut reader = Client::connect(&server);
                reader.set_receive_buffer(16 << 10);
                reader.send(format!("get {key}\r\n"));
                reader.expect(format!("VALUE {key} 0 {BYTES}\r\n"));
                let mut got = reader.read(100_000);
                match round % 3 {
                    0 => writer.set(&key, &pattern(99, BYTES)),
                    1 => writer.check(format!("delete {key}\r\n"), "DELETED\r\n"),
                    _ => writer.check("flush_all\r\n", "OK\r\n"),
                }
                // And everything else is pushed out.
                for number in 0..20 {
                    writer.set(&format!("other{number}"), &other);
                }
                got.extend(reader.read(BYTES - 100_000));
                assert!(got == old, "{backend:?}, {shards} shards, round {round}");
                reader.expect("\r\nEND\r\n");
            }
        }
    }
}

#[test]
fn appending_grows_a_value_up_to_the_limit() {
    let server = Server::start(&["-t", "2"]);
    let mut client = Client::connect(&server);
    let piece = pattern(3, 100_000);
    client.set("k", &piece);
    for _ in 0..9 {
        client.send("append k 0 0 100000\r\n");
        client.send(&piece);
        client.check("\r\n", "STORED\r\n");
    }
    assert!(client.get("k").unwrap() == piece.repeat(10));
    client.send("append k 0 0 100000\r\n");
    client.send(&piece);
    client.check("\r\n", "SERVER_ERROR object too large for cache\r\n");
    assert!(client.get("k").unwrap() == piece.repeat(10), "what was there stays");
}
