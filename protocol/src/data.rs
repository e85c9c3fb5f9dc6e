//! The data block after a storage line: the value and its CRLF.

use crate::{Parsed, VALUE_LEN_MAX};

/// The bytes that end a data block.
const TERMINATOR: &[u8; 2] = b"\r\n";

/// The value is not followed by CRLF. The command is answered with [`crate::line::BAD_DATA_CHUNK`], which
/// `noreply` hides and the meta flag `q` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDataChunk;

/// Reads the data block at the front of `input`, whose value has `value_len` bytes, at most
/// [`VALUE_LEN_MAX`].
///
/// It is complete once the input holds the value and two more bytes, which are consumed whatever they are:
/// the next command begins after a bad terminator as it does after a good one.
#[inline]
pub fn data_block(input: &[u8], value_len: u32) -> Parsed<Result<&[u8], BadDataChunk>> {
    debug_assert!(value_len <= VALUE_LEN_MAX);
    let value_len = value_len as usize;
    let consumed = value_len + TERMINATOR.len();
    let Some(block) = input.get(..consumed) else { return Parsed::NeedMore };
    let (value, terminator) = block.split_at(value_len);
    Parsed::Complete { value: if terminator == TERMINATOR { Ok(value) } else { Err(BadDataChunk) }, consumed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_complete_with_its_crlf_and_not_before() {
        assert_eq!(data_block(b"", 0), Parsed::NeedMore);
        assert_eq!(data_block(b"abc\r", 3), Parsed::NeedMore);
        assert_eq!(data_block(b"abc\r\nget", 3), Parsed::Complete { value: Ok(&b"abc"[..]), consumed: 5 });
        assert_eq!(data_block(b"\r\n", 0), Parsed::Complete { value: Ok(&b""[..]), consumed: 2 });
    }

    #[test]
    fn a_value_may_hold_line_ends() {
        assert_eq!(data_block(b"a\r\nb\r\n", 4), Parsed::Complete { value: Ok(&b"a\r\nb"[..]), consumed: 6 });
    }

    #[test]
    fn two_bytes_are_consumed_after_a_value_even_when_they_are_not_crlf() {
        for block in [&b"abcd\r\n"[..], b"abc\n\n", b"abc\n\r", b"abcde"] {
            assert_eq!(data_block(block, 3), Parsed::Complete { value: Err(BadDataChunk), consumed: 5 });
        }
    }
}
