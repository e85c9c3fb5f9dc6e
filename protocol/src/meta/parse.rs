//! The grammar of the meta commands, one whole line at a time.

use super::flags::{self, WORDS_MAX};
use super::key::is_base64;
use crate::error::Refused;
use crate::text::{data_block_bytes, parse_value_len};
use crate::words::Words;
use crate::{Command, Limits, Meta, MetaFlags, MetaVerb, ParseError};

/// The meta command `word` names, unless it is `mn`, which has neither key nor flags.
#[inline]
pub(crate) fn verb(word: &[u8]) -> Option<MetaVerb> {
    match word {
        b"mg" => Some(MetaVerb::Get),
        b"ms" => Some(MetaVerb::Set),
        b"md" => Some(MetaVerb::Delete),
        b"ma" => Some(MetaVerb::Arithmetic),
        b"me" => Some(MetaVerb::Debug),
        _ => None,
    }
}

/// The command `verb` with the words behind it.
pub(crate) fn parse<'a>(
    verb: MetaVerb,
    mut words: Words<'a>,
    limits: &Limits,
) -> Result<Command<'a>, Refused> {
    let key = words.next_key();
    let (value_len, swallow, words_before_flags) = match verb {
        MetaVerb::Set => {
            let word = words.next();
            if word.is_empty() {
                return Err(ParseError::MissingArgument.into());
            }
            let value_len = parse_value_len(word)?;
            (value_len, data_block_bytes(value_len), 3)
        }
        _ => (0, 0, 2),
    };
    if key.is_empty() {
        return Err(ParseError::MissingArgument.into());
    }
    // No answer of a meta command is ever hidden from here: `q` covers what went well.
    let refuse = |error| Refused { error, swallow, noreply: false };
    if key.len() > limits.key_bytes_max {
        return Err(refuse(ParseError::KeyTooLong));
    }
    if verb == MetaVerb::Debug {
        return Ok(Command::Meta(Meta { verb, key, value_len, flags: debug_flags(key, words)? }));
    }
    let flags = flags::parse(verb, words, WORDS_MAX - words_before_flags)
        .and_then(|flags| match flags.has(b'b') && !is_base64(key) {
            true => Err(ParseError::BadKeyEncoding),
            false => Ok(flags),
        })
        .map_err(|error| match error {
            ParseError::InvalidFlag if holds_flag_without_letter(words) => error.into(),
            error => refuse(as_reported(verb, error)),
        })?;
    Ok(Command::Meta(Meta { verb, key, value_len, flags }))
}

/// What `verb` calls `error`: `ma` tells flags that cannot be read from each other no further.
fn as_reported(verb: MetaVerb, error: ParseError) -> ParseError {
    match error {
        ParseError::OpaqueTooLong | ParseError::BadArithmeticMode => error,
        _ if verb == MetaVerb::Arithmetic => ParseError::InvalidOrDuplicateFlag,
        _ => error,
    }
}

/// Whether a flag begins with something else than a letter. The value behind such an `ms` line is not skipped.
fn holds_flag_without_letter(mut words: Words) -> bool {
    loop {
        match words.next() {
            [] => return false,
            [letter, ..] if !letter.is_ascii_alphabetic() => return true,
            _ => {}
        }
    }
}

/// `me` looks for `b` and overlooks all else.
fn debug_flags<'a>(key: &[u8], mut words: Words<'a>) -> Result<MetaFlags<'a>, Refused> {
    let mut flags = MetaFlags { delta: 1, ..MetaFlags::default() };
    loop {
        match words.next() {
            [] => return Ok(flags),
            [b'b', ..] if is_base64(key) => flags.present = MetaFlags::bit(b'b'),
            [b'b', ..] => return Err(ParseError::BadDebugKeyEncoding.into()),
            _ => {}
        }
    }
}
