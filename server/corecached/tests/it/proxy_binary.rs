//! Clients of the binary protocol at a proxy, beyond what a comparison with a memcached shows: values that come in
//! pieces, several caches, caches that fail, and requests without a key.

use super::proxy::{addresses, caches, everywhere, proxy};
use super::support::{Client, Folder, Packet, Server, opcode, wait_until};

const DELETE: u8 = 0x04;
const QUIT: u8 = 0x07;
const FLUSH: u8 = 0x08;
const SETQ: u8 = 0x11;
const FLUSHQ: u8 = 0x18;
const SASL_LIST: u8 = 0x20;

fn config(caches: &[Server]) -> String {
    let servers = addresses(caches);
    format!("{{\"pools\": {{\"A\": {{\"servers\": {servers:?}}}}}, \"route\": \"PoolRoute|A\"}}")
}

fn noop(opaque: u32) -> Packet {
    Packet { opaque, ..Packet::new(opcode::NOOP, b"") }
}

#[test]
fn large_values_come_back_whole_and_those_that_are_too_large_are_refused() {
    everywhere(|backend, shards| {
        let caches = caches(2);
        let proxy = proxy(backend, shards, &["--config-str", &config(&caches)]);
        let mut client = Client::connect(&proxy);
        for (number, len) in [0, 1, 4096, 16_384, 70_000, 1_000_000].into_iter().enumerate() {
            let value: Vec<u8> = (0..len).map(|at: usize| (at * 31 % 251) as u8).collect();
            let key = format!("big{number}").into_bytes();
            let stored = Packet::store(opcode::SET, &key, &value).ask(&mut client);
            assert!(stored.status == 0 && stored.cas != 0, "{stored:?}");
            let got = Packet::new(opcode::GETK, &key).ask(&mut client);
            assert!(got.value == value && got.key == key && got.cas == stored.cas, "{len} bytes");
        }
        let refused = Packet::store(opcode::SET, b"k", &vec![b'x'; 2 << 20]).ask(&mut client);
        assert_eq!((refused.status, &refused.value[..]), (3, &b"Too large."[..]));
        assert_eq!(Packet::new(opcode::GET, b"k").ask(&mut client).status, 1);
    });
}

#[test]
fn replies_come_in_the_order_of_their_requests_from_however_many_caches() {
    everywhere(|backend, shards| {
        let caches = caches(3);
        let proxy = proxy(backend, shards, &["--config-str", &config(&caches)]);
        let mut client = Client::connect(&proxy);
        let mut requests = Vec::new();
        for number in 0..200 {
            let key = format!("key {number}").into_bytes();
            requests.extend(Packet::store(SETQ, &key, &key).bytes());
        }
        for number in 0..200 {
            requests.extend(Packet::new(opcode::GETKQ, format!("missing{number}").as_bytes()).bytes());
            let key = format!("key {number}").into_bytes();
            requests.extend(Packet { opaque: number, ..Packet::new(opcode::GETKQ, &key) }.bytes());
        }
        requests.extend(noop(7).bytes());
        client.send(&requests);
        for number in 0..200 {
            let got = Packet::read(&mut client);
            let key = format!("key {number}").into_bytes();
            assert_eq!((got.opaque, &got.key, &got.value), (number, &key, &key));
        }
        assert_eq!(Packet::read(&mut client).opaque, 7);
        // A text client names the same keys, where it can.
        Packet::store(opcode::SET, b"shared", b"value").ask(&mut client);
        let mut text = Client::connect(&proxy);
        assert_eq!(text.get("shared").as_deref(), Some(&b"value"[..]));
        text.check("mg a2V5IDE= b v\r\n", "VA 5\r\nkey 1\r\n");
    });
}

