//! Parses replies from the wire, given the command that they answer.

use bytes::Bytes;
use memchr::memchr;

use super::Expected;
use crate::number::parse_u64;
use crate::{ErrorKind, Limits, MetaVerb, Parsed, Reply, VALUE_LEN_MAX};

/// Most bytes of a line of a reply, with its CRLF. A `VALUE` line has at most 300, and a meta line returns
/// what was sent in a request of at most 2048. A longer line is [`Framing::LineTooLong`], even when it begins
/// like an error.
pub const REPLY_LINE_BYTES_MAX: usize = 4096;

const _: () = assert!(REPLY_LINE_BYTES_MAX > Limits::MEMCACHED.line_bytes_max);

/// The bytes that follow a value.
const TERMINATOR: &[u8; 2] = b"\r\n";

/// The parser of the replies on one connection to a destination. It holds no bytes: the caller may discard
/// what was consumed, and passes what was not consumed again, followed by what arrived since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyParser {
    state: ReplyState,
    /// Length of the largest value that is yielded in one piece, in bytes.
    whole_bytes_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplyState {
    /// The next byte begins a line.
    Line,
    /// The next byte begins a `VALUE` line. So many keys that precede its key in the request are misses that
    /// are still to be yielded.
    Missing(usize),
    /// The next byte belongs to a large value, of which so many bytes are still to come; at 0, to the CRLF
    /// after it.
    Piece(u32),
}

/// A step in the reply to a command. For a retrieval, "the reply" is the reply to the first of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyEvent<'a> {
    /// A whole reply of any other kind than those of [`ReplyEvent::Value`] and [`ReplyEvent::Meta`].
    Reply(Reply),
    /// A whole reply that is the value of a key.
    Value {
        /// The number that a client stored with the value.
        client_flags: u32,
        /// The cas unique of the item: `gets` and `gats` only.
        cas_unique: Option<u64>,
        /// The value, without its CRLF.
        value: &'a [u8],
    },
    /// A whole reply to a meta command, unless it is an error.
    Meta {
        /// The line as received, without its line end.
        line: &'a [u8],
        /// The value, without its CRLF: `VA` only.
        value: Option<&'a [u8]>,
    },
    /// The beginning of a reply with a large value. Its pieces follow, and then [`ReplyEvent::ValueEnd`].
    ValueHead {
        /// The number that a client stored with the value.
        client_flags: u32,
        /// The cas unique of the item: `gets` and `gats` only.
        cas_unique: Option<u64>,
        /// Length of the whole value in bytes, which its pieces add up to.
        value_len: u32,
    },
    /// As [`ReplyEvent::ValueHead`], but of the reply to a meta command.
    MetaHead {
        /// The line as received, without its line end: `VA 1000000 s5`.
        line: Bytes,
        /// Length of the whole value in bytes, which its pieces add up to.
        value_len: u32,
    },
    /// The next bytes of a large value, at least one.
    ValuePiece(&'a [u8]),
    /// The end of a large value, and of the reply.
    ValueEnd,
    /// The end of a retrieval, all of whose keys have been answered.
    End,
}

impl ReplyEvent<'_> {
    /// Whether this is the last event of the reply to a command, or to one key of a retrieval.
    #[inline]
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Reply(_) | Self::Value { .. } | Self::Meta { .. } | Self::ValueEnd)
    }

    /// The reply with bytes of its own, when the event is a whole reply; `None` for the steps of a large
    /// value and for [`ReplyEvent::End`].
    #[must_use]
    pub fn whole(self) -> Option<Reply> {
        Some(match self {
            Self::Reply(reply) => reply,
            Self::Value { client_flags, cas_unique, value } => {
                Reply::Value { client_flags, cas_unique, value: Bytes::copy_from_slice(value) }
            }
            Self::Meta { line, value } => {
                Reply::Meta { line: shared_line(line), value: value.map(Bytes::copy_from_slice) }
            }
            _ => return None,
        })
    }
}

