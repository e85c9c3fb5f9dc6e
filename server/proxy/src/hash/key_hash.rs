//! The functions that clients and proxies hash a key with, by the names they give them.
//!
//! Where the C code of libmemcached and twemproxy reads `char`, bytes above 127 count as negative, as on x86.

use md5::{Digest, Md5};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::murmur::{murmur2, murmur3};

/// A hash of a key: 64 bits for [`KeyHash::Xxh3`], else 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHash {
    /// Jenkins' one at a time, libmemcached's default.
    OneAtATime,
    /// The first four bytes of the MD5, little endian.
    Md5,
    /// CRC-16 (XMODEM) kept in 32 bits, as twemproxy has it.
    Crc16,
    /// Bits 16 to 30 of the CRC-32: `crc` of libmemcached, `crc32` of twemproxy, `CRC_HASH` of spymemcached.
    Crc32Upper,
    /// As [`KeyHash::Crc32Upper`], but 1 for 0: python-memcached.
    Crc32UpperNotZero,
    /// The CRC-32: twemproxy's `crc32a`, and the Go clients.
    Crc32,
    /// FNV-1, 64 bits cut to 32.
    Fnv1_64,
    /// FNV-1a, 64 bits cut to 32.
    Fnv1a64,
    /// FNV-1, 32 bits.
    Fnv1_32,
    /// FNV-1a, 32 bits.
    Fnv1a32,
    /// Hsieh's `SuperFastHash` as twemproxy has it; libmemcached is mostly built without and falls back to
    /// its default.
    Hsieh,
    /// `MurmurHash2`, seeded by the length.
    Murmur,
    /// `MurmurHash3_x86_32`, seeded by the length.
    Murmur3,
    /// Jenkins' lookup3 with initial value 13.
    Jenkins,
    /// `String.hashCode` of Java.
    Java,
    /// XXH3, 64 bits: memcached's built-in proxy.
    Xxh3 {
        /// 0, or [`KeyHash::xxh3_seed`] of the pool's `seed`.
        seed: u64,
    },
}

impl KeyHash {
    /// The function that libmemcached, twemproxy or this proxy's configuration calls `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "default" | "one_at_a_time" => Self::OneAtATime,
            "md5" => Self::Md5,
            "crc16" => Self::Crc16,
            "crc" | "crc32" => Self::Crc32Upper,
            "crc32a" => Self::Crc32,
            "python_crc32" => Self::Crc32UpperNotZero,
            "fnv1_64" => Self::Fnv1_64,
            "fnv1a_64" => Self::Fnv1a64,
            "fnv1_32" => Self::Fnv1_32,
            "fnv1a_32" => Self::Fnv1a32,
            "hsieh" => Self::Hsieh,
            "murmur" => Self::Murmur,
            "murmur3" => Self::Murmur3,
            "jenkins" => Self::Jenkins,
            "java" => Self::Java,
            "xxh3" | "xxhash" => Self::Xxh3 { seed: 0 },
            _ => return None,
        })
    }

    /// The seed that memcached's proxy makes of the text of a pool's `seed`.
    #[must_use]
    pub fn xxh3_seed(text: &[u8]) -> u64 {
        xxh3_64_with_seed(text, 0)
    }

    /// Hashes `key`.
    #[inline]
    #[must_use]
    pub fn hash(self, key: &[u8]) -> u64 {
        u64::from(match self {
            Self::OneAtATime => one_at_a_time(key),
            Self::Md5 => md5_point(&md5(key), 0),
            Self::Crc16 => crc16(key),
            Self::Crc32Upper => crc32_upper(key),
            Self::Crc32UpperNotZero => crc32_upper(key).max(1),
            Self::Crc32 => crc32fast::hash(key),
            Self::Fnv1_64 => fnv1(key, FNV_64_BASIS, FNV_64_PRIME),
            Self::Fnv1a64 => fnv1a(key, FNV_64_BASIS, FNV_64_PRIME),
            Self::Fnv1_32 => fnv1(key, FNV_32_BASIS, FNV_32_PRIME),
            Self::Fnv1a32 => fnv1a(key, FNV_32_BASIS, FNV_32_PRIME),
            Self::Hsieh => hsieh(key),
            Self::Murmur => murmur2(key),
            Self::Murmur3 => murmur3(key, 0xdead_beef_u32.wrapping_mul(key.len() as u32)),
            Self::Jenkins => jenkins(key),
            Self::Java => {
                key.iter().fold(0, |hash: u32, &byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)))
            }
            Self::Xxh3 { seed } => return xxh3_64_with_seed(key, seed),
        })
    }
}

