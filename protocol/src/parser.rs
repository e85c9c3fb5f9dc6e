//! Where a connection stands between two commands, and the step to the next.
//!
//! A line is read whole, except a retrieval line, which may be longer than any buffer: it is yielded key by key. While
//! all of such a line is in the input its keys are checked before the first is yielded, so that one bad key rejects it
//! whole; of a line longer than the input, what was yielded before the bad key stands.

use memchr::{memchr, memchr2, memrchr};

use crate::error::Refused;
use crate::scan::find_either;
use crate::words::Words;
use crate::{Command, Exptime, KEY_BYTES_MAX, ParseError, Parsed, Rejected, Retrieve, binary, meta, text};

/// What bounds a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, at most [`KEY_BYTES_MAX`]; a longer one is [`ParseError::KeyTooLong`].
    pub key_bytes_max: usize,
    /// Most bytes before the LF of a line; past it the connection closes. Retrieval lines are exempt, but not their
    /// runs of blanks. An input of more than this is never answered with [`Parsed::NeedMore`]: what a connection has
    /// to hold before it is parsed is one byte more than this.
    pub line_bytes_max: usize,
}

impl Limits {
    /// The limits of memcached.
    pub const MEMCACHED: Self = Self { key_bytes_max: KEY_BYTES_MAX, line_bytes_max: 2048 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::MEMCACHED
    }
}

/// What a connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wire {
    /// What its first byte says.
    #[default]
    Either,
    /// Text and meta commands.
    Text,
    /// The binary protocol.
    Binary,
}

/// Shortest line, in bytes and with its line end, that is looked at.
const LINE_BYTES_MIN: usize = 4;

/// The parser of one connection. Holds no bytes: those consumed are never needed again, those not consumed are to be
/// shown again in front of what came since.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Parser {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Default)]
enum State {
    /// In front of the first byte of the connection, which tells the protocol.
    #[default]
    First,
    /// In front of a line.
    Line,
    /// In front of a request of the binary protocol.
    Binary,
    /// In front of a key of a retrieval line.
    Keys(Keys),
    /// Within a line that was rejected.
    Skip,
}

/// What the keys of a retrieval line have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Keys {
    pub with_cas: bool,
    pub touch: Option<Exptime>,
    /// Bytes from here through the LF when the input held all of them and no key among them is too long; 0 when the
    /// line was longer than the input.
    pub checked: usize,
}

impl Parser {
    /// The parser of a connection that sent nothing yet. Its first byte will tell text from binary.
    #[must_use]
    pub const fn new() -> Self {
        Self::speaking(Wire::Either)
    }

    /// The parser of a connection that sent nothing yet and must speak `wire`.
    #[must_use]
    pub const fn speaking(wire: Wire) -> Self {
        let state = match wire {
            Wire::Either => State::First,
            Wire::Text => State::Line,
            Wire::Binary => State::Binary,
        };
        Self { state }
    }

