//! The grammar of the classic commands, one whole line at a time. Of a retrieval line it reads what precedes
//! the keys.
//!
//! As in memcached, words that a command has no use for are ignored. A line with too few words is answered
//! with an error even when it ends in `noreply`; any later error of the line is hidden by `noreply`.

use crate::error::Refused;
use crate::number::{digit, parse_i64, parse_u64};
use crate::parser::KeysAhead;
use crate::scan::find_either;
use crate::words::Words;
use crate::{
    AdminVerb, Arithmetic, Command, Delete, Exptime, Limits, ParseError, Store, StoreVerb, Touch,
    VALUE_LEN_MAX,
};

/// Most digits of a number in a plain line: enough for a unix time, and too few to overflow.
const PLAIN_DIGITS_MAX: usize = 10;

/// One of the verbs whose lines are yielded key by key.
#[derive(Clone, Copy)]
pub(crate) struct Retrieval {
    with_cas: bool,
    touches: bool,
}

impl Retrieval {
    #[inline]
    pub(crate) fn from_verb(verb: &[u8]) -> Option<Self> {
        let (with_cas, touches) = match verb {
            b"get" => (false, false),
            b"gets" => (true, false),
            b"gat" => (false, true),
            b"gats" => (true, true),
            _ => return None,
        };
        Some(Self { with_cas, touches })
    }

    /// Reads the words before the keys. What is left in `words` begins with the first key; a line without
    /// keys is an error.
    pub(crate) fn keys(self, words: &mut Words) -> Result<KeysAhead, ParseError> {
        let exptime = if self.touches { Some(words.next()) } else { None };
        words.skip_blanks();
        if words.len() == 0 {
            return Err(ParseError::MissingArgument);
        }
        let touch = exptime.map(|word| Exptime::parse(word).ok_or(ParseError::BadExptime)).transpose()?;
        Ok(KeysAhead { with_cas: self.with_cas, touch, checked: 0 })
    }
}

/// Parses the command `verb`, where `words` are those after it.
pub(crate) fn parse<'a>(verb: &[u8], words: Words<'a>, limits: &Limits) -> Result<Command<'a>, Refused> {
    match verb {
        b"set" => store(StoreVerb::Set, words, limits),
        b"add" => store(StoreVerb::Add, words, limits),
        b"replace" => store(StoreVerb::Replace, words, limits),
        b"append" => store(StoreVerb::Append, words, limits),
        b"prepend" => store(StoreVerb::Prepend, words, limits),
        b"cas" => store(StoreVerb::Cas, words, limits),
        b"delete" => delete(words, limits),
        b"incr" => arithmetic(false, words, limits),
        b"decr" => arithmetic(true, words, limits),
        b"touch" => touch(words, limits),
        b"mn" => Ok(Command::MetaNoop),
        b"version" => Ok(Command::Version),
        b"quit" => Ok(Command::Quit),
        b"stats" => Ok(Command::Stats { words: words.rest() }),
        b"flush_all" => flush_all(words),
        b"verbosity" => verbosity(words),
        b"cache_memlimit" => cache_memlimit(words),
        b"shutdown" => shutdown(words),
        _ => admin(verb, words),
    }
}

/// Parses the `set` line at the front of `input` when it is as plain as clients usually send it: one blank
/// between words, no words but those it needs and `noreply`, and CRLF. Returns its length in bytes too.
///
/// `None` for anything else, including lines with an error and lines that are not complete. Those are left to
/// [`parse`], which is slower and would give the same result for a plain line.
#[inline]
pub(crate) fn plain_set<'a>(input: &'a [u8], limits: &Limits) -> Option<(Store<'a>, usize)> {
    let rest = input.strip_prefix(b"set ")?;
    let key_end = find_either::<b' ', b'\n'>(rest)?;
    if key_end == 0 || key_end > limits.key_bytes_max {
        return None;
    }
    let (key, rest) = rest.split_at(key_end);
    let (client_flags, rest) = plain_number(rest)?;
    let (exptime, rest) = plain_number(rest)?;
    let (value_len, rest) = plain_number(rest)?;
    let (noreply, rest) = match rest.strip_prefix(b" noreply") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let consumed = input.len() - rest.strip_prefix(b"\r\n")?.len();
    if value_len > u64::from(VALUE_LEN_MAX) || consumed > limits.line_bytes_max {
        return None;
    }
    let store = Store {
        verb: StoreVerb::Set,
        key,
        client_flags: client_flags as u32, // as in `store`
        exptime: Exptime::from_store(exptime as i64),
        value_len: value_len as u32,
        cas_unique: 0,
        noreply,
    };
    Some((store, consumed))
}

