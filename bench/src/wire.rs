//! Requests as bytes, and replies as far as a load generator has to understand them.

use clap::ValueEnum;
use corecached_protocol::number::{parse_u64, put_decimal};
use serde::Serialize;

use crate::payload::{Keys, Stamp, Values};

/// Which commands to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// get and set.
    #[default]
    Text,
    /// mg and ms. Several keys at once are quiet mg and one mn.
    Meta,
}

/// Appends one request for the values of these keys, which are at least one.
#[inline]
pub fn put_get(out: &mut Vec<u8>, protocol: Protocol, keys: &Keys, ids: impl ExactSizeIterator<Item = u32>) {
    match protocol {
        Protocol::Text => {
            out.extend_from_slice(b"get");
            for id in ids {
                out.push(b' ');
                keys.put(out, id);
            }
            out.extend_from_slice(b"\r\n");
        }
        Protocol::Meta if ids.len() == 1 => {
            for id in ids {
                out.extend_from_slice(b"mg ");
                keys.put(out, id);
                out.extend_from_slice(b" v\r\n");
            }
        }
        Protocol::Meta => {
            for id in ids {
                out.extend_from_slice(b"mg ");
                keys.put(out, id);
                out.extend_from_slice(b" k q v\r\n");
            }
            out.extend_from_slice(b"mn\r\n");
        }
    }
}

/// Appends a request to store this value for `ttl_s` seconds, 0 for ever.
#[inline]
pub fn put_set(
    out: &mut Vec<u8>,
    protocol: Protocol,
    keys: &Keys,
    values: &Values,
    stamp: Stamp,
    ttl_s: u32,
) {
    let len = values.len(stamp.id, stamp.version) as u64;
    match protocol {
        Protocol::Text => {
            out.extend_from_slice(b"set ");
            keys.put(out, stamp.id);
            out.extend_from_slice(b" 0 ");
            put_decimal(out, u64::from(ttl_s));
            out.push(b' ');
            put_decimal(out, len);
        }
        Protocol::Meta => {
            out.extend_from_slice(b"ms ");
            keys.put(out, stamp.id);
            out.push(b' ');
            put_decimal(out, len);
            if ttl_s != 0 {
                out.extend_from_slice(b" T");
                put_decimal(out, u64::from(ttl_s));
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    values.put(out, stamp);
    out.extend_from_slice(b"\r\n");
}

/// A line of a reply, without its line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A value of this many bytes follows. Its key, where the reply names it.
    Value {
        /// The key, of `get` and of `mg` with k.
        key: Option<&'a [u8]>,
        /// Bytes of the value, without the line end behind it.
        len: usize,
    },
    /// No (more) values: END, EN, MN.
    End,
    /// Stored.
    Stored,
    /// Understood and not done: NOT_STORED, NS.
    NotStored,
    /// An error the server says it has; the request is answered.
    ServerError,
    /// Anything else.
    Unknown,
}

/// Read one line of a reply.
#[inline]
#[must_use]
pub fn line(bytes: &[u8]) -> Line<'_> {
    match bytes {
        b"END" | b"EN" | b"MN" => Line::End,
        b"STORED" | b"HD" => Line::Stored,
        b"NOT_STORED" | b"NS" => Line::NotStored,
        _ => match bytes.first() {
            Some(b'V') => value_line(bytes).unwrap_or(Line::Unknown),
            Some(b'S') if bytes.starts_with(b"SERVER_ERROR") => Line::ServerError,
            _ => Line::Unknown,
        },
    }
}

/// `VALUE key flags len [cas]` or `VA len flags`, of which a flag k names the key.
#[inline]
fn value_line(bytes: &[u8]) -> Option<Line<'_>> {
    if let Some(rest) = bytes.strip_prefix(b"VALUE ") {
        let space = memchr::memchr(b' ', rest)?;
        let (key, rest) = (&rest[..space], &rest[space + 1..]);
        let space = memchr::memchr(b' ', rest)?;
        let rest = &rest[space + 1..];
        let len = rest.split(|&byte| byte == b' ').next()?;
        return Some(Line::Value { key: Some(key), len: usize::try_from(parse_u64(len)?).ok()? });
    }
    let mut words = bytes.strip_prefix(b"VA ")?.split(|&byte| byte == b' ');
    let len = usize::try_from(parse_u64(words.next()?)?).ok()?;
    let key = words.find_map(|word| word.strip_prefix(b"k"));
    Some(Line::Value { key, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_for_what_they_are() {
        for (bytes, expected) in [
            (&b"VALUE k 0 5"[..], Line::Value { key: Some(b"k"), len: 5 }),
            (b"VALUE k 0 5 77", Line::Value { key: Some(b"k"), len: 5 }),
            (b"VA 5", Line::Value { key: None, len: 5 }),
            (b"VA 5 kabc", Line::Value { key: Some(b"abc"), len: 5 }),
            (b"END", Line::End),
            (b"EN", Line::End),
            (b"MN", Line::End),
            (b"STORED", Line::Stored),
            (b"HD", Line::Stored),
            (b"NS", Line::NotStored),
            (b"SERVER_ERROR out of memory", Line::ServerError),
            (b"ERROR", Line::Unknown),
            (b"CLIENT_ERROR bad", Line::Unknown),
            (b"VALUE k 0", Line::Unknown),
            (b"VA x", Line::Unknown),
            (b"", Line::Unknown),
        ] {
            assert_eq!(line(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
