//! Every scheme against what the clients and proxies themselves did: `tests/vectors`, and `INDEX.json` there
//! says how each file was made.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::murmur::{murmur3, murmur64a};
use super::rendezvous::PythonKey;
use super::spooky::spooky32;
use super::*;

fn file(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn numbers(list: &Value) -> Vec<u64> {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap());
    list.as_array().unwrap().iter().map(number).collect()
}

fn floats(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The sets of one file, and what was checked.
struct Vectors {
    sets: Vec<Value>,
    keys: Vec<String>,
    checked: Vec<String>,
    keys_checked: usize,
}

impl Vectors {
    fn from_name(name: &str) -> Self {
        let sets = file(name)["sets"].as_array().unwrap().clone();
        Self { sets, keys: texts(&file("keys.json")["keys"]), checked: Vec::new(), keys_checked: 0 }
    }

    fn set(&self, id: &str) -> Value {
        self.sets.iter().find(|set| set["id"] == id).unwrap_or_else(|| panic!("no set {id}")).clone()
    }

    fn ids(&self) -> Vec<String> {
        self.sets.iter().map(|set| set["id"].as_str().unwrap().to_owned()).collect()
    }

    /// `pick` gives the index of every key of the set.
    fn index(&mut self, id: &str, pick: impl Fn(&[u8]) -> usize) {
        let set = self.set(id);
        let keys = if set["keys"].is_array() { texts(&set["keys"]) } else { self.keys.clone() };
        let index = numbers(&set["index"]);
        assert_eq!(keys.len(), index.len(), "{id}");
        for (key, server) in keys.iter().zip(index) {
            assert_eq!(pick(key.as_bytes()), server as usize, "{id}: {key}");
        }
        self.count(id, keys.len());
    }

    /// `hash` gives the value of every key of the set.
    fn value(&mut self, id: &str, hash: impl Fn(&[u8]) -> u64) {
        let values = numbers(&self.set(id)["value"]);
        assert_eq!(self.keys.len(), values.len(), "{id}");
        for (key, value) in self.keys.iter().zip(values) {
            assert_eq!(hash(key.as_bytes()), value, "{id}: {key}");
        }
        self.count(id, self.keys.len());
    }

    fn ring(&mut self, id: &str, distribution: Distribution, servers: &[RingServer]) {
        self.ring_of_part(id, distribution, KeyPart::Whole, servers);
    }

    fn ring_of_part(&mut self, id: &str, distribution: Distribution, part: KeyPart, servers: &[RingServer]) {
        let spec = RingSpec { distribution, key_part: part, salt: Vec::new() };
        let ring = Ring::build(&spec, servers).unwrap();
        self.index(id, |key| ring.pick(key));
    }

    fn count(&mut self, id: &str, keys: usize) {
        self.checked.push(id.to_owned());
        self.keys_checked += keys;
    }

    /// Every set of the file was checked.
    fn done(self, name: &str) -> (usize, usize) {
        for id in self.ids() {
            assert!(self.checked.contains(&id), "{name}: {id} was not checked");
        }
        println!("{name}: {} sets, {} keys", self.checked.len(), self.keys_checked);
        (self.checked.len(), self.keys_checked)
    }
}

/// Servers `10.0.0.0:11211` and so on.
fn numbered(count: usize) -> Vec<RingServer> {
    (0..count).map(|at| RingServer::new(&format!("10.0.{}.{}", at / 256, at % 256), 11211)).collect()
}

fn weighted(weights: &[f64]) -> Vec<RingServer> {
    let mut servers = numbered(weights.len());
    for (server, &weight) in servers.iter_mut().zip(weights) {
        server.weight = weight;
    }
    servers
}

/// `host:port`, `host:port:weight` or `host:port:weight name`
fn server(text: &str) -> RingServer {
    let (address, name) = text.split_once(' ').map_or((text, None), |(address, name)| (address, Some(name)));
    let mut fields = address.split(':');
    let mut server = RingServer::new(fields.next().unwrap(), fields.next().unwrap().parse().unwrap());
    server.weight = fields.next().map_or(1.0, |weight| weight.parse().unwrap());
    server.name = name.map(str::to_owned);
    server
}

fn servers(list: &Value) -> Vec<RingServer> {
    texts(list).iter().map(|text| server(text)).collect()
}

fn tail(id: &str, in_front: &str) -> usize {
    id.strip_prefix(in_front).unwrap().parse().unwrap()
}

fn mcrouter() -> (usize, usize) {
    let mut vectors = Vectors::from_name("mcrouter.json");
    for id in vectors.ids() {
        let set = vectors.set(&id);
        match id.as_str() {
            "crc32_raw" => vectors.value(&id, |key| crc32fast::hash(key).into()),
            "spooky_v2_hash32_seed0" => vectors.value(&id, |key| spooky32(key, 0).into()),
            "spooky_v2_hash32_seed_0xface2014" => {
                vectors.value(&id, |key| spooky32(key, 0xface_2014).into());
            }
            "furc_ch3_n99999" | "furc_ch3_n8388608" => {
                let servers = tail(&id, "furc_ch3_n");
                vectors.index(&id, |key| furc::ch3(key, servers));
            }
            _ if id.starts_with("furc") => {
                vectors.ring(&id, Distribution::Ch3, &numbered(tail(&id, "furc_ch3_n")));
            }
            _ if id.starts_with("mcrouter_Crc32") => {
                vectors.ring(&id, Distribution::Crc32, &numbered(tail(&id, "mcrouter_Crc32_n")));
            }
            _ if id.starts_with("murmur") => {
                let seed = tail(&id, "murmur_hash_64A_seed_") as u64;
                vectors.value(&id, |key| murmur64a(key, seed));
            }
            _ if id.starts_with("weighted_ch3") => {
                vectors.ring(&id, Distribution::WeightedCh3, &weighted(&floats(&set["weights"])));
            }
            _ if id.starts_with("weighted_ch4") => {
                vectors.ring(&id, Distribution::WeightedCh4, &weighted(&floats(&set["weights"])));
            }
            _ => {
                let tags = texts(&set["tags"]);
                let mut servers = numbered(tags.len());
                for (server, tag) in servers.iter_mut().zip(tags) {
                    server.tag = Some(tag);
                }
                if id == "mcrouter_weighted_rendezvous" {
                    for (server, weight) in servers.iter_mut().zip(floats(&set["weights"])) {
                        server.weight = weight;
                    }
                    vectors.ring(&id, Distribution::WeightedRendezvous, &servers);
                } else {
                    vectors.ring(&id, Distribution::Rendezvous, &servers);
                }
            }
        }
    }
    vectors.done("mcrouter.json")
}

const KETAMA: Distribution = Distribution::Points { points: Points::Ketama, key_hash: KeyHash::Md5 };

fn libmemcached() -> (usize, usize) {
    let mut vectors = Vectors::from_name("libmemcached.json");
    for id in vectors.ids() {
        let servers = servers(&vectors.set(&id)["servers"]);
        let distribution = if let Some(name) = id.strip_prefix("modula_") {
            // Debian builds libmemcached without hsieh: it stays at its default.
            Distribution::Modula(if name == "hsieh" {
                KeyHash::OneAtATime
            } else {
                KeyHash::named(name).unwrap()
            })
        } else if id.starts_with("ketama_weighted") {
            KETAMA
        } else if id.starts_with("ketama_spy") {
            Distribution::Points { points: Points::KetamaSpy, key_hash: KeyHash::Md5 }
        } else {
            let key_hash = if id.contains("md5") { KeyHash::Md5 } else { KeyHash::OneAtATime };
            Distribution::Points { points: Points::KetamaUnweighted(key_hash), key_hash }
        };
        vectors.ring(&id, distribution, &servers);
    }
    vectors.done("libmemcached.json")
}

fn twemproxy() -> (usize, usize) {
    let mut vectors = Vectors::from_name("twemproxy.json");
    for id in vectors.ids() {
        let set = vectors.set(&id);
        let key_hash = KeyHash::named(set["hash"].as_str().unwrap()).unwrap();
        let distribution = match set["distribution"].as_str().unwrap() {
            "ketama" => Distribution::Points { points: Points::Ketama, key_hash },
            "modula" => Distribution::Modula(key_hash),
            other => panic!("{other}"),
        };
        let part = match set["hash_tag"].as_str() {
            Some(tag) => KeyPart::Between(tag.as_bytes()[0], tag.as_bytes()[1]),
            None => KeyPart::Whole,
        };
        vectors.ring_of_part(&id, distribution, part, &servers(&set["servers"]));
    }
    vectors.done("twemproxy.json")
}

fn memcached_proxy() -> (usize, usize) {
    let mut vectors = Vectors::from_name("memcached_proxy.json");
    for id in vectors.ids() {
        let servers = servers(&vectors.set(&id)["servers"]);
        let xxh3 = KeyHash::Xxh3 { seed: 0 };
        let points = |points, key_hash| Distribution::Points { points, key_hash };
        let distribution = match id.trim_end_matches("_ports") {
            "jump_seed" => Distribution::Jump(KeyHash::Xxh3 { seed: KeyHash::xxh3_seed(b"myseed") }),
            "jump_ringmd5" => Distribution::Jump(KeyHash::Md5),
            "ring_default" => points(Points::Xxh3 { a_server: 160 }, xxh3),
            "ring_default_obuckets" => points(Points::Xxh3 { a_server: 40 }, xxh3),
            "ring_ketama" => points(Points::KetamaWithPort, KeyHash::Md5),
            "ring_twemproxy" => KETAMA,
            "ring_evcache" => points(Points::Evcache, KeyHash::Md5),
            _ => Distribution::Jump(xxh3),
        };
        let part = match id.as_str() {
            "jump_stop" => KeyPart::hash_stop(),
            "jump_tags" => KeyPart::Between(b'{', b'}'),
            _ => KeyPart::Whole,
        };
        vectors.ring_of_part(&id, distribution, part, &servers);
    }
    vectors.done("memcached_proxy.json")
}

fn pymemcache() -> (usize, usize) {
    let mut vectors = Vectors::from_name("pymemcache.json");
    vectors.value("murmur3_32_seed0", |key| murmur3(key, 0).into());
    for id in vectors.ids().into_iter().filter(|id| id.starts_with("hashclient")) {
        let servers = servers(&vectors.set(&id)["nodes"]);
        let form = if id.contains("_str_") { PythonKey::Text } else { PythonKey::Bytes };
        vectors.ring(&id, Distribution::Pymemcache(form), &servers);
    }
    vectors.done("pymemcache.json")
}

fn spymemcached() -> (usize, usize) {
    let mut vectors = Vectors::from_name("spymemcached.json");
    for id in vectors.ids() {
        let set = vectors.set(&id);
        let listed = set.get("servers_name_ip_port").or(set.get("servers_name_ip_port_weight")).unwrap();
        let servers: Vec<RingServer> = texts(listed)
            .iter()
            .map(|text| {
                let fields: Vec<&str> = text.split('|').collect();
                let host = if fields[0].is_empty() { fields[1] } else { fields[0] };
                let mut server = RingServer::new(host, fields[2].parse().unwrap());
                server.ip = Some(fields[1].to_owned());
                server.weight = fields.get(3).map_or(1.0, |weight| weight.parse().unwrap());
                server
            })
            .collect();
        let points = |points| Distribution::Points { points, key_hash: KeyHash::Md5 };
        let distribution = match id.as_str() {
            "ketama_spymemcached_ip" | "ketama_spymemcached_host" => points(Points::Spymemcached),
            _ if id.starts_with("ketama") => points(Points::SpymemcachedLibmemcached),
            _ => Distribution::Modula(match id.strip_prefix("array_mod_").unwrap() {
                "NATIVE_HASH" => KeyHash::Java,
                "CRC_HASH" => KeyHash::Crc32Upper,
                "KETAMA_HASH" => KeyHash::Md5,
                fnv => KeyHash::named(&fnv.strip_suffix("_HASH").unwrap().to_lowercase()).unwrap(),
            }),
        };
        vectors.ring(&id, distribution, &servers);
    }
    vectors.done("spymemcached.json")
}

fn dalli() -> (usize, usize) {
    let mut vectors = Vectors::from_name("dalli.json");
    for id in vectors.ids() {
        let set = vectors.set(&id);
        let mut servers = servers(&set["servers"]);
        for (server, weight) in servers.iter_mut().zip(floats(&set["weights"])) {
            server.weight = weight;
        }
        let distribution = Distribution::Points { points: Points::Dalli, key_hash: KeyHash::Crc32 };
        vectors.ring(&id, distribution, &servers);
    }
    vectors.done("dalli.json")
}

fn jump_xxh3() -> (usize, usize) {
    let mut vectors = Vectors::from_name("jump_xxh3.json");
    let xxh3 = KeyHash::Xxh3 { seed: 0 };
    vectors.value("xxh3_64_seed0", |key| xxh3.hash(key));
    for id in vectors.ids().into_iter().filter(|id| id.starts_with("jump_xxh3")) {
        vectors.ring(&id, Distribution::Jump(xxh3), &numbered(tail(&id, "jump_xxh3_n")));
    }
    let raw = vectors.set("jump_raw");
    let buckets = numbers(&raw["n"]);
    let inputs = numbers(&raw["input"]);
    for (&input, row) in inputs.iter().zip(raw["index"].as_array().unwrap()) {
        for (&buckets, bucket) in buckets.iter().zip(numbers(row)) {
            assert_eq!(jump::jump(input, buckets as usize), bucket as usize, "{input} of {buckets}");
        }
    }
    vectors.count("jump_raw", inputs.len() * buckets.len());
    vectors.done("jump_xxh3.json")
}

fn crc_modulo_clients() -> (usize, usize) {
    let mut vectors = Vectors::from_name("crc_modulo_clients.json");
    for id in vectors.ids() {
        if id == "python_memcached_hash" {
            vectors.value(&id, |key| KeyHash::Crc32UpperNotZero.hash(key));
        } else if id.starts_with("python") {
            let servers = numbered(tail(&id, "python_memcached_n"));
            vectors.ring(&id, Distribution::Modula(KeyHash::Crc32UpperNotZero), &servers);
        } else {
            let servers = numbered(tail(&id, "go_crc32_ieee_mod_n"));
            vectors.ring(&id, Distribution::Modula(KeyHash::Crc32), &servers);
        }
    }
    vectors.done("crc_modulo_clients.json")
}

#[test]
fn every_vector_of_every_client_and_proxy_holds() {
    let files = [
        libmemcached(),
        twemproxy(),
        memcached_proxy(),
        pymemcache(),
        spymemcached(),
        dalli(),
        jump_xxh3(),
        crc_modulo_clients(),
        mcrouter(),
    ];
    let (sets, keys) = files.iter().fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1));
    println!("checked {sets} sets, {keys} keys");
    let listed = file("INDEX.json");
    let listed = listed.as_object().unwrap().values().map(|file| file["sets"].as_array().unwrap().len());
    assert_eq!(sets, listed.sum::<usize>());
}