/// Reads a blank and 1 to [`PLAIN_DIGITS_MAX`] digits; returns the number and the input after it.
#[inline]
fn plain_number(input: &[u8]) -> Option<(u64, &[u8])> {
    let [b' ', rest @ ..] = input else { return None };
    let (mut number, mut digits) = (0, 0);
    while digits < PLAIN_DIGITS_MAX
        && let Some(digit) = rest.get(digits).copied().and_then(digit)
    {
        number = number * 10 + u64::from(digit);
        digits += 1;
    }
    (digits > 0).then(|| (number, &rest[digits..]))
}

fn store<'a>(verb: StoreVerb, arguments: Words<'a>, limits: &Limits) -> Result<Command<'a>, Refused> {
    let mut words = arguments;
    let key = words.next_key();
    let client_flags = words.next();
    let exptime = words.next();
    let value_len = words.next();
    let cas_unique = if verb == StoreVerb::Cas { words.next() } else { b"0" };
    if value_len.is_empty() {
        return Err(ParseError::MissingArgument.into());
    }
    let value_len = parse_value_len(value_len)?;
    // The client sends the value even when the line is refused for one of the errors below.
    let refuse =
        |error| Refused { error, swallow: data_block_bytes(value_len), noreply: arguments.end_in_noreply() };
    if cas_unique.is_empty() {
        return Err(refuse(ParseError::MissingArgument));
    }
    if key.len() > limits.key_bytes_max {
        return Err(refuse(ParseError::KeyTooLong));
    }
    let (Some(client_flags), Some(exptime), Some(cas_unique)) =
        (parse_u64(without_plus(client_flags)), parse_i64(without_plus(exptime)), parse_u64(cas_unique))
    else {
        return Err(refuse(ParseError::BadNumber));
    };
    Ok(Command::Store(Store {
        verb,
        key,
        client_flags: client_flags as u32, // the upper half of a larger number is dropped, as memcached does
        exptime: Exptime::from_store(exptime),
        value_len,
        cas_unique,
        noreply: words.end_in_noreply(),
    }))
}

/// `word` without a plus in front of its digits. Only client flags and exptime of a storage line may have one.
fn without_plus(word: &[u8]) -> &[u8] {
    match word {
        [b'+', digits @ ..] if digits.first().is_some_and(u8::is_ascii_digit) => digits,
        _ => word,
    }
}

/// Reads the length of a value, without its CRLF.
#[inline]
pub(crate) fn parse_value_len(word: &[u8]) -> Result<u32, ParseError> {
    match parse_i64(word) {
        Some(len) if (0..=i64::from(VALUE_LEN_MAX)).contains(&len) => Ok(len as u32),
        _ => Err(ParseError::BadValueLen),
    }
}

/// Length of a value with its CRLF, in bytes.
#[inline]
pub(crate) fn data_block_bytes(value_len: u32) -> u64 {
    u64::from(value_len) + 2
}

/// Refuses a line for an error that is not answered when `words`, the last words of the line, end in
/// `noreply`.
fn hidden_by_noreply(error: ParseError, words: Words) -> Refused {
    Refused { error, swallow: 0, noreply: words.end_in_noreply() }
}

fn delete<'a>(mut words: Words<'a>, limits: &Limits) -> Result<Command<'a>, Refused> {
    let key = words.next_key();
    if key.is_empty() {
        return Err(ParseError::MissingArgument.into());
    }
    let noreply = words.end_in_noreply();
    if key.len() > limits.key_bytes_max {
        return Err(Refused { error: ParseError::KeyTooLong, swallow: 0, noreply });
    }
    Ok(Command::Delete(Delete { key, noreply }))
}

