//! Writes the classic replies that are not constants; the constant ones are in [`crate::line`].

use crate::number::put_decimal;

/// Appends `VALUE key flags len [cas]` and CRLF. The caller appends the value and CRLF, and after the last
/// key of a line [`crate::line::END`].
#[inline]
pub fn encode_value_header(
    out: &mut Vec<u8>,
    key: &[u8],
    client_flags: u32,
    value_len: u32,
    cas_unique: Option<u64>,
) {
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.push(b' ');
    put_decimal(out, u64::from(client_flags));
    out.push(b' ');
    put_decimal(out, u64::from(value_len));
    if let Some(cas_unique) = cas_unique {
        out.push(b' ');
        put_decimal(out, cas_unique);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the number after `incr` or `decr`, and CRLF.
#[inline]
pub fn encode_number(out: &mut Vec<u8>, number: u64) {
    put_decimal(out, number);
    out.extend_from_slice(b"\r\n");
}

/// Appends `STAT name value` and CRLF. After the last stat the caller appends [`crate::line::END`].
pub fn encode_stat(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [b"STAT ", name, b" ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends `VERSION version` and CRLF. Some clients read the version and require at least `1.6.40`.
pub fn encode_version(out: &mut Vec<u8>, version: &str) {
    for part in [b"VERSION ", version.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &str, encode: impl Fn(&mut Vec<u8>)) {
        let mut out = b"before ".to_vec();
        encode(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("before {expected}"));
    }

    #[test]
    fn the_header_of_a_value_shows_the_cas_unique_only_when_asked() {
        check("VALUE k 0 0\r\n", |out| encode_value_header(out, b"k", 0, 0, None));
        check("VALUE key 7 1048576 18446744073709551615\r\n", |out| {
            encode_value_header(out, b"key", 7, 1 << 20, Some(u64::MAX));
        });
        check("VALUE k 4294967295 4294967295 0\r\n", |out| {
            encode_value_header(out, b"k", u32::MAX, u32::MAX, Some(0));
        });
    }

    #[test]
    fn numbers_stats_and_versions_end_their_lines() {
        check("18446744073709551615\r\n", |out| encode_number(out, u64::MAX));
        check("STAT pid 7\r\n", |out| encode_stat(out, b"pid", b"7"));
        check("VERSION 1.6.45\r\n", |out| encode_version(out, "1.6.45"));
    }
}
