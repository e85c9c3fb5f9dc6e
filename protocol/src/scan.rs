//! Where the first of two bytes stands, for what is usually found within a key's length.
//!
//! Eight bytes at a time in a plain register, inlined: over such distances it beats a vector search, which first has
//! to be called. Longer stretches are `memchr`'s.

/// 0x01 in every byte.
const ONES: u64 = u64::MAX / 0xff;

/// 0x80 in every byte.
const HIGH_BITS: u64 = ONES << 7;

/// Position of the first `A` or `B` in `bytes`.
#[inline]
pub(crate) fn find_either<const A: u8, const B: u8>(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk() {
        let chunk = u64::from_le_bytes(*chunk);
        let found = zero_bytes(chunk ^ (ONES * A as u64)) | zero_bytes(chunk ^ (ONES * B as u64));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += size_of::<u64>();
    }
    bytes[at..].iter().position(|&byte| byte == A || byte == B).map(|tail| at + tail)
}

/// The high bit of the lowest zero byte of `word`, with others above it; 0 when no byte is zero.
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_of_either_is_found_wherever_it_stands(bytes in prop::collection::vec(
            prop_oneof![Just(b' '), Just(b'\n'), Just(b'!'), Just(0x0b), Just(0x8a), Just(0xa0), any::<u8>()], 0..40,
        )) {
            prop_assert_eq!(find_either::<b' ', b'\n'>(&bytes), bytes.iter().position(|byte| b" \n".contains(byte)));
        }
    }

    #[test]
    fn a_byte_one_above_a_match_is_none() {
        // Borrows of the subtraction reach the bytes above a match, never those below.
        assert_eq!(find_either::<b' ', b'\n'>(b"!!!!! !!"), Some(5));
        assert_eq!(find_either::<b' ', b'\n'>(b"\x0b\x0b\x0b\x0b\x0b\x0b\x0b\n"), Some(7));
        assert_eq!(find_either::<b' ', b'\n'>(b"!!!!!!!!"), None);
    }
}
