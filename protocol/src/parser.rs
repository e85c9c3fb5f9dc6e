//! The parser of a connection: its state between two commands, and the step to the next command.
//!
//! A line is parsed as a whole, except a retrieval line, which may be longer than any buffer and is yielded
//! key by key. When the input holds all of a retrieval line, its keys are checked before the first is
//! yielded, so that one bad key rejects the whole line. When the line is longer than the input, the keys
//! before the bad one have already been yielded.

use memchr::{memchr, memchr2, memrchr};

use crate::error::Refused;
use crate::scan::find_either;
use crate::words::Words;
use crate::{Command, Exptime, KEY_BYTES_MAX, ParseError, Parsed, Rejected, Retrieve, binary, meta, text};

/// The bounds of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key in bytes, at most [`KEY_BYTES_MAX`]; a longer one is [`ParseError::KeyTooLong`].
    pub key_bytes_max: usize,
    /// Most bytes of a line whose LF has not arrived; more close the connection. A line that arrives as a
    /// whole may be longer, as in memcached, and so may a retrieval line, but not its runs of blanks. More
    /// than [`Self::key_bytes_max`], and at least [`binary::HEADER_BYTES`] + [`binary::BODY_BYTES_MAX`].
    ///
    /// An input of more bytes than this never yields [`Parsed::NeedMore`], so that the input buffer of a
    /// connection needs room for one byte more.
    pub line_bytes_max: usize,
}

impl Limits {
    /// The limits of memcached.
    pub const MEMCACHED: Self = Self { key_bytes_max: KEY_BYTES_MAX, line_bytes_max: 2048 };

    /// Whether the two limits are within the bounds that their fields state.
    const fn are_valid(&self) -> bool {
        self.key_bytes_max <= KEY_BYTES_MAX // more does not fit the buffer of `MetaKey::decode`
            && self.key_bytes_max < self.line_bytes_max // or a key could fill the input and never end
            && binary::HEADER_BYTES + binary::BODY_BYTES_MAX <= self.line_bytes_max
    }
}

const _: () = assert!(Limits::MEMCACHED.are_valid());

impl Default for Limits {
    fn default() -> Self {
        Self::MEMCACHED
    }
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wire {
    /// Text or binary, as the first byte of the connection says.
    #[default]
    Either,
    /// Classic and meta commands.
    Text,
    /// The binary protocol.
    Binary,
}

/// Length of the shortest line that is parsed, in bytes with its line end; a shorter one is an error.
const LINE_BYTES_MIN: usize = 4;

/// The parser of one connection. It holds no bytes: the caller may discard what was consumed, and passes what
/// was not consumed again, followed by what arrived since.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Parser {
    state: ParserState,
}

#[derive(Clone, Copy, Debug, PartialEq, Default)]
enum ParserState {
    /// The next byte is the first of the connection, which tells the protocol.
    #[default]
    First,
    /// The next byte begins a line.
    Line,
    /// The next byte begins a request of the binary protocol.
    Binary,
    /// The next byte belongs to a retrieval line, at or before its next key.
    Keys(KeysAhead),
    /// The next byte belongs to a line that was rejected.
    Skip,
}

/// The keys of a retrieval line that are still to be yielded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KeysAhead {
    pub(crate) with_cas: bool,
    pub(crate) touch: Option<Exptime>,
    /// Bytes from the next one through the LF, when the input held all of them and no key in them is too
    /// long; 0 when the line was longer than the input.
    pub(crate) checked: usize,
}

impl Parser {
    /// The parser of a new connection. Its first byte will tell text from binary.
    #[must_use]
    pub const fn new() -> Self {
        Self::speaking(Wire::Either)
    }

    /// The parser of a new connection that speaks `wire`.
    #[must_use]
    pub const fn speaking(wire: Wire) -> Self {
        let state = match wire {
            Wire::Either => ParserState::First,
            Wire::Text => ParserState::Line,
            Wire::Binary => ParserState::Binary,
        };
        Self { state }
    }

