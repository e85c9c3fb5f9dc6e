//! Parses the requests of the binary protocol. A request is complete with all that precedes its value.

use super::{
    BODY_BYTES_MAX, Binary, BinaryControl, BinaryControlVerb, BinaryVerb, Envelope, HEADER_BYTES,
    REQUEST_MAGIC, Status,
};
use crate::error::Refused;
use crate::{Command, KEY_BYTES_MAX, Limits, ParseError, Parsed, Rejected, VALUE_LEN_MAX};

/// Length of the longest extras, those of `INCR` and `DECR`, in bytes.
const EXTRAS_BYTES_MAX: usize = 20;

const _: () = assert!(EXTRAS_BYTES_MAX + KEY_BYTES_MAX <= BODY_BYTES_MAX);

/// The lengths of the parts of a body, in bytes and in the order they follow the header.
#[derive(Clone, Copy, Debug)]
struct BodyLengths {
    extras: usize,
    key: usize,
    value: u64,
}

/// Parses the request at the front of `input`; of a request with a value, all that precedes the value.
///
/// # Errors
/// [`ParseError::BadMagic`], when the input does not begin with a request, or when its value is longer than
/// [`VALUE_LEN_MAX`].
pub(crate) fn parse<'a>(input: &'a [u8], limits: &Limits) -> Result<Parsed<Command<'a>>, Rejected> {
    match input.first() {
        Some(&REQUEST_MAGIC) | None => {}
        Some(_) => return Err(Refused::from(ParseError::BadMagic).into_rejected(input.len())),
    }
    let Some((header, body_start)) = input.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Parsed::NeedMore);
    };
    let opcode = header[1];
    let (key, extras) = (usize::from(u16_at(header, 2)), usize::from(header[4]));
    let (body, opaque) = (u32_at(header, 8), u32_at(header, 12));
    let cas = u64::from(u32_at(header, 16)) << 32 | u64::from(u32_at(header, 20));
    let envelope = Envelope { opcode, opaque };
    let refuse = |status, close| {
        let verb = BinaryControlVerb::Refused { status, swallow: if close { 0 } else { body }, close };
        let value = Command::BinaryControl(BinaryControl { verb, quiet: false, envelope });
        Ok(Parsed::Complete { value, consumed: HEADER_BYTES })
    };
    let Some(value) = u64::from(body).checked_sub((key + extras) as u64) else {
        return refuse(Status::UnknownCommand, true);
    };
    let lengths = BodyLengths { extras, key, value };
    if key > limits.key_bytes_max {
        return refuse(Status::Invalid, true);
    }
    let keyed = match keyed(opcode) {
        Some(keyed) => keyed,
        None if is_control(opcode) && lengths.fit_control(opcode) => {
            let Some(rest) = body_start.get(..body as usize) else { return Ok(Parsed::NeedMore) };
            let value = control(envelope, lengths, rest);
            return Ok(Parsed::Complete {
                value: Command::BinaryControl(value),
                consumed: HEADER_BYTES + rest.len(),
            });
        }
        None => {
            return if is_control(opcode) {
                refuse(Status::Invalid, true)
            } else {
                refuse(Status::UnknownCommand, false)
            };
        }
    };
    let (verb, quiet, with_key) = keyed;
    if extras != extras_bytes(verb) || key == 0 || (value > 0 && !verb.has_value()) {
        return refuse(Status::Invalid, true);
    }
    if value > u64::from(VALUE_LEN_MAX) {
        return Err(Refused::from(ParseError::BadMagic).into_rejected(input.len()));
    }
    let Some(rest) = body_start.get(..extras + key) else { return Ok(Parsed::NeedMore) };
    let (extras, key) = rest.split_at(extras);
    let mut binary = Binary {
        verb,
        quiet,
        with_key,
        envelope,
        key,
        compare_cas: cas,
        client_flags: 0,
        expires: 0,
        delta: 0,
        initial: 0,
        value_len: value as u32,
    };
    match verb {
        BinaryVerb::Set | BinaryVerb::Add | BinaryVerb::Replace => {
            (binary.client_flags, binary.expires) = (u32_at(extras, 0), u32_at(extras, 4));
        }
        BinaryVerb::Touch | BinaryVerb::GetAndTouch => binary.expires = u32_at(extras, 0),
        BinaryVerb::Increment | BinaryVerb::Decrement => {
            (binary.delta, binary.initial) = (u64_at(extras, 0), u64_at(extras, 8));
            binary.expires = u32_at(extras, 16);
        }
        BinaryVerb::Get | BinaryVerb::Delete | BinaryVerb::Append | BinaryVerb::Prepend => {}
    }
    Ok(Parsed::Complete { value: Command::Binary(binary), consumed: HEADER_BYTES + rest.len() })
}

