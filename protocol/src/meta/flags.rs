//! The flags of a meta line: which letters there are, what follows them, and what is wrong with them.

use crate::number::{parse_i64, parse_u64};
use crate::words::Words;
use crate::{Exptime, MetaFlags, MetaMode, MetaVerb, ParseError};

/// Most words of a meta line, verb and key included.
pub(super) const WORDS_MAX: usize = 20;

/// Most bytes that may follow `O`.
const OPAQUE_BYTES_MAX: usize = 31;

/// The flags there are. Every verb takes all of them and overlooks those it has no use for.
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

/// The flags in `words`, of which a line may have `words_max`.
///
/// A letter that is none, or is there twice, is reported as soon as it is met; of numbers that cannot be read the last
/// is, and after those what only `verb` can object to.
pub(super) fn parse<'a>(
    verb: MetaVerb,
    mut words: Words<'a>,
    words_max: usize,
) -> Result<MetaFlags<'a>, ParseError> {
    words.skip_blanks();
    let mut flags = MetaFlags { delta: 1, ..MetaFlags::default() };
    if verb == MetaVerb::Arithmetic {
        flags.mode = MetaMode::Increment;
    }
    if words.len() == 0 {
        return Ok(flags);
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
        match letter {
            b'T' => read(
                parse_i64(token).map(Exptime),
                &mut flags.exptime,
                ParseError::BadToken,
                &mut number_error,
            ),
            b'N' => read(
                parse_i64(token).map(Exptime),
                &mut flags.vivify,
                ParseError::BadToken,
                &mut number_error,
            ),
            b'R' => read(parse_seconds(token), &mut flags.recache_s, ParseError::BadToken, &mut number_error),
            b'E' => read(parse_u64(token), &mut flags.new_cas, ParseError::BadToken, &mut number_error),
            b'C' => read(parse_u64(token), &mut flags.compare_cas, ParseError::BadToken, &mut number_error),
            b'D' => read(parse_u64(token), &mut flags.delta, ParseError::BadMetaDelta, &mut number_error),
            b'J' => read(parse_u64(token), &mut flags.initial, ParseError::BadMetaInitial, &mut number_error),
            b'F' => read(
                parse_u64(token).map(|number| number as u32), // as the classic commands: the upper half is dropped
                &mut flags.client_flags,
                ParseError::BadMetaClientFlags,
                &mut number_error,
            ),
            b'M' => match (token, mode(verb, token)) {
                (_, Ok(mode)) => flags.mode = mode,
                ([_], Err(error)) => verb_error = error.or(verb_error),
                (_, Err(_)) => number_error = Some(ParseError::BadModeLength),
            },
            b'O' if token.len() > OPAQUE_BYTES_MAX => {
                verb_error = verb_error.or(Some(ParseError::OpaqueTooLong));
            }
            _ => {}
        }
    }
    match number_error.or(verb_error) {
        Some(error) => Err(error),
        None => Ok(flags),
    }
}

#[inline]
fn read<N>(number: Option<N>, field: &mut N, or: ParseError, error: &mut Option<ParseError>) {
    match number {
        Some(number) => *field = number,
        None => *error = Some(or),
    }
}

/// Seconds, which may be negative; what 32 bits cannot hold comes to the nearest that they can.
fn parse_seconds(token: &[u8]) -> Option<i32> {
    let seconds = parse_i64(token)?;
    Some(seconds.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
}

/// The mode `token` stands for; verbs without modes take any byte. `Err(None)` is a token of the wrong length.
fn mode(verb: MetaVerb, token: &[u8]) -> Result<MetaMode, Option<ParseError>> {
    let [letter] = token else { return Err(None) };
    match (verb, letter) {
        (MetaVerb::Set, b'S') => Ok(MetaMode::Set),
        (MetaVerb::Set, b'E') => Ok(MetaMode::Add),
        (MetaVerb::Set, b'A') => Ok(MetaMode::Append),
        (MetaVerb::Set, b'P') => Ok(MetaMode::Prepend),
        (MetaVerb::Set, b'R') => Ok(MetaMode::Replace),
        (MetaVerb::Set, _) => Err(Some(ParseError::BadStoreMode)),
        (MetaVerb::Arithmetic, b'I' | b'+') => Ok(MetaMode::Increment),
        (MetaVerb::Arithmetic, b'D' | b'-') => Ok(MetaMode::Decrement),
        (MetaVerb::Arithmetic, _) => Err(Some(ParseError::BadArithmeticMode)),
        _ => Ok(MetaMode::Set),
    }
}

impl<'a> MetaFlags<'a> {
    /// The flags in the order they were sent: letter, and the bytes up to the next blank.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut words = Words::new(self.tokens);
        std::iter::from_fn(move || words.next().split_first().map(|(&letter, token)| (letter, token)))
    }

    /// Whether both flags were sent, `first` in front of `second`: a `t` in front of `T` shows the old ttl.
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
