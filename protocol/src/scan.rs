//! A search for the first of two bytes that is fast when it is found within the length of a key.
//!
//! It compares eight bytes at a time in a general register and is inlined: over such distances that is faster
//! than a vector search, which costs a call first. For longer distances use `memchr`.

/// 0x01 in every byte.
const ONES: u64 = u64::MAX / 0xff;

/// 0x80 in every byte.
const HIGH_BITS: u64 = ONES << 7;

/// The index of the first `A` or `B` in `bytes`.
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

/// A number whose lowest set bit is the high bit of the lowest zero byte of `word`; 0 when no byte is zero.
/// Bits above that one may be set for bytes that are not zero.
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
            prop_oneof![
                Just(b' '), Just(b'\n'), Just(b'!'), Just(0x0b), Just(0x8a), Just(0xa0), any::<u8>(),
            ],
            0..40,
        )) {
            let first = bytes.iter().position(|byte| b" \n".contains(byte));
            prop_assert_eq!(find_either::<b' ', b'\n'>(&bytes), first);
        }
    }

    #[test]
    fn a_byte_one_above_a_match_is_none() {
        // Borrows of the subtraction reach the bytes above a match, never those below it.
        assert_eq!(find_either::<b' ', b'\n'>(b"!!!!! !!"), Some(5));
        assert_eq!(find_either::<b' ', b'\n'>(b"\x0b\x0b\x0b\x0b\x0b\x0b\x0b\n"), Some(7));
        assert_eq!(find_either::<b' ', b'\n'>(b"!!!!!!!!"), None);
    }
}
