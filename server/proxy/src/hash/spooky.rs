//! `SpookyV2`, which mcrouter uses for weights and for shares of the keys.
//!
//! The short form is for less than 192 bytes, the long one for longer keys.

const CONST: u64 = 0xdead_beef_dead_beef;
/// The long form is used from this many bytes on.
const LONG_BYTES_MIN: usize = 192;
/// The number of 64-bit words of its state.
const VARS: usize = 12;

/// `SpookyHashV2::Hash32`.
#[must_use]
pub fn spooky32(bytes: &[u8], seed: u32) -> u32 {
    spooky64(bytes, seed.into()) as u32
}

/// `SpookyHashV2::Hash64`.
#[must_use]
pub fn spooky64(bytes: &[u8], seed: u64) -> u64 {
    if bytes.len() < LONG_BYTES_MIN { short(bytes, seed) } else { long(bytes, seed) }
}

fn short(bytes: &[u8], seed: u64) -> u64 {
    let mut h = [seed, seed, CONST, CONST];
    let (blocks, mut rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let [w0, w1, w2, w3] = words(block);
        h[2] = h[2].wrapping_add(w0);
        h[3] = h[3].wrapping_add(w1);
        short_mix(&mut h);
        h[0] = h[0].wrapping_add(w2);
        h[1] = h[1].wrapping_add(w3);
    }
    if let Some((half, behind)) = rest.split_first_chunk::<16>() {
        let [w0, w1] = words(half);
        h[2] = h[2].wrapping_add(w0);
        h[3] = h[3].wrapping_add(w1);
        short_mix(&mut h);
        rest = behind;
    }
    h[3] = h[3].wrapping_add((bytes.len() as u64) << 56);
    if rest.is_empty() {
        h[2] = h[2].wrapping_add(CONST);
        h[3] = h[3].wrapping_add(CONST);
    } else {
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        let [w0, w1] = words(&last);
        h[2] = h[2].wrapping_add(w0);
        h[3] = h[3].wrapping_add(w1);
    }
    short_end(&mut h);
    h[0]
}

fn long(bytes: &[u8], seed: u64) -> u64 {
    let mut h: [u64; VARS] = std::array::from_fn(|at| if at % 3 == 2 { CONST } else { seed });
    let (blocks, rest) = bytes.as_chunks::<96>();
    for block in blocks {
        mix(&words(block), &mut h);
    }
    let mut last = [0; 96];
    last[..rest.len()].copy_from_slice(rest);
    last[95] = rest.len() as u8;
    end(&words(&last), &mut h);
    h[0]
}

fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_le_bytes(words[at]))
}

fn short_mix(h: &mut [u64; 4]) {
    for (at, turn) in [50, 52, 30, 41, 54, 48, 38, 37, 62, 34, 5, 36].into_iter().enumerate() {
        let (one, next, other) = ((at + 2) % 4, (at + 3) % 4, at % 4);
        h[one] = h[one].rotate_left(turn).wrapping_add(h[next]);
        h[other] ^= h[one];
    }
}

fn short_end(h: &mut [u64; 4]) {
    for (at, turn) in [15, 52, 26, 51, 28, 9, 47, 54, 32, 25, 63].into_iter().enumerate() {
        let (one, other) = ((at + 3) % 4, (at + 2) % 4);
        h[one] ^= h[other];
        h[other] = h[other].rotate_left(turn);
        h[one] = h[one].wrapping_add(h[other]);
    }
}

fn mix(data: &[u64; VARS], h: &mut [u64; VARS]) {
    for (at, turn) in [11, 32, 43, 31, 17, 28, 39, 57, 55, 54, 22, 46].into_iter().enumerate() {
        h[at] = h[at].wrapping_add(data[at]);
        h[(at + 2) % VARS] ^= h[(at + 10) % VARS];
        h[(at + 11) % VARS] ^= h[at];
        h[at] = h[at].rotate_left(turn);
        h[(at + 11) % VARS] = h[(at + 11) % VARS].wrapping_add(h[(at + 1) % VARS]);
    }
}

fn end(data: &[u64; VARS], h: &mut [u64; VARS]) {
    for (state, word) in h.iter_mut().zip(data) {
        *state = state.wrapping_add(*word);
    }
    for _ in 0..3 {
        for (at, turn) in [44, 15, 34, 21, 38, 33, 10, 13, 38, 53, 42, 54].into_iter().enumerate() {
            let (one, two, far) = ((at + 11) % VARS, (at + 1) % VARS, (at + 2) % VARS);
            h[one] = h[one].wrapping_add(h[two]);
            h[far] ^= h[one];
            h[two] = h[two].rotate_left(turn);
        }
    }
}