#[test]
fn requests_without_a_key_are_answered_by_the_proxy() {
    everywhere(|backend, shards| {
        let caches = caches(1);
        let config = config(&caches);
        let closed = proxy(backend, shards, &["--config-str", &config]);
        let mut client = Client::connect(&closed);
        assert_eq!(Packet::new(opcode::VERSION, b"").ask(&mut client).value, b"1.6.45");
        assert_eq!(Packet::new(SASL_LIST, b"").ask(&mut client).status, 0x81);
        assert_eq!(Packet::new(FLUSH, b"").ask(&mut client).status, 0x20);
        assert_eq!(Packet::new(0x7f, b"").ask(&mut client).status, 0x81);
        assert_eq!(Packet::new(opcode::STAT, b"nothing").ask(&mut client).status, 1);
        assert_eq!(Packet::new(opcode::STAT, b"items").ask(&mut client).key, b"");
        client.send(Packet::new(opcode::STAT, b"").bytes());
        let mut names = Vec::new();
        loop {
            let stat = Packet::read(&mut client);
            if stat.key.is_empty() {
                break;
            }
            names.push(String::from_utf8(stat.key).unwrap());
        }
        for name in ["version", "uptime", "cmd_get", "num_servers"] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        assert_eq!(Packet::new(QUIT, b"").ask(&mut client).status, 0);
        assert_eq!(client.rest(), b"");
        // Nothing can be said to what is no request.
        let mut client = Client::connect(&closed);
        assert_eq!(noop(1).ask(&mut client).status, 0);
        client.send("version\r\n");
        assert_eq!(client.rest(), b"");

        let open = proxy(backend, shards, &["--config-str", &config, "--enable-flush-cmd"]);
        let mut client = Client::connect(&open);
        for flush in [FLUSH, FLUSHQ] {
            Packet::store(opcode::SET, b"k", b"v").ask(&mut client);
            client.send([Packet::new(flush, b"").bytes(), noop(3).bytes()].concat());
            if flush == FLUSH {
                assert_eq!(Packet::read(&mut client).opcode, FLUSH);
            }
            assert_eq!(Packet::read(&mut client).opaque, 3);
            assert_eq!(Packet::new(opcode::GET, b"k").ask(&mut client).status, 1);
        }
    });
}

#[test]
fn a_cache_that_is_gone_is_a_temporary_failure() {
    everywhere(|backend, shards| {
        let mut caches = caches(1);
        let spool = Folder::new();
        let args = ["-a", spool.path().to_str().unwrap(), "--config-str", &config(&caches)];
        let proxy = proxy(backend, shards, &args);
        let mut client = Client::connect(&proxy);
        assert_eq!(Packet::store(opcode::SET, b"k", b"v").ask(&mut client).status, 0);
        caches.clear();
        wait_until("the cache to be missed", || {
            Packet::store(opcode::SET, b"k", b"v").ask(&mut client).status == 0x86
        });
        // As for text, a get that failed is a miss, and a delete that is kept for later found nothing.
        assert_eq!(Packet::new(opcode::GET, b"k").ask(&mut client).status, 1);
        assert_eq!(Packet::new(DELETE, b"k").ask(&mut client).status, 1);
        client.send([Packet::new(opcode::GETQ, b"k").bytes(), noop(9).bytes()].concat());
        assert_eq!(Packet::read(&mut client).opaque, 9);
    });
}

#[test]
fn a_key_that_no_text_can_name_and_that_is_too_long_for_base64_is_refused() {
    everywhere(|backend, shards| {
        let caches = caches(1);
        let proxy = proxy(backend, shards, &["--config-str", &config(&caches)]);
        let mut client = Client::connect(&proxy);
        let longest = vec![b' '; 186];
        assert_eq!(Packet::store(opcode::SET, &longest, b"v").ask(&mut client).status, 0);
        assert_eq!(Packet::new(opcode::GET, &longest).ask(&mut client).value, b"v");
        for len in [187, 250] {
            let refused = Packet::new(opcode::GET, &vec![b' '; len]).ask(&mut client);
            assert_eq!((refused.status, &refused.value[..]), (4, &b"CLIENT_ERROR bad key"[..]));
        }
        // A plain one may have all 250.
        let plain = vec![b'k'; 250];
        assert_eq!(Packet::store(opcode::SET, &plain, b"v").ask(&mut client).status, 0);
        assert_eq!(Packet::new(opcode::GET, &plain).ask(&mut client).value, b"v");
    });
}
