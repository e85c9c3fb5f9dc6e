//! The keys of meta commands, which are base64 when the flag `b` is sent. Replies return the key in the form of
//! the request, and those about an item that was found in the form in which it was stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{KEY_BYTES_MAX, Meta};

/// Marks a byte in [`SEXTETS`] that is not a base64 digit.
const NO_DIGIT: u8 = 0xff;

/// The six bits that each base64 digit stands for.
static SEXTETS: [u8; 256] = {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut sextets = [NO_DIGIT; 256];
    let mut at = 0;
    while at < digits.len() {
        sextets[digits[at] as usize] = at as u8;
        at += 1;
    }
    sextets
};

/// The step from the key of a meta command as sent to the key of the item.
pub struct MetaKey;

impl MetaKey {
    /// The key of the item: the key as sent, or with the flag `b` its base64 decoded into `scratch`.
    ///
    /// The parser accepts only valid base64. In a command that was made by other means, a byte that is not a
    /// base64 digit counts as `A`, and an incomplete group at the end is ignored.
    #[inline]
    #[must_use]
    pub fn decode<'k>(meta: &Meta<'k>, scratch: &'k mut [u8; KEY_BYTES_MAX]) -> &'k [u8] {
        if meta.flags.has(b'b') { decode(meta.key, scratch) } else { meta.key }
    }
}

/// Appends the key of `meta` as a client stored it: in base64 if `binary`. Returns whether it is in base64, which
/// it also is when its bytes would break a line.
pub(super) fn put_stored(out: &mut Vec<u8>, meta: &Meta, binary: bool) -> bool {
    let mut scratch = [0; KEY_BYTES_MAX];
    let key = MetaKey::decode(meta, &mut scratch);
    let in_base64 = binary || memchr::memchr3(b' ', b'\r', b'\n', key).is_some();
    if in_base64 {
        let start = out.len();
        out.resize(start + key.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(key, &mut out[start..]);
        debug_assert_eq!(written, Ok(out.len() - start));
    } else {
        out.extend_from_slice(key);
    }
    in_base64
}

/// Whether `key` is the base64 of at least one byte: groups of four digits, the last of which may be padded.
pub(super) fn is_base64(key: &[u8]) -> bool {
    if key.is_empty() || !key.len().is_multiple_of(4) {
        return false;
    }
    let digits = match key {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] => digits,
        digits => digits,
    };
    digits.iter().fold(0, |bits, &byte| bits | SEXTETS[usize::from(byte)]) != NO_DIGIT
        && digits.iter().all(|&byte| SEXTETS[usize::from(byte)] != NO_DIGIT)
}

fn decode<'k>(key: &[u8], scratch: &'k mut [u8; KEY_BYTES_MAX]) -> &'k [u8] {
    debug_assert!(key.len() <= KEY_BYTES_MAX);
    let mut len = 0;
    for group in key.chunks_exact(4) {
        let bits = group.iter().fold(0, |bits, &byte| {
            let sextet = SEXTETS[usize::from(byte)];
            bits << 6 | if sextet == NO_DIGIT { 0 } else { u32::from(sextet) }
        });
        let bytes = match group {
            [.., b'=', b'='] => 1,
            [.., b'='] => 2,
            _ => 3,
        };
        scratch[len..len + bytes].copy_from_slice(&bits.to_be_bytes()[1..=bytes]);
        len += bytes;
    }
    &scratch[..len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MetaFlags, MetaVerb};

    fn decoded(key: &str, flags: MetaFlags) -> Vec<u8> {
        let meta = Meta { verb: MetaVerb::Get, key: key.as_bytes(), value_len: 0, flags };
        MetaKey::decode(&meta, &mut [0xaa; KEY_BYTES_MAX]).to_vec()
    }

    fn base64() -> MetaFlags<'static> {
        MetaFlags { present: MetaFlags::bit(b'b'), ..MetaFlags::default() }
    }

    #[test]
    fn a_key_is_decoded_only_under_the_flag() {
        for (key, bytes) in [
            ("Zg==", &b"f"[..]),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("+/+/", b"\xfb\xff\xbf"),
            ("AAAA", b"\0\0\0"),
            ("Zm9vYh==", b"foob"), // bits after the last byte are ignored
        ] {
            assert!(is_base64(key.as_bytes()), "{key}");
            assert_eq!(decoded(key, base64()), bytes, "{key}");
            assert_eq!(decoded(key, MetaFlags::default()), key.as_bytes());
        }
    }

    #[test]
    fn broken_groups_foreign_bytes_and_misplaced_padding_are_no_base64() {
        for key in [
            "", "Z", "Zm", "Zm9", "Zm9vY", "=", "====", "Z===", "Zm=v", "Zg==Zg==", "Zm9v!!!!", "Zm_v",
            "Zm v",
        ] {
            assert!(!is_base64(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn the_longest_key_fits() {
        let key = "Zm9v".repeat(62);
        assert_eq!(decoded(&key, base64()), b"foo".repeat(62));
    }
}
