//! Encodes requests, and parses lines of replies as far as a load generator needs them.

use clap::ValueEnum;
use corecached_protocol::number::{parse_u64, put_decimal};
use serde::Serialize;

use crate::payload::{Keys, Stamp, Values};

/// The commands that a run uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// get and set.
    #[default]
    Text,
    /// mg and ms. A get of several keys is one quiet mg for each key, and one mn.
    Meta,
}

/// Appends one get for these keys, of which there must be at least one.
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

/// Appends a set of the value with this stamp. `ttl_s` is its TTL in seconds; 0 means that it never expires.
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
pub enum ReplyLine<'a> {
    /// The header of a value, which follows.
    Value {
        /// The key, if the reply names it: to `get`, and to `mg` with flag k.
        key: Option<&'a [u8]>,
        /// Length of the value in bytes, without its line end.
        len: usize,
    },
    /// END, EN or MN: no value, or no more values.
    End,
    /// STORED or HD.
    Stored,
    /// NOT_STORED or NS.
    NotStored,
    /// SERVER_ERROR; it answers the request.
    ServerError,
    /// Anything else.
    Unknown,
}

/// Parses one line of a reply.
#[inline]
#[must_use]
pub fn line(bytes: &[u8]) -> ReplyLine<'_> {
    match bytes {
        b"END" | b"EN" | b"MN" => ReplyLine::End,
        b"STORED" | b"HD" => ReplyLine::Stored,
        b"NOT_STORED" | b"NS" => ReplyLine::NotStored,
        _ => match bytes.first() {
            Some(b'V') => value_line(bytes).unwrap_or(ReplyLine::Unknown),
            Some(b'S') if bytes.starts_with(b"SERVER_ERROR") => ReplyLine::ServerError,
            _ => ReplyLine::Unknown,
        },
    }
}

/// Parses `VALUE key flags len [cas]` or `VA len flags`, where the flag k names the key.
#[inline]
fn value_line(bytes: &[u8]) -> Option<ReplyLine<'_>> {
    if let Some(rest) = bytes.strip_prefix(b"VALUE ") {
        let space = memchr::memchr(b' ', rest)?;
        let (key, rest) = (&rest[..space], &rest[space + 1..]);
        let space = memchr::memchr(b' ', rest)?;
        let rest = &rest[space + 1..];
        let len = rest.split(|&byte| byte == b' ').next()?;
        return Some(ReplyLine::Value { key: Some(key), len: usize::try_from(parse_u64(len)?).ok()? });
    }
    let mut words = bytes.strip_prefix(b"VA ")?.split(|&byte| byte == b' ');
    let len = usize::try_from(parse_u64(words.next()?)?).ok()?;
    let key = words.find_map(|word| word.strip_prefix(b"k"));
    Some(ReplyLine::Value { key, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_for_what_they_are() {
        for (bytes, expected) in [
            (&b"VALUE k 0 5"[..], ReplyLine::Value { key: Some(b"k"), len: 5 }),
            (b"VALUE k 0 5 77", ReplyLine::Value { key: Some(b"k"), len: 5 }),
            (b"VA 5", ReplyLine::Value { key: None, len: 5 }),
            (b"VA 5 kabc", ReplyLine::Value { key: Some(b"abc"), len: 5 }),
            (b"END", ReplyLine::End),
            (b"EN", ReplyLine::End),
            (b"MN", ReplyLine::End),
            (b"STORED", ReplyLine::Stored),
            (b"HD", ReplyLine::Stored),
            (b"NS", ReplyLine::NotStored),
            (b"SERVER_ERROR out of memory", ReplyLine::ServerError),
            (b"ERROR", ReplyLine::Unknown),
            (b"CLIENT_ERROR bad", ReplyLine::Unknown),
            (b"VALUE k 0", ReplyLine::Unknown),
            (b"VA x", ReplyLine::Unknown),
            (b"", ReplyLine::Unknown),
        ] {
            assert_eq!(line(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