    /// Parses the command at the front of `input`. Of a command with a value that is all but the value and
    /// its CRLF, which follow the bytes consumed; [`crate::data_block`] reads them.
    ///
    /// `Complete` and `Err` consume at least one byte and no more than `input` holds. `NeedMore` consumes
    /// nothing and is never the result for an input of more than [`Limits::line_bytes_max`] bytes.
    ///
    /// # Errors
    /// [`Rejected`] says what to answer and how to continue.
    #[inline]
    pub fn parse<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Parsed<Command<'a>>, Rejected> {
        debug_assert!(limits.are_valid());
        let parsed = self.step(input, limits);
        debug_assert!(match &parsed {
            Ok(Parsed::Complete { consumed, .. }) => (1..=input.len()).contains(consumed),
            Ok(Parsed::NeedMore) => input.len() <= limits.line_bytes_max,
            Err(rejected) => (1..=input.len()).contains(&rejected.consumed),
        });
        parsed
    }

    #[inline]
    fn step<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Parsed<Command<'a>>, Rejected> {
        match self.state {
            ParserState::Line => self.line(input, limits),
            ParserState::Keys(keys) if keys.checked > 0 && keys.checked <= input.len() => {
                let (key, consumed) = self.checked_key(keys, input);
                Ok(Parsed::Complete { value: Command::Retrieve(key), consumed })
            }
            ParserState::Keys(keys) => self.unchecked_key(keys, input, 0, limits),
            ParserState::Skip => self.skip(input),
            ParserState::Binary => binary::parse(input, limits),
            ParserState::First => self.first(input, limits),
        }
    }

    /// Parses the first command of a connection.
    #[cold]
    fn first<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Parsed<Command<'a>>, Rejected> {
        self.state = match input.first() {
            None => return Ok(Parsed::NeedMore),
            Some(&binary::REQUEST_MAGIC) => ParserState::Binary,
            Some(_) => ParserState::Line,
        };
        self.step(input, limits)
    }

    /// Whether the next byte begins a line of a text connection.
    #[must_use]
    pub fn at_line_start(&self) -> bool {
        matches!(self.state, ParserState::First | ParserState::Line)
    }

    #[inline]
    fn line<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Parsed<Command<'a>>, Rejected> {
        // The two most common lines, where every nanosecond counts: `get` with one key, and a plain `set`.
        if let Some(rest) = input.strip_prefix(b"get ")
            && let Some(end) = find_either::<b' ', b'\n'>(rest)
            && rest[end] == b'\n'
        {
            let key = without_cr(&rest[..end]);
            if !key.is_empty() && key.len() <= limits.key_bytes_max {
                let value = Command::Retrieve(Retrieve { key, with_cas: false, touch: None, last: true });
                return Ok(Parsed::Complete { value, consumed: b"get ".len() + end + 1 });
            }
        }
        if let Some((store, consumed)) = text::plain_set(input, limits) {
            return Ok(Parsed::Complete { value: Command::Store(store), consumed });
        }
        let Some(end) = memchr(b'\n', input) else { return self.unended_line(input, limits) };
        let line = without_cr(&input[..end]);
        self.whole_line(input, line, end, limits)
    }

    /// Parses `line`, which is at the front of `input` and has its LF at the index `end`.
    fn whole_line<'a>(
        &mut self,
        input: &'a [u8],
        line: &'a [u8],
        end: usize,
        limits: &Limits,
    ) -> Result<Parsed<Command<'a>>, Rejected> {
        let consumed = end + 1;
        let reject = |error| Err(Refused::from(error).into_rejected(consumed));
        if consumed < LINE_BYTES_MIN {
            return reject(ParseError::LineTooShort);
        }
        let (verb, mut words) = Words::split_verb(line);
        if let Some(retrieval) = text::Retrieval::from_verb(verb) {
            let keys = match retrieval.keys(&mut words) {
                Ok(_) if holds_word_over(limits.key_bytes_max, words.rest()) => {
                    return reject(ParseError::KeyTooLong);
                }
                Ok(keys) => keys,
                Err(error) => return reject(error),
            };
            let at = line.len() - words.len();
            let (key, key_consumed) =
                self.checked_key(KeysAhead { checked: consumed - at, ..keys }, &input[at..]);
            return Ok(Parsed::Complete { value: Command::Retrieve(key), consumed: at + key_consumed });
        }
        let parsed = match meta::verb(verb) {
            Some(verb) => meta::parse(verb, words, limits),
            None => text::parse(verb, words, limits),
        };
        match parsed {
            Ok(value) => Ok(Parsed::Complete { value, consumed }),
            Err(refused) => Err(refused.into_rejected(consumed)),
        }
    }

    /// Parses the front of a line whose end is not in `input`.
    #[cold]
    fn unended_line<'a>(
        &mut self,
        input: &'a [u8],
        limits: &Limits,
    ) -> Result<Parsed<Command<'a>>, Rejected> {
        if input.len() <= limits.line_bytes_max {
            return Ok(Parsed::NeedMore);
        }
        let (verb, mut words) = Words::split_verb(input);
        let Some(retrieval) = text::Retrieval::from_verb(verb) else {
            return Err(Refused::from(ParseError::LineTooLong).into_rejected(input.len()));
        };
        match retrieval.keys(&mut words) {
            Ok(keys) => self.unchecked_key(keys, input, input.len() - words.len(), limits),
            // Only blanks follow the verb: no useful line has so many.
            Err(ParseError::MissingArgument) => {
                Err(Refused::from(ParseError::LineTooLong).into_rejected(input.len()))
            }
            Err(error) => Err(self.reject_rest(error, input, input.len())),
        }
    }

    /// Yields the key at the front of `input`, which holds the rest of the line; its keys are checked.
    #[inline]
    fn checked_key<'a>(&mut self, keys: KeysAhead, input: &'a [u8]) -> (Retrieve<'a>, usize) {
        debug_assert_eq!(input[keys.checked - 1], b'\n');
        let line = without_cr(&input[..keys.checked - 1]);
        let mut words = Words::new(line);
        let key = words.next_key();
        words.skip_blanks();
        let last = words.len() == 0;
        let consumed = if last { keys.checked } else { line.len() - words.len() };
        self.state = if last {
            ParserState::Line
        } else {
            ParserState::Keys(KeysAhead { checked: keys.checked - consumed, ..keys })
        };
        (keys.retrieve(key, last), consumed)
    }

    /// Yields the key at `input[at..]` of a line that was longer than the input.
    #[cold]
    fn unchecked_key<'a>(
        &mut self,
        keys: KeysAhead,
        input: &'a [u8],
        at: usize,
        limits: &Limits,
    ) -> Result<Parsed<Command<'a>>, Rejected> {
        let keys = KeysAhead { checked: 0, ..keys };
        let rest = &input[at..];
        let key_end = memchr2(b' ', b'\n', rest);
        // The byte after a key of the greatest length may still turn out to be the CR of the line end.
        let key = without_cr_before_lf(rest, key_end.unwrap_or(rest.len()));
        let open = usize::from(key_end.is_none());
        if key.len() > limits.key_bytes_max + open {
            return Err(self.reject_rest(ParseError::KeyTooLong, input, at));
        }
        let next = key_end.map(|end| end + rest[end..].iter().take_while(|&&byte| byte == b' ').count());
        let (last, consumed) = match next.map(|next| (next, &rest[next..])) {
            Some((next, [b'\n', ..])) => (true, next + 1),
            Some((next, [b'\r', b'\n', ..])) => (true, next + 2),
            None | Some((_, [] | [b'\r'])) if input.len() > limits.line_bytes_max => {
                return Err(Refused::from(ParseError::LineTooLong).into_rejected(input.len()));
            }
            None | Some((_, [] | [b'\r'])) => return Ok(Parsed::NeedMore),
            Some((next, _)) => (false, next),
        };
        self.state = if last { ParserState::Line } else { ParserState::Keys(keys) };
        Ok(Parsed::Complete { value: Command::Retrieve(keys.retrieve(key, last)), consumed: at + consumed })
    }

    /// Rejects a line whose end is in `input[from..]` or has not arrived yet; the bytes up to it are skipped.
    fn reject_rest(&mut self, error: ParseError, input: &[u8], from: usize) -> Rejected {
        let end = memchr(b'\n', &input[from..]);
        self.state = if end.is_some() { ParserState::Line } else { ParserState::Skip };
        Refused::from(error).into_rejected(end.map_or(input.len(), |end| from + end + 1))
    }

    #[cold]
    fn skip<'a>(&mut self, input: &'a [u8]) -> Result<Parsed<Command<'a>>, Rejected> {
        if input.is_empty() {
            return Ok(Parsed::NeedMore);
        }
        Err(Rejected { noreply: true, ..self.reject_rest(ParseError::RestOfLine, input, 0) })
    }
}

impl KeysAhead {
    #[inline]
    fn retrieve<'a>(&self, key: &'a [u8], last: bool) -> Retrieve<'a> {
        Retrieve { key, with_cas: self.with_cas, touch: self.touch, last }
    }
}

#[inline]
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// `rest[..end]`, without the CR of a CRLF whose LF is at `end`.
fn without_cr_before_lf(rest: &[u8], end: usize) -> &[u8] {
    if rest.get(end) == Some(&b'\n') { without_cr(&rest[..end]) } else { &rest[..end] }
}

/// Whether `line` holds a word of more than `max` bytes.
///
/// A word is too long when `max` + 1 bytes in a row hold no blank. The search for a blank goes backwards
/// through such a window and the next window begins after the blank, so that of short words about one in
/// `max` bytes is looked at.
#[inline]
fn holds_word_over(max: usize, mut line: &[u8]) -> bool {
    while line.len() > max {
        match memrchr(b' ', &line[..=max]) {
            Some(blank) => line = &line[blank + 1..],
            None => return true,
        }
    }
    false
}
