//! No reply ever reaches another client, and none belongs to another key.

use crate::support::{Backend, Client, Random, Server, shorten};

const CLIENTS: usize = 16;
const KEYS: usize = 60;
const ROUNDS: usize = 150;

/// A value that names its key and the client that stored it. Both determine every byte of it.
fn value_of(key: &str, client: usize, round: usize) -> Vec<u8> {
    let len = match (client * 7 + round * 13) % 25 {
        0 => 70_000,
        1..4 => 6_000,
        len => 40 + len * 11,
    };
    format!("[{key} {client} {round}]").bytes().cycle().take(len).collect()
}

/// Whether `value` is one that a client stored under `key`.
fn is_value_of(key: &str, value: &[u8]) -> bool {
    let parsed = || -> Option<(usize, usize)> {
        let end = value.iter().position(|&byte| byte == b']')?;
        let text = std::str::from_utf8(&value[1..end]).ok()?;
        let mut words = text.strip_prefix(key)?.strip_prefix(' ')?.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    parsed().is_some_and(|(client, round)| value_of(key, client, round) == value)
}

fn client(address: std::net::SocketAddr, me: usize) {
    let mut client = Client::connect_to(address);
    let mut random = Random::new(me as u64);
    for round in 0..ROUNDS {
        // Sends a pipeline of all requests, then reads the replies one by one.
        let mut asked: Vec<(u8, Vec<String>)> = Vec::new();
        let mut requests = Vec::new();
        for _ in 0..1 + random.below(20) {
            let key = format!("key{}", random.below(KEYS));
            match random.below(8) {
                0..3 => {
                    let value = value_of(&key, me, round);
                    requests.extend_from_slice(format!("set {key} 0 0 {}\r\n", value.len()).as_bytes());
                    requests.extend_from_slice(&value);
                    requests.extend_from_slice(b"\r\n");
                    asked.push((b's', vec![key]));
                }
                3..5 => {
                    requests.extend_from_slice(format!("mg {key} k O{me}.{round} v\r\n").as_bytes());
                    asked.push((b'm', vec![key]));
                }
                5 => {
                    requests.extend_from_slice(format!("delete {key}\r\n").as_bytes());
                    asked.push((b'd', vec![key]));
                }
                _ => {
                    let keys: Vec<String> =
                        (0..1 + random.below(KEYS)).map(|_| format!("key{}", random.below(KEYS))).collect();
                    requests.extend_from_slice(format!("get {}\r\n", keys.join(" ")).as_bytes());
                    asked.push((b'g', keys));
                }
            }
        }
        requests.extend_from_slice(format!("mg {me}.{round} k O{me}.{round}\r\n").as_bytes());
        let last = format!("EN k{me}.{round} O{me}.{round}\r\n");
        let got = client.exchange(&requests, |got| got.ends_with(last.as_bytes()));
        let mut rest = &got[..];
        for (kind, keys) in &asked {
            rest = check(*kind, keys, rest, &format!("O{me}.{round}"));
        }
        assert!(rest == last.as_bytes(), "client {me}, round {round}: {}", shorten(rest));
    }
}

fn take_line<'b>(rest: &mut &'b [u8]) -> &'b str {
    let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("a line");
    let line = std::str::from_utf8(&rest[..end]).expect("a line is text");
    *rest = &rest[end + 2..];
    line
}

fn take_value<'b>(rest: &mut &'b [u8], len: &str) -> &'b [u8] {
    let len: usize = len.parse().expect("a length");
    let value = &rest[..len];
    assert_eq!(&rest[len..len + 2], b"\r\n");
    *rest = &rest[len + 2..];
    value
}

/// Asserts that `rest` begins with a reply to a request of this kind for `keys`. Returns what follows the
/// reply.
fn check<'b>(kind: u8, keys: &[String], mut rest: &'b [u8], opaque: &str) -> &'b [u8] {
    match kind {
        b's' => assert_eq!(take_line(&mut rest), "STORED"),
        b'd' => assert!(["DELETED", "NOT_FOUND"].contains(&take_line(&mut rest))),
        b'm' => {
            let key = &keys[0];
            let line = take_line(&mut rest);
            if let Some(found) = line.strip_prefix("VA ") {
                let (len, flags) = found.split_once(' ').unwrap();
                assert_eq!(flags, format!("k{key} {opaque}"));
                let value = take_value(&mut rest, len);
                assert!(is_value_of(key, value), "mg {key} got {}", shorten(value));
            } else {
                assert_eq!(line, format!("EN k{key} {opaque}"));
            }
        }
        _ => {
            // Values are in the order of their keys in the request; those of missing keys are left out.
            let mut asked = keys.iter();
            loop {
                let line = take_line(&mut rest);
                if line == "END" {
                    break;
                }
                let words: Vec<&str> = line.split(' ').collect();
                assert!(words.len() == 4 && words[0] == "VALUE", "got {line}");
                assert!(asked.any(|key| key == words[1]), "get {} got {line}", keys.join(" "));
                let value = take_value(&mut rest, words[3]);
                assert!(is_value_of(words[1], value), "get {} got {}", words[1], shorten(value));
            }
        }
    }
    rest
}

#[test]
fn many_clients_at_once_each_get_their_own_replies() {
    for &backend in Backend::all() {
        for shards in [1, 2, 4] {
            let mut server = Server::start_on(backend, shards, &["-m", "256"]);
            let address = server.address;
            let clients: Vec<_> =
                (0..CLIENTS).map(|me| std::thread::spawn(move || client(address, me))).collect();
            for client in clients {
                client.join().unwrap();
            }
            assert!(server.is_running());
            let mut control = Client::connect(&server);
            assert_eq!((control.stat("uploads"), control.stat("segments_pinned")), (0, 0));
        }
    }
}
