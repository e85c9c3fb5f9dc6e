//! `hash` of a pool and the like: the scheme's name and what it needs besides.

use super::handle::Hash;
use super::pool::{Member, Pool};
use super::server::{Address, Server};
use crate::hash::{Distribution, KeyHash, KeyPart, Points, PythonKey, RingServer, WEIGHT_MISSING};

/// Schemes other than mcrouter's, which hash a key without looking for a hash stop.
const OTHERS: &str = "Ketama KetamaUnweighted KetamaSpy KetamaWithPort Evcache Xxh3Ring Spymemcached \
                      SpymemcachedLibmemcached Dalli Modula Jump Pymemcache PymemcacheBytes Maglev";

/// What a configuration said of hashing.
#[derive(Debug, Default)]
pub(crate) struct WrittenHash {
    pub function: Option<String>,
    /// Ours: the hash of keys, by libmemcached's and twemproxy's names.
    pub key_hash: Option<String>,
    /// Ours: bytes of `Jump`'s seed, as memcached's proxy takes it.
    pub seed: Option<String>,
    /// Ours: points of each server.
    pub points: Option<u32>,
    /// Ours: two bytes; the part of the key between them is hashed.
    pub hash_tag: Option<String>,
    /// Ours: the part of the key before it is hashed; `|#|` with mcrouter's schemes.
    pub hash_stop: Option<String>,
    pub salt: String,
    pub weights: Vec<f64>,
    pub tags: Vec<String>,
}

/// What is wrong with a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {remedy}")]
pub(crate) struct HashFault {
    pub key: &'static str,
    pub value: String,
    pub remedy: String,
}

impl HashFault {
    fn new(key: &'static str, value: &str, remedy: &str) -> Self {
        Self { key, value: value.into(), remedy: remedy.into() }
    }
}

impl WrittenHash {
    /// The checked form.
    ///
    /// # Errors
    /// One of the keys has a value that cannot be.
    pub(crate) fn check(self) -> Result<Hash, HashFault> {
        let named = self.function.as_deref();
        let key_hash = match self.key_hash.as_deref() {
            None => None,
            Some(name) => Some(KeyHash::named(name).ok_or_else(|| {
                let remedy = "must be one of default one_at_a_time md5 crc16 crc32 crc32a fnv1_64 fnv1a_64 fnv1_32 \
                              fnv1a_32 hsieh murmur murmur3 jenkins java xxh3";
                HashFault::new("key_hash", name, remedy)
            })?),
        };
        let xxh3 =
            KeyHash::Xxh3 { seed: self.seed.as_ref().map_or(0, |seed| KeyHash::xxh3_seed(seed.as_bytes())) };
        let points = |points, default| Distribution::Points { points, key_hash: key_hash.unwrap_or(default) };
        let distribution = match named {
            None | Some("Ch3") => Distribution::Ch3,
            Some("WeightedCh3") => Distribution::WeightedCh3,
            Some("WeightedCh4") => Distribution::WeightedCh4,
            Some("Crc32") => Distribution::Crc32,
            Some("ConstShard") => Distribution::ConstShard,
            Some("Rendezvous") => Distribution::Rendezvous,
            Some("WeightedRendezvous") => Distribution::WeightedRendezvous,
            Some("Ketama") => points(Points::Ketama, KeyHash::Md5),
            Some("KetamaUnweighted") => {
                let hash = key_hash.unwrap_or(KeyHash::OneAtATime);
                points(Points::KetamaUnweighted(hash), hash)
            }
            Some("KetamaSpy") => points(Points::KetamaSpy, KeyHash::Md5),
            Some("KetamaWithPort") => points(Points::KetamaWithPort, KeyHash::Md5),
            Some("Evcache") => points(Points::Evcache, KeyHash::Md5),
            Some("Xxh3Ring") => points(Points::Xxh3 { a_server: self.points.unwrap_or(160) }, xxh3),
            Some("Spymemcached") => points(Points::Spymemcached, KeyHash::Md5),
            Some("SpymemcachedLibmemcached") => points(Points::SpymemcachedLibmemcached, KeyHash::Md5),
            Some("Dalli") => points(Points::Dalli, KeyHash::Crc32),
            Some("Modula") => Distribution::Modula(key_hash.unwrap_or(KeyHash::OneAtATime)),
            Some("Jump") => Distribution::Jump(key_hash.unwrap_or(xxh3)),
            Some("Pymemcache") => Distribution::Pymemcache(PythonKey::Text),
            Some("PymemcacheBytes") => Distribution::Pymemcache(PythonKey::Bytes),
            Some("Maglev") => Distribution::Maglev,
            Some(name) => {
                let remedy = format!(
                    "must be one of Ch3 WeightedCh3 WeightedCh4 Crc32 ConstShard Rendezvous WeightedRendezvous {OTHERS}"
                );
                return Err(HashFault::new("hash_func", name, &remedy));
            }
        };
        let mcrouters = !named.is_some_and(|name| OTHERS.split(' ').any(|other| other == name));
        let key_part = match (self.hash_tag.as_deref().map(str::as_bytes), self.hash_stop) {
            (Some(&[open, close]), None) => KeyPart::Between(open, close),
            (Some(_), None) => {
                let tag = self.hash_tag.unwrap_or_default();
                return Err(HashFault::new("hash_tag", &tag, "must be two bytes: \"{}\""));
            }
            (Some(_), Some(stop)) => {
                return Err(HashFault::new("hash_stop", &stop, "give either hash_tag or hash_stop"));
            }
            (None, Some(stop)) if stop.is_empty() => KeyPart::Whole,
            (None, Some(stop)) => KeyPart::Before(stop.into_bytes()),
            (None, None) if mcrouters => KeyPart::hash_stop(),
            (None, None) => KeyPart::Whole,
        };
        if self.salt.len() > crate::hash::SALT_BYTES_MAX {
            return Err(HashFault::new("salt", &self.salt, "must have at most 128 bytes"));
        }
        Ok(Hash { distribution, key_part, salt: self.salt, weights: self.weights, tags: self.tags })
    }
}

impl Hash {
    /// The members of `pool` as hashing sees them; `resolved` in place of those written.
    pub(crate) fn ring_servers(&self, pool: &Pool, resolved: Option<&[Server]>) -> Vec<RingServer> {
        let weights = if self.weights.is_empty() { &pool.weights } else { &self.weights };
        let tags = if self.tags.is_empty() { &pool.tags } else { &self.tags };
        let server = |at: usize, server: Option<&Server>| {
            let mut ring = match server.map(|server| &server.address) {
                Some(Address::Tcp { host, port }) => RingServer::new(host, *port),
                Some(Address::Unix { path }) => RingServer::new(path, 0),
                None => RingServer::new(&at.to_string(), 0),
            };
            // Resolved members have no places in a list of weights.
            if !weights.is_empty() && resolved.is_none() {
                ring.weight = weights.get(at).copied().unwrap_or(WEIGHT_MISSING);
            }
            if resolved.is_none() {
                ring.tag = tags.get(at).cloned();
            }
            ring
        };
        match resolved {
            Some(servers) => servers.iter().enumerate().map(|(at, one)| server(at, Some(one))).collect(),
            None => pool
                .members
                .iter()
                .enumerate()
                .map(|(at, member)| match member {
                    Member::Server(one) => server(at, Some(one)),
                    Member::Handle(_) => server(at, None),
                })
                .collect(),
        }
    }
}
