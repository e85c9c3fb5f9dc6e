//! The murmur family: 64A for mcrouter's hashing, 2 for clients' key hashes, 3 for rendezvous by pymemcache.

/// `MurmurHash64A`.
#[must_use]
pub fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> R)
}

/// `MurmurHash2`, seeded by the length as libmemcached and twemproxy do.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let len = bytes.len() as u32;
    let mut hash = 0xdead_beef_u32.wrapping_mul(len) ^ len;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// `MurmurHash3_x86_32` taken in pieces, so that what many keys have in front is hashed once.
#[derive(Clone, Copy, Debug)]
pub struct Murmur3 {
    hash: u32,
    len: u32,
    /// The last `len % 4` bytes, from the low end.
    tail: u32,
}

impl Murmur3 {
    /// Nothing hashed yet.
    #[must_use]
    pub const fn new(seed: u32) -> Self {
        Self { hash: seed, len: 0, tail: 0 }
    }

    /// Adds `bytes` to what is hashed.
    #[inline]
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !self.len.is_multiple_of(4)
            && let [first, rest @ ..] = bytes
        {
            self.push(*first);
            bytes = rest;
        }
        let (words, tail) = bytes.as_chunks::<4>();
        for word in words {
            self.word(u32::from_le_bytes(*word));
        }
        self.len = self.len.wrapping_add(4 * words.len() as u32);
        for &byte in tail {
            self.push(byte);
        }
    }

    /// Adds one byte to what is hashed.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.tail |= u32::from(byte) << (8 * (self.len % 4));
        self.len = self.len.wrapping_add(1);
        if self.len.is_multiple_of(4) {
            let word = std::mem::take(&mut self.tail);
            self.word(word);
        }
    }

    #[inline]
    fn word(&mut self, word: u32) {
        self.hash = (self.hash ^ scramble(word)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }

    /// The hash of all bytes so far.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u32 {
        let mut hash = self.hash ^ scramble(self.tail) ^ self.len;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }
}

#[inline]
fn scramble(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

/// `MurmurHash3_x86_32` at once.
#[must_use]
pub fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let mut hash = Murmur3::new(seed);
    hash.update(bytes);
    hash.finish()
}
