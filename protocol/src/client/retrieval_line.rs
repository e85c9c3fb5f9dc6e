//! Writes a retrieval line of several keys, key by key.

use super::encode::put_retrieval_head;
use crate::{Exptime, Limits, Retrieve};

/// Most keys of a line. It bounds how many replies wait for one value that arrives late.
const KEYS_MAX: usize = 64;

/// A retrieval line at the end of an output, to which further keys can be added. Nothing else may be appended
/// to that output before [`RetrievalLine::close`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrievalLine {
    with_cas: bool,
    touch: Option<Exptime>,
    keys: usize,
    /// Length of the line so far, in bytes without CRLF.
    bytes: usize,
}

impl RetrievalLine {
    /// Most bytes of a line with its CRLF, which is the longest `gat` or `gats` line that memcached accepts.
    pub const BYTES_MAX: usize = Limits::MEMCACHED.line_bytes_max;

    /// Begins a line: appends its verb and its first key.
    #[inline]
    #[must_use]
    pub fn open(first: &Retrieve, out: &mut Vec<u8>) -> Self {
        let before = out.len();
        put_retrieval_head(out, first);
        out.push(b' ');
        out.extend_from_slice(first.key);
        Self { with_cas: first.with_cas, touch: first.touch, keys: 1, bytes: out.len() - before }
    }

    /// Whether the key of `next` may be added: it has the same verb and exptime, and the line has room for
    /// it. The caller makes sure that the key is not yet in the line, since a key that is there twice is
    /// answered twice.
    #[inline]
    #[must_use]
    pub fn takes(&self, next: &Retrieve) -> bool {
        self.with_cas == next.with_cas
            && self.touch == next.touch
            && self.keys < KEYS_MAX
            && self.bytes + 1 + next.key.len() + 2 <= Self::BYTES_MAX
    }

    /// Appends a key for which [`RetrievalLine::takes`] is true.
    #[inline]
    pub fn push(&mut self, key: &[u8], out: &mut Vec<u8>) {
        debug_assert!(self.keys < KEYS_MAX);
        debug_assert!(self.bytes + 1 + key.len() + 2 <= Self::BYTES_MAX);
        out.push(b' ');
        out.extend_from_slice(key);
        self.keys += 1;
        self.bytes += 1 + key.len();
    }

    /// Ends the line: appends CRLF.
    #[inline]
    pub fn close(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Parsed, Parser};

    fn retrieve(key: &str) -> Retrieve<'_> {
        Retrieve { key: key.as_bytes(), with_cas: false, touch: None, last: true }
    }

    #[test]
    fn keys_of_one_verb_share_a_line() {
        for (first, expected) in [
            (retrieve("a"), "get a b cc\r\n"),
            (Retrieve { with_cas: true, ..retrieve("a") }, "gets a b cc\r\n"),
            (Retrieve { touch: Some(Exptime(-1)), ..retrieve("a") }, "gat -1 a b cc\r\n"),
            (Retrieve { touch: Some(Exptime(30)), with_cas: true, ..retrieve("a") }, "gats 30 a b cc\r\n"),
        ] {
            let mut out = Vec::new();
            let mut line = RetrievalLine::open(&first, &mut out);
            for key in [&b"b"[..], b"cc"] {
                assert!(line.takes(&Retrieve { key, ..first }));
                line.push(key, &mut out);
            }
            line.close(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn another_verb_or_exptime_is_refused() {
        let line = RetrievalLine::open(&retrieve("a"), &mut Vec::new());
        assert!(!line.takes(&Retrieve { with_cas: true, ..retrieve("b") }));
        assert!(!line.takes(&Retrieve { touch: Some(Exptime(0)), ..retrieve("b") }));
        let touching = Retrieve { touch: Some(Exptime(1)), ..retrieve("a") };
        assert!(!RetrievalLine::open(&touching, &mut Vec::new()).takes(&retrieve("b")));
    }

    #[test]
    fn a_full_line_takes_no_more_and_is_read_back_whole() {
        for key_bytes in [1, 20, 250] {
            let key = "k".repeat(key_bytes);
            let mut out = Vec::new();
            let mut line = RetrievalLine::open(&retrieve(&key), &mut out);
            let mut keys = 1;
            while line.takes(&retrieve(&key)) {
                line.push(key.as_bytes(), &mut out);
                keys += 1;
            }
            line.close(&mut out);
            assert!(out.len() <= RetrievalLine::BYTES_MAX && keys <= KEYS_MAX);
            assert!(keys == KEYS_MAX || out.len() + 1 + key_bytes > RetrievalLine::BYTES_MAX);

            let (mut parser, mut rest, mut read) = (Parser::new(), &out[..], 0);
            while let Ok(Parsed::Complete { value: Command::Retrieve(one), consumed }) =
                parser.parse(rest, &Limits::default())
            {
                assert_eq!(one.key, key.as_bytes());
                rest = &rest[consumed..];
                read += 1;
            }
            assert_eq!((read, rest), (keys, &b""[..]));
        }
    }
}
