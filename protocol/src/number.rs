//! Reading and writing of integers as decimal digits, bounded and without allocation.

/// Most digits that a `u64` needs.
const DIGITS_MAX: usize = 20;

/// The largest count of digits that always fit a `u64`.
const DIGITS_SAFE: usize = 19;

/// The two digits of each number under 100, with a leading zero.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// Appends `n` in decimal digits.
#[inline]
pub fn put_decimal(out: &mut Vec<u8>, n: u64) {
    if n < 10 {
        out.push(b'0' + n as u8);
    } else {
        let mut digits = [0; DIGITS_MAX];
        let start = write_backwards(&mut digits, n);
        out.extend_from_slice(&digits[start..]);
    }
}

/// Writes `n` into the end of `digits`; returns the index of its first digit.
#[inline]
fn write_backwards(digits: &mut [u8; DIGITS_MAX], mut n: u64) -> usize {
    let mut start = DIGITS_MAX;
    while n >= 100 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[(n % 100) as usize]);
        n /= 100;
    }
    if n >= 10 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[n as usize]);
    } else {
        start -= 1;
        digits[start] = b'0' + n as u8;
    }
    start
}

/// Reads all of `digits` as a number. `None` for anything else, a sign and a number above `u64::MAX`
/// included.
#[inline]
#[must_use]
pub fn parse_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    // A number with many leading zeroes is valid too.
    if digits.len() > DIGITS_SAFE {
        return parse_long(digits);
    }
    let mut n = 0;
    for &byte in digits {
        n = n * 10 + u64::from(digit(byte)?);
    }
    Some(n)
}

/// Reads all of `word` as a number: digits, after an optional `-`. `None` for anything else, and for a number that
/// an `i64` cannot hold.
#[inline]
#[must_use]
pub fn parse_i64(word: &[u8]) -> Option<i64> {
    match word {
        [b'-', digits @ ..] => 0i64.checked_sub_unsigned(parse_u64(digits)?),
        _ => parse_u64(word)?.try_into().ok(),
    }
}

/// Reads all of `word` as a number that an `i32` holds, as [`parse_i64`] does.
#[inline]
pub(crate) fn parse_i32(word: &[u8]) -> Option<i32> {
    parse_i64(word)?.try_into().ok()
}

#[cold]
fn parse_long(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |n, &byte| n.checked_mul(10)?.checked_add(u64::from(digit(byte)?)))
}

/// The value of a decimal digit; `None` for any other byte.
#[inline]
pub(crate) fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_at_every_change_of_length_are_written_as_the_library_writes_them() {
        let mut near = vec![0, u64::MAX];
        near.extend((1..20).flat_map(|power| {
            let n = 10u64.pow(power);
            [n - 1, n, n + 1]
        }));
        for n in near {
            let mut out = b"x".to_vec();
            put_decimal(&mut out, n);
            assert_eq!(out, format!("x{n}").as_bytes());
            assert_eq!(parse_u64(&out[1..]), Some(n));
        }
    }

    #[test]
    fn a_word_is_a_number_as_a_whole_or_not_at_all() {
        for (word, unsigned, signed) in [
            ("", None, None),
            ("+", None, None),
            ("-", None, None),
            ("0", Some(0), Some(0)),
            ("007", Some(7), Some(7)),
            ("+7", None, None),
            ("-7", None, Some(-7)),
            ("-0", None, Some(0)),
            ("-+7", None, None),
            ("+-7", None, None),
            ("++7", None, None),
            ("--7", None, None),
            ("7x", None, None),
            (" 7", None, None),
            ("7 ", None, None),
            ("0x7", None, None),
            ("7.0", None, None),
            ("00000000000000000000000000007", Some(7), Some(7)),
            ("18446744073709551615", Some(u64::MAX), None),
            ("18446744073709551616", None, None),
            ("99999999999999999999999999999", None, None),
            ("9223372036854775807", Some(i64::MAX as u64), Some(i64::MAX)),
            ("9223372036854775808", Some(1 << 63), None),
            ("-9223372036854775808", None, Some(i64::MIN)),
            ("-9223372036854775809", None, None),
        ] {
            assert_eq!(parse_u64(word.as_bytes()), unsigned, "{word:?} unsigned");
            assert_eq!(parse_i64(word.as_bytes()), signed, "{word:?} signed");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(n: u64) {
            let mut out = Vec::new();
            put_decimal(&mut out, n);
            prop_assert_eq!(parse_u64(&out), Some(n));
        }

        #[test]
        fn any_bytes_are_read_as_the_library_reads_them(word in "-?[0-9x]{0,22}") {
            prop_assert_eq!(parse_u64(word.as_bytes()), word.parse().ok());
            prop_assert_eq!(parse_i64(word.as_bytes()), word.parse().ok());
        }
    }
}
