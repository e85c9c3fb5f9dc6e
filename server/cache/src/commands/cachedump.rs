//! `stats cachedump`: some keys with their sizes and times of expiry, in the format of memcached.

use corecached_engine::{Seconds, Store};
use corecached_protocol::line;

/// Longest answer in bytes, as in memcached.
const ANSWER_BYTES_MAX: usize = 2 << 20;

/// The lines of at most `limit` items of one shard.
pub(crate) fn list(store: &Store, limit: u32, now: Seconds) -> Vec<u8> {
    use std::io::Write;
    let mut lines = Vec::new();
    let mut left = limit;
    let mut from = Some(0);
    while let Some(begin) = from
        && left > 0
        && lines.len() < ANSWER_BYTES_MAX
    {
        from = store.walk(begin, now, |key, item| {
            if left > 0 && lines.len() < ANSWER_BYTES_MAX {
                left -= 1;
                lines.extend_from_slice(b"ITEM ");
                lines.extend_from_slice(key);
                let (len, expires_s) = (item.value.len(), item.expires.map_or(0, |at| at.0));
                let _ = write!(lines, " [{len} b; {expires_s} s]\r\n");
            }
        });
    }
    lines
}

/// Appends the answer, made of the [`list`] of every shard.
pub(crate) fn render(parts: &[Vec<u8>], limit: u32, out: &mut Vec<u8>) {
    let end = out.len() + ANSWER_BYTES_MAX;
    let lines = parts.iter().flat_map(|part| part.split_inclusive(|&byte| byte == b'\n'));
    for line in lines.take(limit as usize) {
        if out.len() + line.len() > end {
            break;
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(line::END);
}