/// The MD5 of `bytes`.
#[must_use]
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// One of the four points that a digest gives.
#[must_use]
pub fn md5_point(digest: &[u8; 16], at: usize) -> u32 {
    let (points, _) = digest.as_chunks::<4>();
    u32::from_le_bytes(points[at])
}

/// The low halves of the 64-bit constants, which alone decide the low half of the hash.
const FNV_64_BASIS: u32 = 0xcbf2_9ce4_8422_2325_u64 as u32;
const FNV_64_PRIME: u32 = 0x0100_0000_01b3_u64 as u32;
const FNV_32_BASIS: u32 = 0x811c_9dc5;
const FNV_32_PRIME: u32 = 0x0100_0193;

/// `byte` as C's signed `char` widened to 32 bits.
#[inline]
const fn widened(byte: u8) -> u32 {
    byte as i8 as u32
}

fn fnv1(key: &[u8], basis: u32, prime: u32) -> u32 {
    key.iter().fold(basis, |hash, &byte| hash.wrapping_mul(prime) ^ widened(byte))
}

fn fnv1a(key: &[u8], basis: u32, prime: u32) -> u32 {
    key.iter().fold(basis, |hash, &byte| (hash ^ widened(byte)).wrapping_mul(prime))
}

fn crc32_upper(key: &[u8]) -> u32 {
    (crc32fast::hash(key) >> 16) & 0x7fff
}

static CRC16: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let mut crc = (at as u32) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ if crc & 0x8000 != 0 { 0x1021 } else { 0 };
            bit += 1;
        }
        table[at] = crc & 0xffff;
        at += 1;
    }
    table
};

fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0, |crc: u32, &byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = 0_u32;
    for &byte in key {
        hash = hash.wrapping_add(widened(byte));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

fn hsieh(key: &[u8]) -> u32 {
    let half = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
    if key.is_empty() {
        return 0;
    }
    let mut hash = 0_u32;
    let (words, tail) = key.as_chunks::<4>();
    for &[a, b, c, d] in words {
        hash = hash.wrapping_add(half(a, b));
        hash = (hash << 16) ^ (half(c, d) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *tail {
        [a, b, c] => {
            hash = hash.wrapping_add(half(a, b));
            hash ^= hash << 16;
            hash ^= widened(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(half(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

fn jenkins(key: &[u8]) -> u32 {
    const INITIAL: u32 = 13;
    let start = 0xdead_beef_u32.wrapping_add(key.len() as u32).wrapping_add(INITIAL);
    let (mut a, mut b, mut c) = (start, start, start);
    // The last block, whole or not, is mixed in another way.
    let whole = key.len().saturating_sub(1) / 12 * 12;
    let (blocks, rest) = key.split_at(whole);
    let add = |block: &[u8], a: &mut u32, b: &mut u32, c: &mut u32| {
        let mut padded = [0; 12];
        padded[..block.len()].copy_from_slice(block);
        let (words, _) = padded.as_chunks::<4>();
        *a = a.wrapping_add(u32::from_le_bytes(words[0]));
        *b = b.wrapping_add(u32::from_le_bytes(words[1]));
        *c = c.wrapping_add(u32::from_le_bytes(words[2]));
    };
    for block in blocks.chunks_exact(12) {
        add(block, &mut a, &mut b, &mut c);
        for turns in [[4, 6, 8], [16, 19, 4]] {
            a = a.wrapping_sub(c) ^ c.rotate_left(turns[0]);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(turns[1]);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(turns[2]);
            b = b.wrapping_add(a);
        }
    }
    if rest.is_empty() {
        return c;
    }
    add(rest, &mut a, &mut b, &mut c);
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}
