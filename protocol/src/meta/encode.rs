//! Writes the replies to meta commands.

use super::flags::mask;
use super::key::put_stored;
use crate::number::put_decimal;
use crate::{Meta, MetaFlags, MetaVerb, line};

/// The result of a meta command, which the first two letters of its reply show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MetaCode {
    /// `VA`: the command succeeded, and the value follows.
    Value = 0,
    /// `HD`: the command succeeded.
    Done = 1,
    /// `EN`: there is no such item; `mg` and `me` only.
    Miss = 2,
    /// `NS`: the value was not stored.
    NotStored = 3,
    /// `EX`: the item has another cas unique.
    Exists = 4,
    /// `NF`: there is no item to change.
    NotFound = 5,
}

impl MetaCode {
    /// The two letters that begin the reply.
    #[inline]
    const fn letters(self) -> [u8; 2] {
        match self {
            Self::Value => *b"VA",
            Self::Done => *b"HD",
            Self::Miss => *b"EN",
            Self::NotStored => *b"NS",
            Self::Exists => *b"EX",
            Self::NotFound => *b"NF",
        }
    }

    /// Whether the command succeeded.
    #[inline]
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Value | Self::Done)
    }
}

/// What the flags of a reply can show of an item, as the command found or left it. The default, all zero,
/// stands for no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MetaItem {
    /// `f`: the number that a client stored with the value.
    pub client_flags: u32,
    /// `c`: the cas unique.
    pub cas: u64,
    /// `s`: the length of the value in bytes.
    pub size: u32,
    /// `t`: the TTL in seconds; `None` for an item that does not expire, shown as -1. When `t` comes before
    /// `T`, it is the TTL from before the command.
    pub ttl_s: Option<u32>,
    /// `h`: whether the item was fetched before this access.
    pub hit_before: bool,
    /// `l`: the seconds since the access before this one.
    pub last_access_s: u32,
    /// `W`: whether this client is the one to renew the item.
    pub win: bool,
    /// `X`: whether the item is stale.
    pub stale: bool,
    /// `Z`: whether another client is already renewing the item.
    pub token_sent: bool,
    /// `k` of `mg`: whether the key of the item was given in base64.
    pub binary_key: bool,
}

/// The fields of an item that `me` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MetaDebug {
    /// `exp`: the TTL in seconds; `None` for an item that does not expire, shown as -1.
    pub ttl_s: Option<u32>,
    /// `la`: the seconds since the last access.
    pub last_access_s: u32,
    /// `cas`: the cas unique.
    pub cas: u64,
    /// `fetch`: whether the item was fetched since it was stored.
    pub fetched: bool,
    /// `cls`: the slab class, or the number that an engine without slabs shows in its place.
    pub class: u32,
    /// `size`: the memory that the item takes, in bytes.
    pub size: u64,
    /// Whether the key of the item was given in base64.
    pub binary_key: bool,
}

/// The flags that every verb returns, whatever the result.
const RETURNED_ALWAYS: u64 = mask(b"kO");

/// The flags that each verb, by its number, returns when it succeeds; `ms` returns them also when it fails.
const RETURNED: [u64; 5] = [
    RETURNED_ALWAYS | mask(b"cfhlst"),
    RETURNED_ALWAYS | mask(b"cs"),
    RETURNED_ALWAYS,
    RETURNED_ALWAYS | mask(b"ct"),
    RETURNED_ALWAYS,
];

const _: () = assert!(RETURNED.len() == MetaVerb::Debug as usize + 1);

/// Appends the line that answers `meta`: the code, the value length, the flags in the order of the request,
/// then those of `Z`, `X` and `W` that apply, and CRLF.
///
/// `value_len` is present for [`MetaCode::Value`] and for no other code; the caller then appends the value
/// and CRLF. A command that failed returns only `k`, `b` and `O`, and `ms` also `s` and `c`, which is 0.
#[inline]
pub fn encode_header(
    out: &mut Vec<u8>,
    code: MetaCode,
    value_len: Option<u32>,
    meta: &Meta,
    item: &MetaItem,
) {
    debug_assert_eq!(value_len.is_some(), code == MetaCode::Value);
    out.extend_from_slice(&code.letters());
    if let Some(value_len) = value_len {
        out.push(b' ');
        put_decimal(out, value_len.into());
    }
    let returned = match code.is_success() || meta.verb == MetaVerb::Set {
        true => RETURNED[meta.verb as usize],
        false => RETURNED_ALWAYS,
    };
    if meta.flags.present & returned != 0 {
        put_flags(out, returned, code, meta, item);
    }
    if item.token_sent | item.stale | item.win && meta.verb == MetaVerb::Get && code.is_success() {
        put_state(out, item);
    }
    out.extend_from_slice(b"\r\n");
}

