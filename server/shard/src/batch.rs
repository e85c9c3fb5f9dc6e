//! Commands that are parsed ahead: the complete commands on keys at the front of a session's input.

use corecached_protocol::{Command, Limits, MetaKey, Parsed, Parser, data_block};

/// Commands that are parsed, hashed and prefetched before the first of them is carried out: enough that
/// memory keeps up, few enough that what they read stays in the first-level cache.
pub(crate) const BATCH_COMMANDS_MAX: usize = 16;

/// A complete command on a key, with its value.
pub struct Ready<'a> {
    /// The command.
    pub command: Command<'a>,
    /// Hash of its key.
    pub hash: u64,
    /// Its value. Empty when the command has none.
    pub data: &'a [u8],
    /// Bytes of its line and value, with their line ends.
    pub consumed: usize,
    /// The state of the parser after it.
    pub(crate) parser: Parser,
}

/// Parses one command on a key at the front of `input`. `None` when the command there is another one, or has
/// not come whole, or its value is longer than `value_bytes_max` allows for a key of that length with those
/// client flags.
#[inline]
pub(crate) fn parse_ready<'a>(
    parser: &mut Parser,
    input: &'a [u8],
    limits: &Limits,
    hash_of: impl Fn(&[u8]) -> u64,
    value_bytes_max: impl Fn(usize, u32) -> usize,
) -> Option<Ready<'a>> {
    let Ok(Parsed::Complete { value: command, mut consumed }) = parser.parse(input, limits) else {
        return None;
    };
    let mut value = None;
    let mut data: &[u8] = &[];
    let hash = match &command {
        Command::Retrieve(retrieve) => hash_of(retrieve.key),
        Command::Store(store) => {
            value = Some((store.key.len(), store.client_flags, store.value_len));
            hash_of(store.key)
        }
        Command::Meta(meta) => {
            value = command.value_len().map(|len| (meta.key.len(), meta.flags.client_flags, len));
            hash_of(MetaKey::decode(meta, &mut [0; _]))
        }
        Command::Binary(binary) => {
            // No CRLF follows its value.
            let value_len = binary.value_len as usize;
            if value_len > 0 {
                data = input.get(consumed..consumed + value_len)?;
                if value_len > value_bytes_max(binary.key.len(), binary.client_flags) {
                    return None;
                }
                consumed += value_len;
            }
            hash_of(binary.key)
        }
        other => hash_of(other.key()?),
    };
    if let Some((key_len, client_flags, value_len)) = value {
        let block = data_block(&input[consumed..], value_len);
        let Parsed::Complete { value: Ok(value), consumed: block_len } = block else { return None };
        if value_len as usize > value_bytes_max(key_len, client_flags) {
            return None;
        }
        data = value;
        consumed += block_len;
    }
    Some(Ready { command, hash, data, consumed, parser: *parser })
}
