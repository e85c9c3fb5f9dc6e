//! Highest random weight: each server gets a score for the key, and the key belongs to the server with the
//! highest.

use super::murmur::{Murmur3, murmur64a};

const TAG_SEED: u64 = 4_193_360_111;
const KEY_SEED: u64 = 2_718_281_828;

/// The hash of a server's tag.
#[must_use]
pub fn tag_hash(tag: &[u8]) -> u64 {
    murmur64a(tag, TAG_SEED)
}

fn score(tag: u64, key: u64) -> u64 {
    const M: u64 = 0x9ddf_ea08_eb38_2d69;
    let mut a = (key ^ tag).wrapping_mul(M);
    a ^= a >> 47;
    let mut b = (tag ^ a).wrapping_mul(M);
    b ^= b >> 47;
    b.wrapping_mul(M)
}

/// mcrouter's `Rendezvous`. It compares scores as doubles, so that close ones are equal; of equal ones the
/// later server wins.
#[must_use]
pub fn rendezvous(key: &[u8], tags: &[u64]) -> usize {
    let key = murmur64a(key, KEY_SEED);
    let mut best = (0, f64::MIN);
    for (server, &tag) in tags.iter().enumerate() {
        let score = score(tag, key) as f64;
        if score >= best.1 {
            best = (server, score);
        }
    }
    best.0
}

/// mcrouter's `WeightedRendezvous`. Of equal scores the first server wins.
#[must_use]
pub fn weighted_rendezvous(key: &[u8], servers: &[(u64, f64)]) -> usize {
    const FRACTION: u64 = (1 << 53) - 1;
    let key = murmur64a(key, KEY_SEED);
    let mut best = (0, f64::MIN);
    for (server, &(tag, weight)) in servers.iter().enumerate() {
        let x = (score(tag, key) & FRACTION) as f64 / (1_u64 << 53) as f64;
        let score = weight / -x.ln();
        if score > best.1 {
            best = (server, score);
        }
    }
    best.0
}

/// Writes the indexes of the servers to `order`, the highest score first: the order in which
/// `RendezvousPolicy` tries them.
pub fn rendezvous_order(key: &[u8], tags: &[u64], order: &mut Vec<u32>) {
    let key = murmur64a(key, KEY_SEED);
    order.clear();
    order.extend(0..tags.len() as u32);
    order.sort_by(|&one, &other| {
        let score = |server: u32| score(tags[server as usize], key) as f64;
        score(other).total_cmp(&score(one)).then(other.cmp(&one))
    });
}

/// The Python type of the keys that a pymemcache client is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PythonKey {
    /// `str`
    Text,
    /// `bytes`, of which pymemcache hashes the Python literal, `b'key'`.
    Bytes,
}

/// pymemcache's `HashClient`. `nodes` are the servers with their hashed `node-`, in descending order of their
/// names, so that of equal scores the first one wins. Right for ASCII keys only: pymemcache hashes others as
/// code points.
#[must_use]
pub fn pymemcache(key: &[u8], form: PythonKey, nodes: &[(Murmur3, u32)]) -> usize {
    let mut best: Option<(u32, u32)> = None;
    for &(mut hash, server) in nodes {
        match form {
            PythonKey::Text => hash.update(key),
            PythonKey::Bytes => update_repr(&mut hash, key),
        }
        let score = hash.finish();
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((server, score));
        }
    }
    best.map_or(0, |(server, _)| server as usize)
}

/// Hashes Python's `repr(key)`.
fn update_repr(hash: &mut Murmur3, key: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let quote = if key.contains(&b'\'') && !key.contains(&b'"') { b'"' } else { b'\'' };
    hash.update(&[b'b', quote]);
    for &byte in key {
        match byte {
            b'\\' => hash.update(b"\\\\"),
            b'\t' => hash.update(b"\\t"),
            b'\n' => hash.update(b"\\n"),
            b'\r' => hash.update(b"\\r"),
            _ if byte == quote => hash.update(&[b'\\', byte]),
            b' '..=b'~' => hash.push(byte),
            _ => {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                hash.update(&[b'\\', b'x', digits[0], digits[1]]);
            }
        }
    }
    hash.push(quote);
}
