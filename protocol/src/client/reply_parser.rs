//! Replies from the wire, told what they answer.

use bytes::Bytes;
use memchr::memchr;

use super::Expected;
use crate::number::parse_u64;
use crate::{ErrorKind, MetaVerb, Parsed, Reply, VALUE_LEN_MAX};

/// Most bytes of a line of a reply, with its CRLF. A line of `VALUE` takes 300 at most, a meta line what was asked in
/// 2048; an error text beyond it is no error text.
pub const REPLY_LINE_BYTES_MAX: usize = 4096;

/// Bytes behind a value.
const TERMINATOR: &[u8; 2] = b"\r\n";

/// Where in the reply to a command the next byte of a connection belongs. Holds no bytes: those consumed are never
/// needed again, those not consumed are to be shown again in front of what came since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyParser {
    state: State,
    /// Largest value that is yielded in one piece.
    whole_bytes_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In front of a line.
    Line,
    /// In front of a `VALUE` line, before whose key so many others were asked for that are not there.
    Missing(usize),
    /// In a large value: bytes of it that are still to come. At 0 its CRLF is.
    Piece(u32),
}

/// A step in the reply to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyEvent<'a> {
    /// All of the reply; of a retrieval's, all of it to the first of the keys. Never one with a value, nor one to a
    /// meta command that is no error.
    Reply(Reply),
    /// The same, where it is a value.
    Value {
        /// Opaque to all but the client.
        client_flags: u32,
        /// `gets`, `gats`
        cas_unique: Option<u64>,
        /// Without its CRLF.
        value: &'a [u8],
    },
    /// The same, of a meta command.
    Meta {
        /// As received, without its line end.
        line: &'a [u8],
        /// `VA` only; without its CRLF.
        value: Option<&'a [u8]>,
    },
    /// A large value was found. Its pieces follow, then [`ReplyEvent::ValueEnd`].
    ValueHead {
        /// Opaque to all but the client.
        client_flags: u32,
        /// `gets`, `gats`
        cas_unique: Option<u64>,
        /// Bytes of the pieces together.
        value_len: u32,
    },
    /// As [`ReplyEvent::ValueHead`], of a meta command.
    MetaHead {
        /// As received, without its line end: `VA 1000000 s5`.
        line: Bytes,
        /// Bytes of the pieces together.
        value_len: u32,
    },
    /// The next bytes of the large value; never empty.
    ValuePiece(&'a [u8]),
    /// The large value is complete, and so is the reply; of a retrieval's, the reply to the first of the keys.
    ValueEnd,
    /// A retrieval is over. Every key of it was answered before.
    End,
}

impl ReplyEvent<'_> {
    /// Whether nothing more follows of the reply to the command, or to this key of a retrieval.
    #[inline]
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Reply(_) | Self::Value { .. } | Self::Meta { .. } | Self::ValueEnd)
    }

    /// The reply that this is all of, with bytes of its own.
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

/// The bytes are no reply to what was asked. There is no telling where the next reply begins: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No line end within [`REPLY_LINE_BYTES_MAX`].
    LineTooLong,
    /// A line ends in LF without CR.
    BadLineEnd,
    /// A line that does not answer this command.
    UnexpectedLine,
    /// A `VALUE` or `VA` line with a number that is none or too large, or with words too few or too many.
    BadHeader,
    /// A value for a key that was not asked for, or out of order.
    UnexpectedKey,
    /// A value is not followed by CRLF.
    BadTerminator,
}

impl ReplyParser {
    /// The parser of a connection that was sent nothing yet. Values of more than `whole_bytes_max` bytes are yielded
    /// in pieces.
    #[must_use]
    pub const fn new(whole_bytes_max: u32) -> Self {
        Self { state: State::Line, whole_bytes_max }
    }

