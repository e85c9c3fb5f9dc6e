//! Writes the replies of the binary protocol: a header, then extras, key and value as the request asks for.

use super::{Envelope, REPLY_MAGIC, Status};

/// Length of the extras in the reply to a read, which are the client flags, in bytes.
const FLAGS_BYTES: usize = 4;

/// Appends the header of a reply whose body is extras, key and value of these lengths in bytes.
#[inline]
fn encode_header(
    out: &mut Vec<u8>,
    envelope: Envelope,
    status: Status,
    (extras, key, value): (usize, usize, usize),
    cas: u64,
) {
    debug_assert!(extras <= usize::from(u8::MAX));
    debug_assert!(key <= usize::from(u16::MAX));
    debug_assert!(extras + key + value <= u32::MAX as usize);
    let mut header = [0; super::HEADER_BYTES];
    header[0] = REPLY_MAGIC;
    header[1] = envelope.opcode;
    header[2..4].copy_from_slice(&(key as u16).to_be_bytes());
    header[4] = extras as u8;
    header[6..8].copy_from_slice(&(status as u16).to_be_bytes());
    header[8..12].copy_from_slice(&((extras + key + value) as u32).to_be_bytes());
    header[12..16].copy_from_slice(&envelope.opaque.to_be_bytes());
    header[16..24].copy_from_slice(&cas.to_be_bytes());
    out.extend_from_slice(&header);
}

/// Appends a reply whose body is the text of `status`.
pub fn encode_status(out: &mut Vec<u8>, envelope: Envelope, status: Status) {
    encode_value(out, envelope, status, status.text());
}

/// Appends the reply to a request that succeeded, without a body. `cas` is the cas unique of the item, or 0.
pub fn encode_done(out: &mut Vec<u8>, envelope: Envelope, cas: u64) {
    encode_header(out, envelope, Status::Ok, (0, 0, 0), cas);
}

/// Appends a reply whose body is `value`.
pub fn encode_value(out: &mut Vec<u8>, envelope: Envelope, status: Status, value: &[u8]) {
    encode_header(out, envelope, status, (0, 0, value.len()), 0);
    out.extend_from_slice(value);
}

/// Appends the reply to a read that found an item, up to its value, whose `value_len` bytes the caller
/// appends. `key` is empty when the reply is not to name it.
#[inline]
pub fn encode_hit(
    out: &mut Vec<u8>,
    envelope: Envelope,
    client_flags: u32,
    key: &[u8],
    value_len: usize,
    cas: u64,
) {
    encode_header(out, envelope, Status::Ok, (FLAGS_BYTES, key.len(), value_len), cas);
    out.extend_from_slice(&client_flags.to_be_bytes());
    out.extend_from_slice(key);
}

/// Appends the reply to a read that found no item. `key` is empty when the reply is not to name it; a reply
/// with a key has no text.
pub fn encode_miss(out: &mut Vec<u8>, envelope: Envelope, key: &[u8]) {
    if key.is_empty() {
        return encode_status(out, envelope, Status::NotFound);
    }
    encode_header(out, envelope, Status::NotFound, (0, key.len(), 0), 0);
    out.extend_from_slice(key);
}

/// Appends the reply to `INCR` or `DECR` that succeeded: the new number, as 8 bytes, and the new cas unique.
pub fn encode_number(out: &mut Vec<u8>, envelope: Envelope, number: u64, cas: u64) {
    encode_header(out, envelope, Status::Ok, (0, 0, size_of::<u64>()), cas);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends one stat. After the last the caller appends one with an empty name and value.
pub fn encode_stat(out: &mut Vec<u8>, envelope: Envelope, name: &[u8], value: &[u8]) {
    encode_header(out, envelope, Status::Ok, (0, name.len(), value.len()), 0);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// Appends the stats of `list`, which are the lines of a reply of the text protocol, and the end of them.
pub fn encode_stats(out: &mut Vec<u8>, envelope: Envelope, list: &[u8]) {
    for line in list.split(|&byte| byte == b'\n') {
        let Some(stat) = line.strip_prefix(b"STAT ").and_then(|line| line.strip_suffix(b"\r")) else {
            continue;
        };
        let end = stat.iter().position(|&byte| byte == b' ').unwrap_or(stat.len());
        let (name, value) = stat.split_at(end);
        encode_stat(out, envelope, name, value.get(1..).unwrap_or_default());
    }
    encode_stat(out, envelope, b"", b"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_laid_out_as_the_protocol_says() {
        let envelope = Envelope { opcode: 0x0c, opaque: 0x0102_0304 };
        let mut out = Vec::new();
        encode_hit(&mut out, envelope, 7, b"key", 5, 0x0a0b);
        let header =
            [0x81, 0x0c, 0, 3, 4, 0, 0, 0, 0, 0, 0, 12, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0x0a, 0x0b, 0, 0, 0, 7];
        assert_eq!(out, [&header[..], b"key"].concat());
        out.clear();
        encode_status(&mut out, envelope, Status::NotFound);
        assert_eq!(out[..12], [0x81, 0x0c, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9]);
        assert_eq!(&out[24..], b"Not found");
    }
}