fn arithmetic<'a>(decrement: bool, words: Words<'a>, limits: &Limits) -> Result<Command<'a>, Refused> {
    let (key, delta, noreply) = key_and_number(words, limits, parse_u64, ParseError::BadDelta)?;
    Ok(Command::Arithmetic(Arithmetic { key, delta, decrement, noreply }))
}

fn touch<'a>(words: Words<'a>, limits: &Limits) -> Result<Command<'a>, Refused> {
    let (key, exptime, noreply) = key_and_number(words, limits, Exptime::parse, ParseError::BadExptime)?;
    Ok(Command::Touch(Touch { key, exptime, noreply }))
}

/// Reads a key, a number and whether `noreply` ends the line; `bad_number` is the error when the number
/// cannot be read.
#[inline]
fn key_and_number<'a, N>(
    mut words: Words<'a>,
    limits: &Limits,
    parse_number: impl Fn(&[u8]) -> Option<N>,
    bad_number: ParseError,
) -> Result<(&'a [u8], N, bool), Refused> {
    let key = words.next_key();
    let from_number = words;
    let number = words.next();
    if number.is_empty() {
        return Err(ParseError::MissingArgument.into());
    }
    if key.len() > limits.key_bytes_max {
        return Err(hidden_by_noreply(ParseError::KeyTooLong, from_number));
    }
    let number = parse_number(number).ok_or_else(|| hidden_by_noreply(bad_number, from_number))?;
    Ok((key, number, words.end_in_noreply()))
}

fn flush_all(arguments: Words<'_>) -> Result<Command<'_>, Refused> {
    let mut words = arguments;
    let noreply = arguments.end_in_noreply();
    let delay = match words.next() {
        b"" => None,
        b"noreply" if noreply && words.rest().is_empty() => None,
        word => match Exptime::parse(word) {
            Some(delay) => Some(delay),
            None => return Err(hidden_by_noreply(ParseError::BadExptime, arguments)),
        },
    };
    Ok(Command::FlushAll { delay, noreply })
}

fn verbosity(arguments: Words<'_>) -> Result<Command<'_>, Refused> {
    let mut words = arguments;
    let word = words.next();
    if word.is_empty() {
        return Err(ParseError::MissingArgument.into());
    }
    let level = parse_u64(word).ok_or_else(|| hidden_by_noreply(ParseError::BadNumber, arguments))?;
    Ok(Command::Verbosity {
        level: u32::try_from(level).unwrap_or(u32::MAX),
        noreply: words.end_in_noreply(),
    })
}

fn cache_memlimit(arguments: Words<'_>) -> Result<Command<'_>, Refused> {
    let mut words = arguments;
    let megabytes =
        parse_u64(words.next()).ok_or_else(|| hidden_by_noreply(ParseError::BadMegabytes, arguments))?;
    Ok(Command::CacheMemlimit { megabytes, noreply: words.end_in_noreply() })
}

fn shutdown(words: Words<'_>) -> Result<Command<'_>, Refused> {
    match words.rest() {
        b"" => Ok(Command::Shutdown { graceful: false }),
        b"graceful" => Ok(Command::Shutdown { graceful: true }),
        _ => Err(ParseError::BadShutdownMode.into()),
    }
}

fn admin<'a>(verb: &[u8], words: Words<'a>) -> Result<Command<'a>, Refused> {
    let verb = match verb {
        b"slabs" => AdminVerb::Slabs,
        b"lru" => AdminVerb::Lru,
        b"lru_crawler" => AdminVerb::LruCrawler,
        b"watch" => AdminVerb::Watch,
        b"refresh_certs" => AdminVerb::RefreshCerts,
        b"extstore" => AdminVerb::Extstore,
        b"debugtime" => AdminVerb::DebugTime,
        _ if last_word(verb, words).starts_with(b"HTTP/") => return Err(ParseError::Http.into()),
        _ => return Err(ParseError::UnknownCommand.into()),
    };
    Ok(Command::Admin { verb, words: words.rest() })
}

fn last_word<'a>(verb: &'a [u8], words: Words<'a>) -> &'a [u8] {
    match words.rest() {
        b"" => verb,
        rest => memchr::memrchr(b' ', rest).map_or(rest, |blank| &rest[blank + 1..]),
    }
}
