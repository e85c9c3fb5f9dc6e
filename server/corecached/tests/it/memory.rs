//! Memory: the server stays within its limit, and evicts or refuses past it.

use crate::support::{Backend, Client, Server, wait_until};

const MIB: usize = 1 << 20;
const VALUE_BYTES: usize = 1_000;

/// Stores `count` items under `prefix` with noreply.
fn fill(client: &mut Client, prefix: &str, count: usize) {
    let value = vec![b'v'; VALUE_BYTES];
    let mut requests = Vec::new();
    for number in 0..count {
        requests.extend_from_slice(format!("set {prefix}{number} 0 0 {VALUE_BYTES} noreply\r\n").as_bytes());
        requests.extend_from_slice(&value);
        requests.extend_from_slice(b"\r\n");
        if requests.len() > MIB {
            client.send(&requests);
            requests.clear();
        }
    }
    client.send(&requests);
    client.check("mn\r\n", "MN\r\n");
}

#[test]
fn three_times_the_memory_evicts_and_stays_within_bounds() {
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &["-m", "64"]);
            let mut client = Client::connect(&server);
            let empty = server.resident_bytes();
            fill(&mut client, "k", 3 * 64 * MIB / VALUE_BYTES);
            let stats = client.stats("");
            let number = |name: &str| stats[name].parse::<usize>().unwrap();
            assert!(number("evictions") > 0);
            assert_eq!(number("limit_maxbytes"), 64 * MIB);
            let kept = number("curr_items") * VALUE_BYTES;
            println!("{backend:?}, {shards} shards: {} of 64 MiB are values", kept / MIB);
            assert!(kept > 64 * MIB * 2 / 3, "only {kept} bytes of values are kept");
            assert!(number("bytes") <= 64 * MIB);
            let resident = server.peak_resident_bytes();
            println!(
                "{backend:?}, {shards} shards: {} MiB resident, {} at start",
                resident / MIB,
                empty / MIB
            );
            assert!(resident < empty.max(64 * MIB) + 32 * MIB, "{resident} bytes resident");
            // The newest items are there, and new values are still stored.
            let last = 3 * 64 * MIB / VALUE_BYTES - 1;
            assert!(client.get(&format!("k{last}")).is_some());
            client.set("one-more", &[]);
        }
    }
}

#[test]
fn memory_is_locked_on_request_and_no_more_of_it_than_is_used() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 1, &["-m", "256", "-k"]);
        let mut client = Client::connect(&server);
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let locked = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        if locked.contains(" 0 kB") {
            // The process may not lock memory; a warning says so.
            assert!(server.stderr().contains("-k"), "{}", server.stderr());
        }
        fill(&mut client, "k", 10_000);
        assert!(server.peak_resident_bytes() < 100 * MIB, "{} bytes resident", server.peak_resident_bytes());
    }
}

impl Client {
    /// Sets `key` and returns the reply, whatever it is.
    fn try_set(&mut self, key: &str, value: &[u8]) -> String {
        self.send([format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat());
        self.line()
    }
}

#[test]
fn without_eviction_a_full_memory_says_so_and_keeps_what_it_has() {
    for &backend in Backend::all() {
        for shards in [1, 2] {
            let server = Server::start_on(backend, shards, &["-m", "32", "-M"]);
            let mut client = Client::connect(&server);
            let value = vec![b'v'; 10_000];
            let mut stored = Vec::new();
            let mut refused = 0;
            for number in 0..5_000 {
                let key = format!("k{number}");
                match &*client.try_set(&key, &value) {
                    "STORED" => stored.push(key),
                    "SERVER_ERROR out of memory storing object" => refused += 1,
                    other => panic!("{backend:?}: {other}"),
                }
            }
            assert!(refused > 0, "50 MB do not fit into 32 MiB");
            println!("{backend:?}, {shards} shards: {} values of 10 KB fit into 32 MiB", stored.len());
            assert!(stored.len() * value.len() > 20 * MIB, "only {} were stored", stored.len());
            for key in &stored {
                assert!(client.get(key).as_deref() == Some(&value[..]), "{key} was stored");
            }
            assert_eq!(client.stat("evictions"), 0);
            assert_eq!(client.stat("store_no_memory"), refused);
            assert_eq!(client.stats("settings")["evictions"], "off");
            // A large value that is sent in pieces is refused as well, and the connection stays usable.
            assert_eq!(
                client.try_set("large", &vec![b'l'; 900_000]),
                "SERVER_ERROR out of memory storing object"
            );
            client.check("mn\r\n", "MN\r\n");
            // Memory that was given back can be used again.
            client.check("flush_all\r\n", "OK\r\n");
            wait_until("room", || client.try_set("again", &value) == "STORED");
        }
    }
}

#[test]
fn the_memory_limit_can_be_changed_at_run_time() {
    let server = Server::start(&["-m", "128", "-t", "2"]);
    let mut client = Client::connect(&server);
    fill(&mut client, "k", 100 * MIB / VALUE_BYTES);
    client.check("cache_memlimit 32\r\n", "OK\r\n");
    assert_eq!(client.stat("limit_maxbytes") as usize, 32 * MIB);
    fill(&mut client, "l", 40 * MIB / VALUE_BYTES);
    wait_until("the items to fit", || client.stat("bytes") as usize <= 32 * MIB);
    assert!(client.stat("evictions") > 0);
}