/// The error that the bytes are not a reply to the command. It is not known where the next reply begins, so
/// that the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No line end comes within [`REPLY_LINE_BYTES_MAX`].
    LineTooLong,
    /// A line ends in LF without CR.
    BadLineEnd,
    /// The line cannot answer this command.
    UnexpectedLine,
    /// A `VALUE` or `VA` line has too few or too many words, or a number that cannot be read or is too large.
    BadHeader,
    /// A value has a key that was not asked for, or that is out of order.
    UnexpectedKey,
    /// A value is not followed by CRLF.
    BadTerminator,
}

impl ReplyParser {
    /// The parser of a new connection. Values of more than `whole_bytes_max` bytes are yielded in pieces.
    #[must_use]
    pub const fn new(whole_bytes_max: u32) -> Self {
        Self { state: ReplyState::Line, whole_bytes_max }
    }

    /// Parses the next step of the reply at the front of `input`. `keys` are those keys of a retrieval that
    /// have no reply yet, in the order of the request; they are empty for other commands.
    ///
    /// The reply to a command ends with an event for which [`ReplyEvent::is_last`] is true. A retrieval has
    /// one such event for each key, and then [`ReplyEvent::End`]. The miss of a key consumes no bytes.
    ///
    /// `NeedMore` consumes nothing. It is never the result for an input of more than [`REPLY_LINE_BYTES_MAX`]
    /// bytes plus the largest value that is yielded whole plus 2.
    ///
    /// # Errors
    /// [`Framing`]: close the connection.
    #[inline]
    pub fn parse<'i, 'k>(
        &mut self,
        input: &'i [u8],
        expected: Expected,
        keys: impl IntoIterator<Item = &'k [u8]>,
    ) -> Result<Parsed<ReplyEvent<'i>>, Framing> {
        match (self.state, expected) {
            (ReplyState::Piece(left), _) => self.piece(input, left),
            (ReplyState::Missing(keys), _) => {
                self.state = if keys > 1 { ReplyState::Missing(keys - 1) } else { ReplyState::Line };
                Ok(Parsed::Complete { value: ReplyEvent::Reply(Reply::Miss), consumed: 0 })
            }
            (ReplyState::Line, Expected::Values { with_cas }) => {
                self.values(input, with_cas, keys.into_iter())
            }
            (ReplyState::Line, Expected::Meta(verb)) => self.meta(input, verb),
            (ReplyState::Line, _) => {
                let Some((line, consumed)) = whole_line(input)? else { return Ok(Parsed::NeedMore) };
                if expected == Expected::MetaNoop && line == b"MN" {
                    return Ok(Parsed::Complete { value: ReplyEvent::Meta { line, value: None }, consumed });
                }
                let reply = simple(line, expected).or_else(|| error(line)).ok_or(Framing::UnexpectedLine)?;
                Ok(Parsed::Complete { value: ReplyEvent::Reply(reply), consumed })
            }
        }
    }

    /// Whether the next byte begins a reply, or within a retrieval the reply to a key.
    #[must_use]
    pub fn at_line_start(&self) -> bool {
        self.state == ReplyState::Line
    }

    #[inline]
    fn values<'i, 'k>(
        &mut self,
        input: &'i [u8],
        with_cas: bool,
        mut keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Parsed<ReplyEvent<'i>>, Framing> {
        let Some((line, consumed)) = whole_line(input)? else { return Ok(Parsed::NeedMore) };
        let Some(words) = line.strip_prefix(b"VALUE ") else {
            let reply = match line {
                b"END" => Reply::Miss,
                _ => error(line).ok_or(Framing::UnexpectedLine)?,
            };
            // The line answers each key that is left, one call at a time, and is consumed when none is left.
            return Ok(match keys.next() {
                Some(_) => Parsed::Complete { value: ReplyEvent::Reply(reply), consumed: 0 },
                None => Parsed::Complete { value: ReplyEvent::End, consumed },
            });
        };
        let ValueHeader { key, client_flags, value_len, cas_unique } =
            header(words, with_cas).ok_or(Framing::BadHeader)?;
        match keys.position(|asked| asked == key) {
            Some(0) => {}
            Some(missing) => {
                self.state = if missing > 1 { ReplyState::Missing(missing - 1) } else { ReplyState::Line };
                return Ok(Parsed::Complete { value: ReplyEvent::Reply(Reply::Miss), consumed: 0 });
            }
            None => return Err(Framing::UnexpectedKey),
        }
        if value_len > self.whole_bytes_max {
            self.state = ReplyState::Piece(value_len);
            let value = ReplyEvent::ValueHead { client_flags, cas_unique, value_len };
            return Ok(Parsed::Complete { value, consumed });
        }
        Ok(match whole_value(&input[consumed..], value_len)? {
            Some((value, block)) => Parsed::Complete {
                value: ReplyEvent::Value { client_flags, cas_unique, value },
                consumed: consumed + block,
            },
            None => Parsed::NeedMore,
        })
    }

    fn meta<'i>(&mut self, input: &'i [u8], verb: MetaVerb) -> Result<Parsed<ReplyEvent<'i>>, Framing> {
        let Some((line, consumed)) = whole_line(input)? else { return Ok(Parsed::NeedMore) };
        let (code, _) = line.split_at(memchr(b' ', line).unwrap_or(line.len()));
        let expected: &[&[u8]] = match verb {
            MetaVerb::Get => &[b"VA", b"HD", b"EN"],
            MetaVerb::Set => &[b"HD", b"NS", b"EX", b"NF"],
            MetaVerb::Delete => &[b"HD", b"NF", b"EX"],
            MetaVerb::Arithmetic => &[b"VA", b"HD", b"NF", b"NS", b"EX"],
            MetaVerb::Debug => &[b"ME", b"EN"],
        };
        if !expected.contains(&code) {
            let reply = error(line).ok_or(Framing::UnexpectedLine)?;
            return Ok(Parsed::Complete { value: ReplyEvent::Reply(reply), consumed });
        }
        if code != b"VA" {
            return Ok(Parsed::Complete { value: ReplyEvent::Meta { line, value: None }, consumed });
        }
        let word = line[2..].strip_prefix(b" ").and_then(|words| words.split(|&byte| byte == b' ').next());
        let value_len = word.and_then(value_len).ok_or(Framing::BadHeader)?;
        if value_len > self.whole_bytes_max {
            self.state = ReplyState::Piece(value_len);
            let value = ReplyEvent::MetaHead { line: Bytes::copy_from_slice(line), value_len };
            return Ok(Parsed::Complete { value, consumed });
        }
        Ok(match whole_value(&input[consumed..], value_len)? {
            Some((value, block)) => {
                let value = ReplyEvent::Meta { line, value: Some(value) };
                Parsed::Complete { value, consumed: consumed + block }
            }
            None => Parsed::NeedMore,
        })
    }

    fn piece<'i>(&mut self, input: &'i [u8], left: u32) -> Result<Parsed<ReplyEvent<'i>>, Framing> {
        if left > 0 {
            let len = input.len().min(left as usize);
            if len == 0 {
                return Ok(Parsed::NeedMore);
            }
            self.state = ReplyState::Piece(left - len as u32);
            return Ok(Parsed::Complete { value: ReplyEvent::ValuePiece(&input[..len]), consumed: len });
        }
        let Some(end) = input.first_chunk() else { return Ok(Parsed::NeedMore) };
        if end != TERMINATOR {
            return Err(Framing::BadTerminator);
        }
        self.state = ReplyState::Line;
        Ok(Parsed::Complete { value: ReplyEvent::ValueEnd, consumed: TERMINATOR.len() })
    }
}