/// mcrouter's own unit tests give keys that are not printable, and sums over many.
#[test]
fn the_facts_of_mcrouters_own_tests_hold() {
    let facts = &file("mcrouter.json")["facts"];
    for key in ["sample", ""] {
        for servers in [1, 100, 8_388_608] {
            let expected = &facts["ch3"][key][format!("n{servers}")];
            assert_eq!(
                furc::ch3(key.as_bytes(), servers) as u64,
                expected.as_u64().unwrap(),
                "{key} {servers}"
            );
        }
    }
    let bytes: Vec<u8> = (0x80..=0xff).chain(0..=0x7f).collect();
    let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
    assert_eq!(furc::ch3(&bytes, 99999) as u64, facts["ch3"]["bytes_0x80..0xff,0x00..0x7f_n99999"]);
    assert_eq!(furc::ch3(&reversed, 99999) as u64, facts["ch3"]["same_reversed_n99999"]);
    let zero = vec![0; 100];
    assert_eq!(furc::weighted_ch3(b"sample", &zero) as u64, facts["weighted_ch3"]["zero_n100_sample"]);
    assert_eq!(furc::weighted_ch3(b"", &zero) as u64, facts["weighted_ch3"]["zero_n100_empty"]);
    let counts = |servers: usize, keys: usize, pick: &dyn Fn(&[u8]) -> usize| {
        let mut counts = vec![0_u64; servers];
        for key in 0..keys {
            counts[pick(key.to_string().as_bytes())] += 1;
        }
        counts
    };
    assert_eq!(counts(3, 1000, &|key| furc::ch3(key, 3)), numbers(&facts["ch3"]["counts_decimal_0_999_n3"]));
    assert_eq!(
        counts(10, 10_000, &|key| furc::ch3(key, 10)),
        numbers(&facts["ch3"]["counts_decimal_0_9999_n10"])
    );
    let thresholds = [1.0, 1.0, 0.7].map(furc::threshold);
    assert_eq!(
        counts(3, 1000, &|key| furc::weighted_ch3(key, &thresholds)),
        numbers(&facts["weighted_ch3"]["counts_0_999_w[1,1,0.7]"])
    );
    for (weight, sums) in [("unit_100k", 100_000), ("half_10k", 10_000), ("zero_10k", 10_000)] {
        let value = [("unit_100k", 1.0), ("half_10k", 0.5), ("zero_10k", 0.0)]
            .iter()
            .find_map(|&(name, value)| (name == weight).then_some(value))
            .unwrap();
        for (servers, expected) in facts["poly31_checksum_over_k0.."][weight].as_object().unwrap() {
            let servers: usize = servers.parse().unwrap();
            if servers > 1000 {
                continue; // the same code at ten times the time
            }
            let thresholds = vec![furc::threshold(value); servers];
            let sum = (0..sums).fold(0_u32, |sum, key| {
                let server = furc::weighted_ch3(format!("k{key}").as_bytes(), &thresholds);
                sum.wrapping_mul(31).wrapping_add(server as u32)
            });
            assert_eq!(u64::from(sum), expected.as_u64().unwrap(), "{weight} {servers}");
        }
    }
}