/// The verb, whether the request is quiet, and whether the reply names the key; `None` when `opcode` is not
/// one of a request on a key.
fn keyed(opcode: u8) -> Option<(BinaryVerb, bool, bool)> {
    Some(match opcode {
        0x00 => (BinaryVerb::Get, false, false),
        0x09 => (BinaryVerb::Get, true, false),
        0x0c => (BinaryVerb::Get, false, true),
        0x0d => (BinaryVerb::Get, true, true),
        0x01 => (BinaryVerb::Set, false, false),
        0x11 => (BinaryVerb::Set, true, false),
        0x02 => (BinaryVerb::Add, false, false),
        0x12 => (BinaryVerb::Add, true, false),
        0x03 => (BinaryVerb::Replace, false, false),
        0x13 => (BinaryVerb::Replace, true, false),
        0x04 => (BinaryVerb::Delete, false, false),
        0x14 => (BinaryVerb::Delete, true, false),
        0x05 => (BinaryVerb::Increment, false, false),
        0x15 => (BinaryVerb::Increment, true, false),
        0x06 => (BinaryVerb::Decrement, false, false),
        0x16 => (BinaryVerb::Decrement, true, false),
        0x0e => (BinaryVerb::Append, false, false),
        0x19 => (BinaryVerb::Append, true, false),
        0x0f => (BinaryVerb::Prepend, false, false),
        0x1a => (BinaryVerb::Prepend, true, false),
        0x1c => (BinaryVerb::Touch, false, false),
        0x1d => (BinaryVerb::GetAndTouch, false, false),
        0x1e => (BinaryVerb::GetAndTouch, true, false),
        0x23 => (BinaryVerb::GetAndTouch, false, true),
        0x24 => (BinaryVerb::GetAndTouch, true, true),
        _ => return None,
    })
}

/// Length of the extras of a request on a key, in bytes.
const fn extras_bytes(verb: BinaryVerb) -> usize {
    match verb {
        BinaryVerb::Set | BinaryVerb::Add | BinaryVerb::Replace => 8,
        BinaryVerb::Touch | BinaryVerb::GetAndTouch => 4,
        BinaryVerb::Increment | BinaryVerb::Decrement => EXTRAS_BYTES_MAX,
        BinaryVerb::Get | BinaryVerb::Delete | BinaryVerb::Append | BinaryVerb::Prepend => 0,
    }
}

/// Whether `opcode` is one of a request without a key.
const fn is_control(opcode: u8) -> bool {
    matches!(opcode, 0x07 | 0x17 | 0x08 | 0x18 | 0x0a | 0x0b | 0x10 | 0x20 | 0x21 | 0x22)
}

impl BodyLengths {
    /// Whether the request without a key that has this opcode may have a body of these lengths.
    fn fit_control(self, opcode: u8) -> bool {
        let Self { extras, key, value } = self;
        match opcode {
            0x08 | 0x18 => key == 0 && value == 0 && matches!(extras, 0 | 4),
            0x10 => extras == 0 && value == 0,
            0x21 | 0x22 => extras == 0 && key > 0 && key as u64 + value <= BODY_BYTES_MAX as u64,
            _ => extras == 0 && key == 0 && value == 0,
        }
    }
}

