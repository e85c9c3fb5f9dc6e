//! The grammar of the meta commands, one whole line at a time.

use super::flags::{self, WORDS_MAX};
use super::key::is_base64;
use crate::error::Refused;
use crate::text::{data_block_bytes, parse_value_len};
use crate::words::Words;
use crate::{Command, Limits, Meta, MetaFlags, MetaVerb, ParseError};

/// The meta command that `word` names. `None` for `mn` too, which has neither key nor flags.
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

/// Parses the command `verb`, where `words` are those after it.
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
    // Errors of a meta line are always answered: `q` hides expected results only.
    let refuse = |error| Refused { error, swallow, noreply: false };
    if key.len() > limits.key_bytes_max {
        return Err(refuse(as_reported(verb, ParseError::KeyTooLong)));
    }
    let mut meta = Meta { verb, key, value_len, flags: MetaFlags { delta: 1, ..MetaFlags::default() } };
    let parsed = match verb {
        MetaVerb::Debug => flags::parse_debug(&mut meta.flags, words),
        _ => flags::parse(verb, &mut meta.flags, words, WORDS_MAX - words_before_flags),
    };
    match parsed {
        Ok(()) if meta.flags.has(b'b') && !is_base64(key) => {
            Err(refuse(as_reported(verb, ParseError::BadKeyEncoding)))
        }
        Ok(()) => Ok(Command::Meta(meta)),
        Err(error) => Err(refuse(as_reported(verb, error))),
    }
}

/// The error that `verb` reports for `error`: `ma` has one answer for most errors in its flags, and `me` has
/// its own answer for a key that is not base64.
fn as_reported(verb: MetaVerb, error: ParseError) -> ParseError {
    match (verb, error) {
        (MetaVerb::Arithmetic, ParseError::OpaqueTooLong | ParseError::BadArithmeticMode) => error,
        (MetaVerb::Arithmetic, _) => ParseError::InvalidOrDuplicateFlag,
        (MetaVerb::Debug, ParseError::BadKeyEncoding) => ParseError::BadDebugKeyEncoding,
        _ => error,
    }
}