/// Keys that go elsewhere when the ninth of ten servers is added, and when the fifth of ten is removed, in
/// percent.
#[test]
fn adding_or_removing_a_server_moves_about_its_share() {
    const KEYS: usize = 20_000;
    let xxh3 = KeyHash::Xxh3 { seed: 0 };
    let points = |points, key_hash| Distribution::Points { points, key_hash };
    // At most this many percent may move when a tenth server is added, and when one in the middle is removed.
    for (name, distribution, added_max, removed_max) in [
        ("Ch3", Distribution::Ch3, 12, 60),
        ("WeightedCh3", Distribution::WeightedCh3, 12, 60),
        ("Rendezvous", Distribution::Rendezvous, 12, 12),
        ("WeightedRendezvous", Distribution::WeightedRendezvous, 12, 12),
        ("Jump", Distribution::Jump(xxh3), 12, 60),
        ("Ketama", KETAMA, 15, 15),
        ("KetamaWithPort", points(Points::KetamaWithPort, KeyHash::Md5), 15, 15),
        ("Xxh3 points", points(Points::Xxh3 { a_server: 160 }, xxh3), 15, 15),
        ("Spymemcached", points(Points::Spymemcached, KeyHash::Md5), 15, 15),
        ("Dalli", points(Points::Dalli, KeyHash::Crc32), 15, 15),
        ("Pymemcache", Distribution::Pymemcache(PythonKey::Text), 12, 12),
        ("Maglev", Distribution::Maglev, 16, 16),
        ("Crc32", Distribution::Crc32, 100, 100),
        ("Modula", Distribution::Modula(KeyHash::OneAtATime), 100, 100),
    ] {
        let spec = RingSpec { distribution, key_part: KeyPart::Whole, salt: Vec::new() };
        let all = numbered(10);
        let mut fewer = all.clone();
        fewer.remove(4);
        let moved = |before: &[RingServer], after: &[RingServer]| {
            let rings = [Ring::build(&spec, before).unwrap(), Ring::build(&spec, after).unwrap()];
            let host =
                |at: usize, list: &[RingServer], key: &str| list[rings[at].pick(key.as_bytes())].host.clone();
            let keys = (0..KEYS).map(|key| format!("user:{key}"));
            let moved = keys.filter(|key| host(0, before, key) != host(1, after, key)).count();
            moved as f64 * 100.0 / KEYS as f64
        };
        let (added, removed) = (moved(&all[..9], &all), moved(&all, &fewer));
        println!(
            "{name:20} 9 -> 10 servers: {added:5.1} %   one of 10 removed: {removed:5.1} %   (best: 10 %)"
        );
        assert!(added <= f64::from(added_max) && removed <= f64::from(removed_max), "{name}");
    }
}

