//! The binary protocol beyond the transcripts: large values, many clients, and random requests to a real
//! memcached and to this server, whose replies must be equal.

use std::collections::HashMap;

use crate::proxy::proxy;
use crate::support::{Backend, Client, Launch, Packet, Random, Server, opcode, shorten};

/// A value whose bytes differ by position, so that a misplaced one is noticed.
fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed).collect()
}

#[test]
fn large_values_come_back_whole_from_every_core() {
    const BYTES: usize = 20 << 20;
    for &backend in Backend::all() {
        for shards in [1, 2, 4] {
            let server = Server::start_on(backend, shards, &["-I", "32m", "-m", "1024"]);
            let mut client = Client::connect(&server);
            for (number, len) in
                [BYTES, 1 << 20, 70_000, 16_385, 16_384, 16_383, 4097].into_iter().enumerate()
            {
                for copy in 0..3u8 {
                    let key = format!("big{number}.{copy}").into_bytes();
                    let value = pattern(copy, len);
                    let stored = Packet::store(opcode::SET, &key, &value).ask(&mut client);
                    assert_eq!(stored.status, 0, "{backend:?}, {shards} shards, {len} bytes");
                    let got = Packet::new(opcode::GETK, &key).ask(&mut client);
                    assert!(got.value == value && got.key == key && got.cas == stored.cas);
                }
            }
            // Several requests at once: hits are in the order of their requests.
            let mut requests = Vec::new();
            for number in 0..7 {
                requests.extend(Packet::new(opcode::GETQ, format!("missing{number}").as_bytes()).bytes());
                let key = format!("big{number}.1").into_bytes();
                requests.extend(Packet { opaque: number, ..Packet::new(opcode::GETKQ, &key) }.bytes());
            }
            requests.extend(Packet::new(opcode::NOOP, b"").bytes());
            client.send(&requests);
            for number in 0..7 {
                let got = Packet::read(&mut client);
                assert_eq!((got.opaque, got.key), (number, format!("big{number}.1").into_bytes()));
            }
            assert_eq!(Packet::read(&mut client).opcode, opcode::NOOP);
            // A request that breaks off stores nothing.
            let broken = Packet::store(opcode::SET, b"broken", &pattern(0, BYTES)).bytes();
            client.send(&broken[..1 << 20]);
            drop(client);
            let mut control = Client::connect(&server);
            crate::support::wait_until("the upload to be given up", || control.stat("uploads") == 0);
            assert_eq!(control.get("broken"), None);
        }
    }
}

#[test]
fn the_size_limit_is_that_of_text_and_the_connection_goes_on() {
    for shards in [1, 2] {
        let server = Launch::new(&["-t", &shards.to_string()]).serve();
        let mut client = Client::connect(&server);
        let most = (1 << 20) - 59 - 1;
        let value = pattern(1, most);
        assert_eq!(Packet::store(opcode::SET, b"k", &value).ask(&mut client).status, 0);
        assert!(Packet::new(opcode::GET, b"k").ask(&mut client).value == value);
        let refused = Packet::store(opcode::SET, b"k", &pattern(1, most + 1)).ask(&mut client);
        assert_eq!((refused.status, &refused.value[..]), (3, &b"Too large."[..]));
        assert_eq!(Packet::new(opcode::GET, b"k").ask(&mut client).status, 1, "the old value is gone");
    }
}

#[test]
fn stats_come_a_packet_each_and_end_with_an_empty_one() {
    let server = Launch::new(&["-t", "2"]).serve();
    let mut client = Client::connect(&server);
    assert_eq!(Packet::store(opcode::SET, b"k", b"v").ask(&mut client).status, 0);
    let mut text = Client::connect(&server);
    for words in ["", "settings", "items", "slabs", "sizes"] {
        let names: Vec<String> = text.stats(words).into_keys().collect();
        client.send(Packet::new(opcode::STAT, words.as_bytes()).bytes());
        let mut got = Vec::new();
        loop {
            let stat = Packet::read(&mut client);
            assert_eq!((stat.status, stat.opcode), (0, opcode::STAT));
            if stat.key.is_empty() {
                assert!(stat.value.is_empty());
                break;
            }
            got.push(String::from_utf8(stat.key).unwrap());
        }
        got.sort();
        assert_eq!(got, names, "stats {words}");
    }
    assert_eq!(Packet::new(opcode::STAT, b"reset").ask(&mut client).status, 0);
    assert_eq!(text.stat("cmd_set"), 0);
    assert_eq!(Packet::new(opcode::STAT, b"detail on").ask(&mut client).status, 0);
    assert_eq!(Packet::store(opcode::SET, b"user:1", b"v").ask(&mut client).status, 0);
    let dump = Packet::new(opcode::STAT, b"detail dump").ask(&mut client);
    let expected = b"PREFIX user get 0 hit 0 set 1 del 0\r\nEND\r\n";
    assert_eq!((&dump.key[..], &dump.value[..]), (&b"detailed"[..], &expected[..]));
    assert!(Packet::read(&mut client).key.is_empty());
}