/// The line at the front of `input` without its CRLF, and its length with it; `None` when it is not complete.
#[inline]
fn whole_line(input: &[u8]) -> Result<Option<(&[u8], usize)>, Framing> {
    let window = &input[..input.len().min(REPLY_LINE_BYTES_MAX)];
    match memchr(b'\n', window) {
        Some(end) => match window[..end].strip_suffix(b"\r") {
            Some(line) => Ok(Some((line, end + 1))),
            None => Err(Framing::BadLineEnd),
        },
        None if input.len() >= REPLY_LINE_BYTES_MAX => Err(Framing::LineTooLong),
        None => Ok(None),
    }
}

/// The value at the front of `input`, and its length with its CRLF; `None` when it is not complete.
#[inline]
fn whole_value(input: &[u8], value_len: u32) -> Result<Option<(&[u8], usize)>, Framing> {
    let len = value_len as usize;
    let Some(block) = input.get(..len + TERMINATOR.len()) else { return Ok(None) };
    if block[len..] != *TERMINATOR {
        return Err(Framing::BadTerminator);
    }
    Ok(Some((&block[..len], block.len())))
}

/// The words of a `VALUE` line.
struct ValueHeader<'a> {
    key: &'a [u8],
    client_flags: u32,
    value_len: u32,
    cas_unique: Option<u64>,
}

