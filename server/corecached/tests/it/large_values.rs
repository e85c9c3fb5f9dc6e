//! Values near and above a megabyte.

use crate::support::{Backend, Client, Server};

/// Bytes that an item without flags counts in addition to key and value, as in memcached.
const OVERHEAD: usize = 59;
/// Bytes that an item with flags counts in addition to key and value, as in memcached.
const OVERHEAD_WITH_FLAGS: usize = 63;

/// A value whose bytes differ by position, so that a misplaced one is noticed.
fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed).collect()
}

#[test]
fn the_default_limit_is_memcacheds_to_the_byte() {
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &[]);
            let mut client = Client::connect(&server);
            for (number, (flags, beside)) in [(0, OVERHEAD), (1, OVERHEAD_WITH_FLAGS)].into_iter().enumerate()
            {
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
    let most = (1 << 20) - OVERHEAD - 1;
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
            // Enough keys that some belong to the client's shard and some to others.
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
                // Everything else is evicted.
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
    client.check("\r\n", "NOT_STORED\r\n");
    assert!(client.get("k").unwrap() == piece.repeat(10), "what was there stays");
}

#[test]
fn values_cut_anywhere_are_stored_whole_and_what_follows_is_answered() {
    let lens = [8 << 10, (16 << 10) - 1, 16 << 10, 65_536, 65_537, 300_001, 1_000_000];
    let cuts = [0usize, 1, 37, 4_095, 8_192, 16_384, 24_577, 65_536];
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &[]);
            let mut client = Client::connect(&server);
            for (number, &len) in lens.iter().enumerate() {
                let value = pattern(number as u8, len);
                for &cut in cuts.iter().filter(|&&cut| cut < len) {
                    let forms: [(String, &str); 4] = [
                        (format!("set k{number} 0 0 {len}\r\n"), "STORED\r\n"),
                        (format!("set k{number} 0 0 {len} noreply\r\n"), ""),
                        (format!("ms k{number} {len} Oq7\r\n"), "HD Oq7\r\n"),
                        (format!("cas k{number} 0 0 {len} 1\r\n"), "EXISTS\r\n"),
                    ];
                    for (line, answer) in forms {
                        // The pieces are sent one by one, so that the server receives each by itself.
                        let request = [line.as_bytes(), &value, b"\r\nmn\r\n"].concat();
                        let (before, rest) = request.split_at(line.len() + cut);
                        client.send(before);
                        let (middle, end) = rest.split_at(rest.len() - 5 - cut.min(2));
                        client.send(middle);
                        client.check(end, format!("{answer}MN\r\n"));
                    }
                    assert!(client.get(&format!("k{number}")).unwrap() == value, "{backend:?} {len} {cut}");
                }
                client.send(format!("set k{number} 0 0 {len}\r\n"));
                client.send(&value);
                client.check("xx", "CLIENT_ERROR bad data chunk\r\n");
                assert!(client.get(&format!("k{number}")).unwrap() == value, "{backend:?} {len}");
            }
            client.set("joined", b"");
            for (verb, len) in [("append", 70_000), ("prepend", 70_001)] {
                client.send(format!("{verb} joined 0 0 {len}\r\n"));
                client.send(pattern(3, len));
                client.check("\r\n", "STORED\r\n");
            }
            let joined = [pattern(3, 70_001), pattern(3, 70_000)].concat();
            assert!(client.get("joined").unwrap() == joined, "{backend:?}, {shards} shards");
        }
    }
}

#[test]
fn a_value_that_breaks_off_anywhere_or_outlives_a_flush_leaves_nothing_behind() {
    const LEN: usize = 200_000;
    let value = pattern(9, LEN);
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &["-m", "64"]);
            let mut control = Client::connect(&server);
            for cut in [1, 100, 16_384, 16_385, 65_537, LEN - 8_192, LEN - 1, LEN] {
                let mut client = Client::connect(&server);
                client.send(format!("set broken{cut} 0 0 {LEN}\r\n"));
                client.send(&value[..cut]);
                control.check("flush_all\r\n", "OK\r\n");
                let other = pattern(1, 500_000);
                for number in 0..20 {
                    control.set(&format!("other{number}"), &other);
                }
                if cut % 2 == 0 {
                    client.send(&value[cut..]);
                    client.check("\r\n", "STORED\r\n");
                    assert!(client.get(&format!("broken{cut}")).unwrap() == value, "{backend:?} {cut}");
                } else {
                    client.reset_on_drop();
                }
            }
            let settled = |control: &mut Client| (control.stat("uploads"), control.stat("segments_pinned"));
            crate::support::wait_until("nothing to be on its way", || settled(&mut control) == (0, 0));
        }
    }
}