#[test]
fn a_listener_may_insist_on_one_protocol() {
    let noop = Packet::new(opcode::NOOP, b"");
    let server = Launch::new(&["-B", "binary"]).serve();
    let mut client = Client::connect(&server);
    assert_eq!(noop.ask(&mut client).status, 0);
    let mut client = Client::connect(&server);
    client.send("version\r\n");
    assert_eq!(client.rest(), b"");
    let server = Launch::new(&["-B", "ascii"]).serve();
    let mut client = Client::connect(&server);
    client.send(Packet::new(opcode::GET, b"k").bytes());
    client.check("\r\n", "ERROR\r\n");
    // Each listener has the protocol of its own option, whatever -B says.
    let args = ["-p", "-1", "-l", "proto[binary]:127.0.0.1", "-B", "ascii"];
    let server = Launch::bare(&args).serve();
    let mut client = Client::connect(&server);
    assert_eq!(noop.ask(&mut client).status, 0);
}

const TOUCH: u8 = 0x1c;

/// One of the two servers, with the uniques that it showed.
struct Side {
    client: Client,
    _server: Server,
    /// Most requests that are sent at once. A memcached holds the item of a get until the reply is written,
    /// and pads the result of arithmetic on a held item differently. With one request at a time no item is
    /// held.
    at_once: usize,
    /// The last unique that was shown for each key.
    uniques: HashMap<Vec<u8>, u64>,
}

impl Side {
    fn new(server: Server, at_once: usize) -> Self {
        Self { client: Client::connect(&server), _server: server, at_once, uniques: HashMap::new() }
    }

    /// The replies to each of `requests`. A cas unique of 1 is replaced by the right one.
    fn replies(&mut self, requests: &[Packet]) -> Vec<Vec<Packet>> {
        let requests: Vec<Packet> = requests
            .iter()
            .map(|request| match request.cas {
                // Without a shown unique it is one that no item has.
                1 => {
                    let cas = self.uniques.get(&request.key).copied().unwrap_or(u64::MAX / 5);
                    Packet { cas, ..request.clone() }
                }
                _ => request.clone(),
            })
            .collect();
        requests.chunks(self.at_once).flat_map(|requests| self.replies_at_once(requests)).collect()
    }

    fn replies_at_once(&mut self, requests: &[Packet]) -> Vec<Vec<Packet>> {
        let noop = Packet { opaque: u32::MAX, ..Packet::new(opcode::NOOP, b"") };
        let bytes: Vec<u8> =
            requests.iter().flat_map(|request| [request.bytes(), noop.bytes()].concat()).collect();
        self.client.send(&bytes);
        let mut all = Vec::new();
        for request in requests {
            let mut replies = Vec::new();
            loop {
                let mut reply = Packet::read(&mut self.client);
                if reply.opaque == u32::MAX {
                    break;
                }
                if reply.cas != 0 {
                    // A proxy does not know that of an item that it touched.
                    if request.opcode != TOUCH {
                        self.uniques.insert(request.key.clone(), reply.cas);
                    }
                    reply.cas = 1;
                }
                // Numbers that are overwritten in place keep the blanks of longer ones; clients cannot rely
                // on that.
                if reply.value.ends_with(b" ") {
                    let end = reply.value.iter().rposition(|&byte| byte != b' ').map_or(0, |at| at + 1);
                    reply.value.truncate(end);
                }
                replies.push(reply);
            }
            all.push(replies);
        }
        all
    }
}

/// A value that does not begin with a digit or a blank, or is empty: 1.6.18 takes some values that do for
/// numbers.
fn random_text(random: &mut Random) -> Vec<u8> {
    match random.below(3) {
        0 => Vec::new(),
        1 => b"text".to_vec(),
        _ => [b"x".to_vec(), pattern(random.next() as u8, random.below(300))].concat(),
    }
}

/// A number or a text. No number becomes 2^63 or more: 1.6.18 refuses such a number when it finds a `-` in
/// the memory after it, whatever was there before.
fn random_value(random: &mut Random) -> Vec<u8> {
    match random.below(5) {
        0 => (random.next() >> 2).to_string().into_bytes(),
        1 => random.below(1000).to_string().into_bytes(),
        _ => random_text(random),
    }
}