    /// The command at the front of `input`; of a storage command its line, without the data block.
    ///
    /// `Complete` and `Err` always consume something or close. `NeedMore` consumes nothing and is never the answer to
    /// an input of more than [`Limits::line_bytes_max`] bytes.
    ///
    /// # Errors
    /// [`Rejected`] tells what to answer and how to go on.
    #[inline]
    pub fn parse<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Parsed<Command<'a>>, Rejected> {
        match self.state {
            State::Line => self.line(input, limits),
            State::Keys(keys) if keys.checked > 0 && keys.checked <= input.len() => {
                let (key, consumed) = self.checked_key(keys, input);
                Ok(Parsed::Complete { value: Command::Retrieve(key), consumed })
            }
            State::Keys(keys) => self.unchecked_key(keys, input, 0, limits),
            State::Skip => self.skip(input),
            State::Binary => binary::parse(input, limits),
            State::First => self.first(input, limits),
        }
    }

    /// The first command of a connection.
    #[cold]
    fn first<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Parsed<Command<'a>>, Rejected> {
        self.state = match input.first() {
            None => return Ok(Parsed::NeedMore),
            Some(&binary::REQUEST_MAGIC) => State::Binary,
            Some(_) => State::Line,
        };
        self.parse(input, limits)
    }

    /// Whether the next byte begins a line.
    #[must_use]
    pub fn at_line_start(&self) -> bool {
        matches!(self.state, State::First | State::Line)
    }

    #[inline]
    fn line<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Parsed<Command<'a>>, Rejected> {
        // By far the most common lines, and those where every nanosecond shows: `get` and one key, and a plain `set`.
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

    /// The line at the front of `input`, whose LF is at `end`.
    fn whole_line<'a>(
        &mut self,
        input: &'a [u8],
        line: &'a [u8],
        end: usize,
        limits: &Limits,
    ) -> Result<Parsed<Command<'a>>, Rejected> {
        debug_assert!(limits.key_bytes_max <= KEY_BYTES_MAX); // what `MetaKey::decode` has room for
        debug_assert!(limits.key_bytes_max < limits.line_bytes_max); // or a key could fill the input and never end
        let consumed = end + 1;
        let reject = |error| Err(Refused::from(error).of_line(consumed));
        if consumed < LINE_BYTES_MIN {
            return reject(ParseError::LineTooShort);
        }
        let (verb, mut words) = Words::after_verb(line);
        if let Some(retrieval) = text::Retrieval::of(verb) {
            let keys = match retrieval.keys(&mut words) {
                Ok(_) if holds_word_over(limits.key_bytes_max, words.rest()) => {
                    return reject(ParseError::KeyTooLong);
                }
                Ok(keys) => keys,
                Err(error) => return reject(error),
            };
            let at = line.len() - words.len();
            let (key, key_consumed) = self.checked_key(Keys { checked: consumed - at, ..keys }, &input[at..]);
            return Ok(Parsed::Complete { value: Command::Retrieve(key), consumed: at + key_consumed });
        }
        if end > limits.line_bytes_max {
            return reject(ParseError::LineTooLong);
        }
        let parsed = match meta::verb(verb) {
            Some(verb) => meta::parse(verb, words, limits),
            None => text::parse(verb, words, limits),
        };
        match parsed {
            Ok(value) => Ok(Parsed::Complete { value, consumed }),
            Err(refused) => Err(refused.of_line(consumed)),
        }
    }

    /// A line whose end is not in `input`.
    #[cold]
    fn unended_line<'a>(
        &mut self,
        input: &'a [u8],
        limits: &Limits,
    ) -> Result<Parsed<Command<'a>>, Rejected> {
        if input.len() <= limits.line_bytes_max {
            return Ok(Parsed::NeedMore);
        }
        let (verb, mut words) = Words::after_verb(input);
        let Some(retrieval) = text::Retrieval::of(verb) else {
            return Err(Refused::from(ParseError::LineTooLong).of_line(input.len()));
        };
        match retrieval.keys(&mut words) {
            Ok(keys) => self.unchecked_key(keys, input, input.len() - words.len(), limits),
            // Nothing but blanks: no line of use begins with so many.
            Err(ParseError::MissingArgument) => {
                Err(Refused::from(ParseError::LineTooLong).of_line(input.len()))
            }
            Err(error) => Err(self.reject_rest(error, input, input.len())),
        }
    }

    /// The key at the front of `input`, all of whose line is there and checked.
    #[inline]
    fn checked_key<'a>(&mut self, keys: Keys, input: &'a [u8]) -> (Retrieve<'a>, usize) {
        debug_assert_eq!(input[keys.checked - 1], b'\n');
        let line = without_cr(&input[..keys.checked - 1]);
        let mut words = Words::new(line);
        let key = words.next_key();
        words.skip_blanks();
        let last = words.len() == 0;
        let consumed = if last { keys.checked } else { line.len() - words.len() };
        self.state =
            if last { State::Line } else { State::Keys(Keys { checked: keys.checked - consumed, ..keys }) };
        (keys.retrieve(key, last), consumed)
    }

    /// The key at `input[at..]` of a line longer than the input.
    #[cold]
    fn unchecked_key<'a>(
        &mut self,
        keys: Keys,
        input: &'a [u8],
        at: usize,
        limits: &Limits,
    ) -> Result<Parsed<Command<'a>>, Rejected> {
        let keys = Keys { checked: 0, ..keys };
        let rest = &input[at..];
        let key_end = memchr2(b' ', b'\n', rest);
        // One byte more than the longest key may still turn out to be the CR of its line end.
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
                return Err(Refused::from(ParseError::LineTooLong).of_line(input.len()));
            }
            None | Some((_, [] | [b'\r'])) => return Ok(Parsed::NeedMore),
            Some((next, _)) => (false, next),
        };
        self.state = if last { State::Line } else { State::Keys(keys) };
        Ok(Parsed::Complete { value: Command::Retrieve(keys.retrieve(key, last)), consumed: at + consumed })
    }

    /// Rejects the line that has its end in `input[from..]` or behind it, the rest of it unread.
    fn reject_rest(&mut self, error: ParseError, input: &[u8], from: usize) -> Rejected {
        let end = memchr(b'\n', &input[from..]);
        self.state = if end.is_some() { State::Line } else { State::Skip };
        Refused::from(error).of_line(end.map_or(input.len(), |end| from + end + 1))
    }

    #[cold]
    fn skip<'a>(&mut self, input: &'a [u8]) -> Result<Parsed<Command<'a>>, Rejected> {
        if input.is_empty() {
            return Ok(Parsed::NeedMore);
        }
        Err(Rejected { noreply: true, ..self.reject_rest(ParseError::RestOfLine, input, 0) })
    }
}

impl Keys {
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
/// Such a word covers every blank-free stretch of `max` + 1 bytes, so that it is enough to look backwards for a blank
/// in each: of short words only one in `max` bytes is looked at.
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
