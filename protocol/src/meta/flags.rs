//! The flags of a meta line: which letters exist, what may follow them, and which errors they cause.

use crate::number::{parse_i32, parse_u64};
use crate::words::Words;
use crate::{Exptime, MetaFlags, MetaMode, MetaVerb, ParseError};

/// Most words of a meta line, including verb and key.
pub(super) const WORDS_MAX: usize = 20;

/// Most bytes after the letter `O`.
const OPAQUE_BYTES_MAX: usize = 31;

/// The flags that exist. Every verb accepts all of them and ignores those that it has no use for.
const LETTERS: u64 = mask(b"bkqvcfhlstuxIOLPTNRECFMDJ");

/// The bits of `letters`.
pub(super) const fn mask(letters: &[u8]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at < letters.len() {
        bits |= MetaFlags::bit(letters[at]);
        at += 1;
    }
    bits
}

/// Reads the flags in `words`, at most `words_max`, into `flags`.
///
/// An unknown or repeated letter is reported as soon as it is read. Otherwise the last number that cannot be
/// read is reported, and if all can be read the error that depends on `verb`.
pub(super) fn parse<'a>(
    verb: MetaVerb,
    flags: &mut MetaFlags<'a>,
    mut words: Words<'a>,
    words_max: usize,
) -> Result<(), ParseError> {
    if verb == MetaVerb::Arithmetic {
        flags.mode = MetaMode::Increment;
    }
    flags.tokens = words.rest();
    let mut number_error = None;
    let mut verb_error = None;
    for count in 1.. {
        let [letter, token @ ..] = words.next() else { break };
        if count > words_max {
            return Err(ParseError::TooManyFlags);
        }
        let bit = MetaFlags::bit(*letter);
        if bit & LETTERS == 0 {
            return Err(ParseError::InvalidFlag);
        }
        if flags.present & bit != 0 {
            return Err(ParseError::DuplicateFlag);
        }
        flags.present |= bit;
        let read = match letter {
            b'T' => read(&mut flags.exptime, Exptime::parse(token), ParseError::BadToken),
            b'N' => read(&mut flags.vivify, Exptime::parse(token), ParseError::BadToken),
            b'R' => read(&mut flags.recache_s, parse_i32(token), ParseError::BadToken),
            b'E' => read(&mut flags.new_cas, parse_u64(token), ParseError::BadToken),
            b'C' => read(&mut flags.compare_cas, parse_u64(token), ParseError::BadToken),
            b'D' => read(&mut flags.delta, parse_u64(token), ParseError::BadMetaDelta),
            b'J' => read(&mut flags.initial, parse_u64(token), ParseError::BadMetaInitial),
            b'F' => {
                let number = parse_u64(token).and_then(|n| n.try_into().ok());
                let outcome = read(&mut flags.client_flags, number, ParseError::BadMetaClientFlags);
                // It is reported only when every other number can be read.
                number_error = number_error.or(outcome.err());
                Ok(())
            }
            b'M' if matches!(verb, MetaVerb::Set | MetaVerb::Arithmetic) => {
                match parse_mode(verb, token) {
                    Ok(mode) => flags.mode = mode,
                    Err(error) => verb_error = Some(error),
                }
                Ok(())
            }
            b'O' if token.len() > OPAQUE_BYTES_MAX => {
                verb_error = verb_error.or(Some(ParseError::OpaqueTooLong));
                Ok(())
            }
            _ => Ok(()),
        };
        number_error = read.err().or(number_error);
    }
    match number_error.or(verb_error) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Reads the flags of `me`, which knows `b` and ignores every other word.
pub(super) fn parse_debug(flags: &mut MetaFlags, mut words: Words) -> Result<(), ParseError> {
    loop {
        match words.next() {
            [] => return Ok(()),
            [b'b', ..] => flags.present = MetaFlags::bit(b'b'),
            _ => {}
        }
    }
}

#[inline]
fn read<N>(field: &mut N, number: Option<N>, otherwise: ParseError) -> Result<(), ParseError> {
    *field = number.ok_or(otherwise)?;
    Ok(())
}

/// The mode that the first letter of `token` means for `ms` or `ma`. One in lower case is an error; what follows it
/// is ignored.
fn parse_mode(verb: MetaVerb, token: &[u8]) -> Result<MetaMode, ParseError> {
    match (verb, token.first().copied().unwrap_or_default()) {
        (MetaVerb::Arithmetic, b'I' | b'+') => Ok(MetaMode::Increment),
        (MetaVerb::Arithmetic, b'D' | b'-') => Ok(MetaMode::Decrement),
        (MetaVerb::Arithmetic, _) => Err(ParseError::BadArithmeticMode),
        (_, b'S') => Ok(MetaMode::Set),
        (_, b'E') => Ok(MetaMode::Add),
        (_, b'A') => Ok(MetaMode::Append),
        (_, b'P') => Ok(MetaMode::Prepend),
        (_, b'R') => Ok(MetaMode::Replace),
        _ => Err(ParseError::BadStoreMode),
    }
}

impl<'a> MetaFlags<'a> {
    /// The flags in the order they were sent, each as its letter and the bytes between it and the next blank.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut words = Words::new(self.tokens);
        std::iter::from_fn(move || words.next().split_first().map(|(&letter, token)| (letter, token)))
    }

    /// Whether both flags were sent, and `first` before `second`. Some flags depend on the order: `t` before
    /// `T` shows the TTL from before the command.
    #[must_use]
    pub fn in_order(&self, first: u8, second: u8) -> bool {
        self.has(first)
            && self.has(second)
            && self
                .iter()
                .find(|&(letter, _)| letter == first || letter == second)
                .is_some_and(|(l, _)| l == first)
    }
}