/// The request without a key whose body is `body`. The lengths are those of the body and fit its opcode.
fn control(envelope: Envelope, lengths: BodyLengths, body: &[u8]) -> BinaryControl<'_> {
    let verb = match envelope.opcode {
        0x0a => BinaryControlVerb::Noop,
        0x0b => BinaryControlVerb::Version,
        0x07 | 0x17 => BinaryControlVerb::Quit,
        0x08 | 0x18 => {
            BinaryControlVerb::Flush { expires: if body.is_empty() { 0 } else { u32_at(body, 0) } }
        }
        0x10 => BinaryControlVerb::Stat { words: body },
        0x20 => BinaryControlVerb::SaslList,
        _ => {
            let (mechanism, data) = body.split_at(lengths.key);
            BinaryControlVerb::SaslStep { mechanism, data }
        }
    };
    BinaryControl { verb, quiet: matches!(envelope.opcode, 0x17 | 0x18), envelope }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u8, extras: &[u8], key: &[u8], value_len: usize) -> Vec<u8> {
        let mut bytes = vec![REQUEST_MAGIC, opcode];
        bytes.extend_from_slice(&(key.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&[extras.len() as u8, 0, 0, 0]);
        bytes.extend_from_slice(&((extras.len() + key.len() + value_len) as u32).to_be_bytes());
        bytes.extend_from_slice(&7u32.to_be_bytes());
        bytes.extend_from_slice(&9u64.to_be_bytes());
        bytes.extend_from_slice(extras);
        bytes.extend_from_slice(key);
        bytes
    }

    fn refused(bytes: &[u8]) -> Option<(Status, u32, bool)> {
        match parse(bytes, &Limits::default()) {
            Ok(Parsed::Complete { value: Command::BinaryControl(control), .. }) => match control.verb {
                BinaryControlVerb::Refused { status, swallow, close } => Some((status, swallow, close)),
                _ => None,
            },
            _ => None,
        }
    }

    #[test]
    fn a_request_is_complete_with_its_key_and_not_before() {
        let bytes = request(0x01, &[0, 0, 0, 5, 0, 0, 0, 9], b"key", 70_000);
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut], &Limits::default()), Ok(Parsed::NeedMore), "{cut}");
        }
        let Ok(Parsed::Complete { value: Command::Binary(set), consumed }) =
            parse(&bytes, &Limits::default())
        else {
            panic!("a set")
        };
        assert_eq!((set.verb, set.key, set.client_flags, set.expires), (BinaryVerb::Set, &b"key"[..], 5, 9));
        assert_eq!((set.value_len, set.compare_cas, set.envelope.opaque), (70_000, 9, 7));
        assert_eq!(consumed, bytes.len());
    }

    #[test]
    fn parts_that_do_not_fit_their_opcode_are_refused_and_close() {
        for bytes in [
            request(0x00, &[], b"", 0),
            request(0x00, &[0; 4], b"k", 0),
            request(0x00, &[], b"k", 1),
            request(0x00, &[], &[b'k'; 251], 0),
            request(0x01, &[], b"k", 1),
            request(0x01, &[0; 12], b"k", 1),
            request(0x04, &[0; 4], b"k", 0),
            request(0x05, &[0; 8], b"k", 0),
            request(0x07, &[], b"k", 0),
            request(0x08, &[0; 2], b"", 0),
            request(0x0a, &[], b"", 1),
            request(0x10, &[0; 4], b"items", 0),
            request(0x1c, &[], b"k", 0),
            request(0x21, &[], b"PLAIN", BODY_BYTES_MAX),
        ] {
            assert_eq!(refused(&bytes), Some((Status::Invalid, 0, true)), "{bytes:?}");
        }
    }

    #[test]
    fn bodies_of_unknown_opcodes_are_to_be_skipped() {
        for opcode in [0x1b, 0x30, 0x44, 0xff] {
            let bytes = request(opcode, &[], b"key", 5);
            assert_eq!(refused(&bytes), Some((Status::UnknownCommand, 8, false)));
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_close() {
        let mut bytes = request(0x00, &[], b"key", 0);
        bytes[11] = 2; // the body is shorter than the key
        assert_eq!(refused(&bytes), Some((Status::UnknownCommand, 0, true)));
        let mut bytes = request(0x01, &[0; 8], b"key", 0);
        bytes[8] = 0xff; // 4 GiB
        assert!(parse(&bytes, &Limits::default()).is_err_and(|rejected| rejected.close));
        assert!(parse(b"get k\r\n", &Limits::default()).is_err_and(|rejected| rejected.close));
    }
}