    /// The next step of the reply at the front of `input`. `keys` are those of a retrieval that have no reply yet, in
    /// the order they were asked for; none for other commands.
    ///
    /// The command is answered with an event that [`ReplyEvent::is_last`]; a retrieval with one of those for each key,
    /// and then [`ReplyEvent::End`]. A key that is not there is answered without consuming anything.
    ///
    /// `NeedMore` consumes nothing, and is never the answer to an input of more than [`REPLY_LINE_BYTES_MAX`] plus
    /// the largest whole value plus 2 bytes.
    ///
    /// # Errors
    /// [`Framing`]: the connection is of no use any more.
    #[inline]
    pub fn parse<'i, 'k>(
        &mut self,
        input: &'i [u8],
        expected: Expected,
        keys: impl IntoIterator<Item = &'k [u8]>,
    ) -> Result<Parsed<ReplyEvent<'i>>, Framing> {
        match (self.state, expected) {
            (State::Piece(left), _) => self.piece(input, left),
            (State::Missing(keys), _) => {
                self.state = if keys > 1 { State::Missing(keys - 1) } else { State::Line };
                Ok(Parsed::Complete { value: ReplyEvent::Reply(Reply::Miss), consumed: 0 })
            }
            (State::Line, Expected::Values { with_cas }) => self.values(input, with_cas, keys.into_iter()),
            (State::Line, Expected::Meta(verb)) => self.meta(input, verb),
            (State::Line, _) => {
                let Some((line, consumed)) = whole_line(input)? else { return Ok(Parsed::NeedMore) };
                if expected == Expected::MetaNoop && line == b"MN" {
                    return Ok(Parsed::Complete { value: ReplyEvent::Meta { line, value: None }, consumed });
                }
                let reply = simple(line, expected).or_else(|| error(line)).ok_or(Framing::UnexpectedLine)?;
                Ok(Parsed::Complete { value: ReplyEvent::Reply(reply), consumed })
            }
        }
    }

    /// Whether the next byte begins a reply, or the reply to a key.
    #[must_use]
    pub fn at_line_start(&self) -> bool {
        self.state == State::Line
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
            // It answers every key that is left, and goes when none is.
            return Ok(match keys.next() {
                Some(_) => Parsed::Complete { value: ReplyEvent::Reply(reply), consumed: 0 },
                None => Parsed::Complete { value: ReplyEvent::End, consumed },
            });
        };
        let Header { key, client_flags, value_len, cas_unique } =
            header(words, with_cas).ok_or(Framing::BadHeader)?;
        match keys.position(|asked| asked == key) {
            Some(0) => {}
            Some(missing) => {
                self.state = if missing > 1 { State::Missing(missing - 1) } else { State::Line };
                return Ok(Parsed::Complete { value: ReplyEvent::Reply(Reply::Miss), consumed: 0 });
            }
            None => return Err(Framing::UnexpectedKey),
        }
        if value_len > self.whole_bytes_max {
            self.state = State::Piece(value_len);
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
            self.state = State::Piece(value_len);
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
            self.state = State::Piece(left - len as u32);
            return Ok(Parsed::Complete { value: ReplyEvent::ValuePiece(&input[..len]), consumed: len });
        }
        let Some(end) = input.first_chunk() else { return Ok(Parsed::NeedMore) };
        if end != TERMINATOR {
            return Err(Framing::BadTerminator);
        }
        self.state = State::Line;
        Ok(Parsed::Complete { value: ReplyEvent::ValueEnd, consumed: TERMINATOR.len() })
    }
}

/// The line at the front of `input` without its CRLF, and its bytes with it; `None` when it is not all there.
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

/// The value at the front of `input`, and its bytes with its CRLF; `None` when it is not all there.
#[inline]
fn whole_value(input: &[u8], value_len: u32) -> Result<Option<(&[u8], usize)>, Framing> {
    let len = value_len as usize;
    let Some(block) = input.get(..len + TERMINATOR.len()) else { return Ok(None) };
    if block[len..] != *TERMINATOR {
        return Err(Framing::BadTerminator);
    }
    Ok(Some((&block[..len], block.len())))
}

/// What stands behind `VALUE`.
struct Header<'a> {
    key: &'a [u8],
    client_flags: u32,
    value_len: u32,
    cas_unique: Option<u64>,
}

#[inline]
fn header(words: &[u8], with_cas: bool) -> Option<Header<'_>> {
    let mut words = words.split(|&byte| byte == b' ');
    let header = Header {
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

/// A number without a sign.
#[inline]
fn digits(word: &[u8]) -> Option<u64> {
    if word.first()?.is_ascii_digit() { parse_u64(word) } else { None }
}

/// The reply that the whole of `line` is to a command with replies of one line.
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

/// The error that `line` tells of.
#[cold]
fn error(line: &[u8]) -> Option<Reply> {
    let kind = if let Some(text) = line.strip_prefix(b"SERVER_ERROR") {
        // A server that refuses `shutdown` puts a colon.
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

/// `line` as bytes of its own; the constant ones, which are the most of them, take no memory.
#[inline]
fn shared_line(line: &[u8]) -> Bytes {
    for constant in [&b"HD"[..], b"EN", b"NF", b"NS", b"EX", b"MN"] {
        if line == constant {
            return Bytes::from_static(constant);
        }
    }
    Bytes::copy_from_slice(line)
}