#[test]
fn a_salt_hashes_as_if_it_stood_behind_the_key() {
    let servers = numbered(50);
    let salted = Ring::build(&RingSpec { salt: b"salt".to_vec(), ..RingSpec::ch3() }, &servers).unwrap();
    let plain = Ring::build(&RingSpec::ch3(), &servers).unwrap();
    for key in 0..100 {
        assert_eq!(salted.pick(format!("{key}|#|x").as_bytes()), plain.pick(format!("{key}salt").as_bytes()));
    }
    let longest = [b'k'; KEY_BYTES_MAX];
    let spec = RingSpec {
        salt: vec![b's'; SALT_BYTES_MAX],
        distribution: Distribution::WeightedCh3,
        ..RingSpec::ch3()
    };
    assert!(Ring::build(&spec, &servers).unwrap().pick(&longest) < 50);
}

#[test]
fn servers_that_cannot_make_a_ring_are_refused_with_the_reason() {
    let build = |distribution, servers: &[RingServer]| {
        Ring::build(&RingSpec { distribution, key_part: KeyPart::Whole, salt: Vec::new() }, servers).err()
    };
    assert_eq!(build(Distribution::Ch3, &[]), Some(RingError::NoServers));
    assert_eq!(build(KETAMA, &weighted(&[0.0, 0.0])), Some(RingError::NoWeight));
    let bad = Some(RingError::BadWeight { server: "10.0.0.1".into() });
    assert_eq!(build(Distribution::WeightedCh3, &weighted(&[1.0, -1.0])), bad);
    assert_eq!(build(Distribution::WeightedCh3, &weighted(&[1.0, f64::NAN])), bad);
    let modula = Distribution::Modula(KeyHash::Md5);
    assert_eq!(build(modula, &weighted(&[1.0, 1e12])), Some(RingError::TooManyPoints));
    assert_eq!(build(KETAMA, &weighted(&[1.0, 0.0])), None);
    let long = RingSpec { salt: vec![0; SALT_BYTES_MAX + 1], ..RingSpec::ch3() };
    assert_eq!(Ring::build(&long, &numbered(2)).err(), Some(RingError::SaltTooLong));
}

#[test]
fn one_server_takes_every_key() {
    for distribution in [Distribution::Ch3, KETAMA, Distribution::Maglev] {
        let spec = RingSpec { distribution, key_part: KeyPart::Whole, salt: Vec::new() };
        assert_eq!(Ring::build(&spec, &numbered(1)).unwrap().pick(b"key"), 0);
    }
}