fn random_request(random: &mut Random) -> Packet {
    let mut key = format!("key{}", random.below(12)).into_bytes();
    if key.ends_with(b"0") {
        // Text cannot name it.
        key.extend_from_slice(b" \r\n\0\xff");
    }
    let exptime = *random.pick(&[0u32, 0, 0, 1000, u32::MAX, 0x8000_0000]);
    let cas = *random.pick(&[0u64, 0, 0, 1, 1, u64::MAX / 3]);
    let mut request = match random.below(14) {
        0..3 => Packet::new(*random.pick(&[0x00, 0x09, 0x0c, 0x0d]), &key),
        3..7 => {
            let flags = random.next() as u32;
            let extras = [flags.to_be_bytes(), exptime.to_be_bytes()].concat();
            let opcode = *random.pick(&[0x01, 0x02, 0x03, 0x11, 0x12, 0x13]);
            let value = random_value(random);
            Packet { extras, value, cas, ..Packet::new(opcode, &key) }
        }
        7 => Packet { cas, ..Packet::new(*random.pick(&[0x04, 0x14]), &key) },
        8..10 => {
            let opcode = *random.pick(&[0x05, 0x06, 0x15, 0x16]);
            let largest = if opcode & 1 == 0 { u64::MAX } else { 1 << 40 };
            let mut extras = random.pick(&[1, 5, 1000, largest]).to_be_bytes().to_vec();
            extras.extend((random.below(200) as u64).to_be_bytes());
            extras.extend(exptime.to_be_bytes());
            Packet { extras, cas, ..Packet::new(opcode, &key) }
        }
        10..12 => Packet {
            value: random_text(random),
            cas,
            ..Packet::new(*random.pick(&[0x0e, 0x0f, 0x19, 0x1a]), &key)
        },
        12 => {
            let extras = exptime.to_be_bytes().to_vec();
            Packet { extras, ..Packet::new(*random.pick(&[0x1c, 0x1d, 0x1e, 0x23, 0x24]), &key) }
        }
        _ => Packet::new(*random.pick(&[0x0a, 0x30, 0xff, 0x20]), b""),
    };
    request.opaque = random.next() as u32 >> 1;
    request
}

/// Sends random requests to both sides, and compares what `shown` says of each reply.
fn compare(seed: u64, theirs: &mut Side, ours: &mut Side, shown: impl Fn(&Packet) -> Packet, what: &str) {
    const ROUNDS: usize = 150;
    let mut random = Random::new(seed);
    for _ in 0..ROUNDS {
        let requests: Vec<Packet> = (0..1 + random.below(40)).map(|_| random_request(&mut random)).collect();
        let (theirs, ours) = (theirs.replies(&requests), ours.replies(&requests));
        for ((request, their), our) in requests.iter().zip(&theirs).zip(&ours) {
            assert_eq!(
                their.iter().map(&shown).collect::<Vec<_>>(),
                our.iter().map(&shown).collect::<Vec<_>>(),
                "seed {seed}, {what}: {request:?} sent as {}",
                shorten(&request.bytes())
            );
        }
    }
}

/// A memcached without threads that change items.
fn quiet_memcached() -> Server {
    Server::memcached(&["-o", "no_lru_maintainer,no_lru_crawler,no_slab_reassign"])
}

#[test]
fn binary_replies_are_those_of_a_memcached() {
    for &backend in Backend::all() {
        for shards in [1, 2, 4] {
            let seed = shards as u64 * 7 + backend as u64;
            let mut theirs = Side::new(quiet_memcached(), 1);
            let mut ours = Side::new(Server::start_on(backend, shards, &[]), usize::MAX);
            compare(seed, &mut theirs, &mut ours, Packet::clone, &format!("{backend:?}, {shards} shards"));
        }
    }
}

#[test]
fn binary_replies_of_a_proxy_are_those_of_a_memcached() {
    // The text command that is sent for it says neither.
    let shown = |reply: &Packet| match reply {
        Packet { opcode: TOUCH, status: 0, .. } => Packet { cas: 0, extras: vec![0; 4], ..reply.clone() },
        _ => reply.clone(),
    };
    for &backend in Backend::all() {
        for shards in [1, 2] {
            for through_memcached in [true, false] {
                let cache = if through_memcached { quiet_memcached() } else { Server::start(&[]) };
                let config = format!(
                    "{{\"pools\": {{\"A\": {{\"servers\": [\"{}\"]}}}}, \"route\": \"PoolRoute|A\"}}",
                    cache.address
                );
                let proxy = proxy(backend, shards, &["--config-str", &config]);
                let (mut theirs, mut ours) = (Side::new(quiet_memcached(), 1), Side::new(proxy, 1));
                let what = format!("{backend:?}, {shards} shards, memcached {through_memcached}");
                compare(shards as u64 + 40, &mut theirs, &mut ours, shown, &what);
            }
        }
    }
}
