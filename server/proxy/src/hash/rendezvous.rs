//! Highest random weight: every server scores the key, and the highest takes it.

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

/// mcrouter's `Rendezvous`. It compares scores as doubles, so that near ones tie; the later server wins a
/// tie.
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

/// mcrouter's `WeightedRendezvous`; the first server wins a tie.
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

/// The order of the servers by `key`, best first, into `order`: what `RendezvousPolicy` tries one after the
/// other.
pub fn rendezvous_order(key: &[u8], tags: &[u64], order: &mut Vec<u32>) {
    let key = murmur64a(key, KEY_SEED);
    order.clear();
    order.extend(0..tags.len() as u32);
    order.sort_by(|&one, &other| {
        let score = |server: u32| score(tags[server as usize], key) as f64;
        score(other).total_cmp(&score(one)).then(other.cmp(&one))
    });
}

/// How a pymemcache client was given its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PythonKey {
    /// As `str`.
    Text,
    /// As `bytes`: what is hashed is then how Python prints them, `b'key'`.
    Bytes,
}

/// pymemcache's `HashClient` over servers whose `node-` is hashed already, in descending order of their
/// names, so that the first wins a tie. ASCII keys only: others it hashes as code points.
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

/// Hashes `repr(key)` of Python.
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