fn put_flags(out: &mut Vec<u8>, returned: u64, code: MetaCode, meta: &Meta, item: &MetaItem) {
    for (letter, token) in meta.flags.iter() {
        if MetaFlags::bit(letter) & returned == 0 {
            continue;
        }
        out.extend_from_slice(&[b' ', letter]);
        match letter {
            b'O' => out.extend_from_slice(token),
            b'k' => {
                let found = meta.verb == MetaVerb::Get && code.is_success();
                let in_base64 = if found && item.binary_key | meta.flags.has(b'b') {
                    put_stored(out, meta, item.binary_key)
                } else {
                    out.extend_from_slice(meta.key);
                    meta.flags.has(b'b')
                };
                if in_base64 {
                    out.extend_from_slice(b" b");
                }
            }
            b'c' => put_decimal(out, if code.is_success() { item.cas } else { 0 }),
            b'f' => put_decimal(out, item.client_flags.into()),
            b'h' => put_decimal(out, item.hit_before.into()),
            b'l' => put_decimal(out, item.last_access_s.into()),
            b's' => put_decimal(out, item.size.into()),
            b't' => put_ttl(out, item.ttl_s),
            _ => debug_assert!(false, "a returned flag without a value"),
        }
    }
}

fn put_state(out: &mut Vec<u8>, item: &MetaItem) {
    for (shown, flag) in [(item.token_sent, b" Z"), (item.stale, b" X"), (item.win, b" W")] {
        if shown {
            out.extend_from_slice(flag);
        }
    }
}

fn put_ttl(out: &mut Vec<u8>, ttl_s: Option<u32>) {
    match ttl_s {
        Some(ttl_s) => put_decimal(out, ttl_s.into()),
        None => out.extend_from_slice(b"-1"),
    }
}

/// Appends the line that answers `me` for an item that exists; for one that does not the answer is
/// [`line::META_MISS`]. The key is shown as it was stored, or in base64 where its bytes would break the line.
pub fn encode_debug(out: &mut Vec<u8>, meta: &Meta, item: &MetaDebug) {
    out.extend_from_slice(b"ME ");
    put_stored(out, meta, item.binary_key);
    out.extend_from_slice(b" exp=");
    put_ttl(out, item.ttl_s);
    out.extend_from_slice(b" la=");
    put_decimal(out, item.last_access_s.into());
    out.extend_from_slice(b" cas=");
    put_decimal(out, item.cas);
    out.extend_from_slice(if item.fetched { b" fetch=yes" } else { b" fetch=no" });
    out.extend_from_slice(b" cls=");
    put_decimal(out, item.class.into());
    out.extend_from_slice(b" size=");
    put_decimal(out, item.size);
    out.extend_from_slice(b"\r\n");
}

/// Whether the flag `q` of `meta` hides a reply with this code. It hides the expected result, which for `mg`
/// is a miss and for other verbs success. It never hides an error, nor a bad data chunk.
#[inline]
#[must_use]
pub const fn is_hidden(meta: &Meta, code: MetaCode) -> bool {
    meta.flags.has(b'q')
        && match meta.verb {
            MetaVerb::Get => matches!(code, MetaCode::Miss),
            MetaVerb::Set | MetaVerb::Delete | MetaVerb::Arithmetic => code.is_success(),
            MetaVerb::Debug => false,
        }
}

// The constant replies are those that the encoder writes without flags.
const _: () = assert!(line::META_MISS[0] == MetaCode::Miss.letters()[0]);
const _: () = assert!(line::META_DONE[0] == MetaCode::Done.letters()[0]);