#[inline]
fn header(words: &[u8], with_cas: bool) -> Option<ValueHeader<'_>> {
    let mut words = words.split(|&byte| byte == b' ');
    let header = ValueHeader {
        key: words.next()?,
        client_flags: digits(words.next()?)?.try_into().ok()?,
        value_len: value_len(words.next()?)?,
        cas_unique: if with_cas { Some(digits(words.next()?)?) } else { None },
    };
    words.next().is_none().then_some(header)
}

#[inline]
fn value_len(word: &[u8]) -> Option<u32> {
    digits(word)?.try_into().ok().filter(|&len| len <= VALUE_LEN_MAX)
}

/// Reads a number without a sign.
#[inline]
fn digits(word: &[u8]) -> Option<u64> {
    if word.first()?.is_ascii_digit() { parse_u64(word) } else { None }
}

/// The reply that `line` is to a command whose replies are of one line; `None` when it is not such a reply.
#[inline]
fn simple(line: &[u8], expected: Expected) -> Option<Reply> {
    Some(match (expected, line) {
        (Expected::Store, b"STORED") => Reply::Stored,
        (Expected::Store, b"NOT_STORED") => Reply::NotStored,
        (Expected::Store, b"EXISTS") => Reply::Exists,
        (Expected::Store | Expected::Delete | Expected::Number | Expected::Touch, b"NOT_FOUND") => {
            Reply::NotFound
        }
        (Expected::Delete, b"DELETED") => Reply::Deleted,
        (Expected::Touch, b"TOUCHED") => Reply::Touched,
        (Expected::Done, b"OK") => Reply::Done,
        (Expected::Version, _) if line.starts_with(b"VERSION ") => Reply::Done,
        (Expected::Number, _) => Reply::Number(digits(line)?),
        _ => return None,
    })
}

/// The reply that `line` is when it is an error.
#[cold]
fn error(line: &[u8]) -> Option<Reply> {
    let kind = if let Some(text) = line.strip_prefix(b"SERVER_ERROR") {
        // memcached's refusal of `shutdown` has a colon here.
        if !matches!(text, [] | [b' ' | b':', ..]) {
            return None;
        }
        match text.split(|&byte| byte == b' ').nth(1) {
            Some(b"301") => ErrorKind::Shutdown,
            Some(b"302") => ErrorKind::TryAgain,
            Some(b"307") => ErrorKind::Busy,
            _ => ErrorKind::Remote,
        }
    } else {
        let text = line.strip_prefix(b"CLIENT_ERROR").or_else(|| line.strip_prefix(b"ERROR"))?;
        if !matches!(text, [] | [b' ', ..]) {
            return None;
        }
        ErrorKind::Client
    };
    Some(Reply::Error { kind, line: Bytes::copy_from_slice(line) })
}

/// `line` with bytes of its own. The constant lines, which are the most frequent, need no allocation.
#[inline]
fn shared_line(line: &[u8]) -> Bytes {
    for constant in [&b"HD"[..], b"EN", b"NF", b"NS", b"EX", b"MN"] {
        if line == constant {
            return Bytes::from_static(constant);
        }
    }
    Bytes::copy_from_slice(line)
}
