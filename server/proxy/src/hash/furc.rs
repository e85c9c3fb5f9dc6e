//! mcrouter's own consistent hashing: Ch3 over a stream of bits that the key makes, and its weighted forms.

use super::murmur::murmur64a;
use super::spooky::spooky32;

/// Most servers of one ring.
pub const SERVERS_MAX: usize = 1 << 23;

const SEED: u64 = 4_193_360_111;
const TRIES_MAX: u32 = 32;
/// Bits from one draw to the next: as many as the largest ring has levels.
const BITS_A_STEP: usize = 23;
/// Rounds of the weighted forms before the last server named is taken.
const ROUNDS_MAX: usize = 32;
/// Blocks that are kept: of a small ring nearly every key needs no more.
const BLOCKS_KEPT: usize = 8;

/// The bits a key makes: each block of 64 is the hash of the one before.
struct Bits {
    kept: [u64; BLOCKS_KEPT],
    made: usize,
    /// A block after those kept: its number and its bits.
    far: (usize, u64),
}

impl Bits {
    fn from_key(key: &[u8]) -> Self {
        let mut kept = [0; BLOCKS_KEPT];
        kept[0] = murmur64a(key, SEED);
        Self { kept, made: 1, far: (0, 0) }
    }

    #[inline]
    fn bit(&mut self, at: usize) -> usize {
        let block = at / 64;
        while self.made <= block.min(BLOCKS_KEPT - 1) {
            self.kept[self.made] = following(self.kept[self.made - 1]);
            self.made += 1;
        }
        let bits = if block < BLOCKS_KEPT { self.kept[block] } else { self.far_block(block) };
        (bits >> (at % 64)) as usize & 1
    }

    #[cold]
    fn far_block(&mut self, block: usize) -> u64 {
        if self.far.0 < BLOCKS_KEPT || self.far.0 > block {
            self.far = (BLOCKS_KEPT - 1, self.kept[BLOCKS_KEPT - 1]);
        }
        while self.far.0 < block {
            self.far = (self.far.0 + 1, following(self.far.1));
        }
        self.far.1
    }
}

fn following(block: u64) -> u64 {
    murmur64a(&block.to_le_bytes(), SEED)
}

/// Walks the decision tree at bit `base` from bit `*at` on, with `*depth` levels; `None` when it ended at
/// server 0.
#[inline]
fn draw(bits: &mut Bits, base: usize, at: &mut usize, depth: &mut usize) -> Option<usize> {
    while bits.bit(*at) == 0 {
        *depth -= 1;
        if *depth == 0 {
            return None;
        }
        *at = base + *depth;
    }
    *at += BITS_A_STEP;
    let mut number = 1;
    for _ in 1..*depth {
        number = number * 2 + bits.bit(*at);
        *at += BITS_A_STEP;
    }
    Some(number)
}

/// Ch3: the server for `key` among `servers`, at most [`SERVERS_MAX`].
#[inline]
#[must_use]
pub fn ch3(key: &[u8], servers: usize) -> usize {
    if servers <= 1 {
        return 0;
    }
    let mut bits = Bits::from_key(key);
    let mut depth = levels(servers);
    let mut at = depth;
    for _ in 0..TRIES_MAX {
        match draw(&mut bits, 0, &mut at, &mut depth) {
            None => return 0,
            Some(number) if number < servers => return number,
            Some(_) => {}
        }
    }
    0
}

/// Levels of the decision tree: bits of the highest server's number.
fn levels(servers: usize) -> usize {
    (usize::BITS - (servers - 1).leading_zeros()) as usize
}

/// The share of 2^32 that a weight from 0 to 1 is.
#[must_use]
pub fn threshold(weight: f64) -> u32 {
    (weight.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32
}

/// `WeightedCh3`: Ch3, again with another key while the server's [`threshold`] refuses it.
#[must_use]
pub fn weighted_ch3(key: &[u8], thresholds: &[u32]) -> usize {
    const SPOOKY_SEED: u32 = 0xface_2014;
    if thresholds.len() <= 1 {
        return 0;
    }
    let mut salted = [0; super::HASHED_BYTES_MAX + 2];
    let len = key.len().min(super::HASHED_BYTES_MAX);
    salted[..len].copy_from_slice(&key[..len]);
    let mut salted_len = len;
    let mut server = 0;
    for round in 0..ROUNDS_MAX {
        let salted_key = &salted[..salted_len];
        server = ch3(salted_key, thresholds.len());
        if spooky32(salted_key, SPOOKY_SEED) < thresholds[server] {
            return server;
        }
        // Its decimal digits, the least significant first.
        salted_len = len;
        let mut rest = round;
        loop {
            salted[salted_len] = b'0' + (rest % 10) as u8;
            salted_len += 1;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
    }
    server
}

/// `WeightedCh4`, which mcrouter had until 2025: the weight is tried with bits of the same stream.
#[must_use]
pub fn weighted_ch4(key: &[u8], weights: &[f64]) -> usize {
    let servers = weights.len();
    if servers <= 1 {
        return 0;
    }
    let mut bits = Bits::from_key(key);
    let mut depth = levels(servers);
    let mut base = 0;
    let mut at = depth;
    let mut last = 0;
    for _ in 0..TRIES_MAX {
        let number = draw(&mut bits, base, &mut at, &mut depth).unwrap_or_else(|| {
            at += BITS_A_STEP;
            0
        });
        if number >= servers {
            continue;
        }
        if weights[number] >= 1.0 {
            return number;
        }
        last = (0..32).fold(0_u64, |word, bit| word | (bits.bit(at + bit) as u64) << bit);
        if last < u64::from(threshold(weights[number])) {
            return number;
        }
        base = at; // the bits of the weight are used again
        depth = levels(servers);
        at = base + depth;
    }
    (last % servers as u64) as usize
}

/// `ConstShard`: the number between the first two colons of the key, when it names a server, else Ch3.
#[must_use]
pub fn const_shard(key: &[u8], servers: usize) -> usize {
    key.split(|&byte| byte == b':')
        .nth(1)
        .filter(|field| field.iter().all(u8::is_ascii_digit))
        .and_then(corecached_protocol::number::parse_u64)
        .and_then(|number| usize::try_from(number).ok())
        .filter(|&number| number < servers)
        .unwrap_or_else(|| ch3(key, servers))
}
