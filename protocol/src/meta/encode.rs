//! The replies to meta commands.

use super::flags::mask;
use crate::number::put_decimal;
use crate::{Meta, MetaFlags, MetaVerb, line};

/// How a meta command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MetaCode {
    /// `VA`: it went well, and the value follows.
    Value = 0,
    /// `HD`: it went well.
    Done = 1,
    /// `EN`: `mg` or `me` found nothing.
    Miss = 2,
    /// `NS`: not stored.
    NotStored = 3,
    /// `EX`: the cas unique differs.
    Exists = 4,
    /// `NF`: there is nothing to change.
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

    /// Whether the command did what it was asked.
    #[inline]
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Value | Self::Done)
    }
}

/// What the flags of a reply are filled in from: the item as the command found or left it, all zero where there is
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MetaItem {
    /// `f`
    pub client_flags: u32,
    /// `c`
    pub cas: u64,
    /// `s`: bytes of the value
    pub size: u32,
    /// `t`: seconds left; `None` is never, shown as -1. The old one where `t` stands in front of `T`.
    pub ttl_s: Option<u32>,
    /// `h`: fetched before this access.
    pub hit_before: bool,
    /// `l`: seconds since the access before this one.
    pub last_access_s: u32,
    /// `W`: this client is the one to renew the item.
    pub win: bool,
    /// `X`: the item is stale.
    pub stale: bool,
    /// `Z`: another client is already renewing the item.
    pub token_sent: bool,
}

/// What `me` shows of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MetaDebug {
    /// Seconds left; `None` is never, shown as -1.
    pub ttl_s: Option<u32>,
    /// Seconds since the last access.
    pub last_access_s: u32,
    /// The cas unique.
    pub cas: u64,
    /// Fetched since it was stored.
    pub fetched: bool,
    /// The slab class, or what stands for it.
    pub class: u32,
    /// Bytes of memory the item takes.
    pub size: u64,
}

/// Flags that every verb returns, however it ended.
const RETURNED_ALWAYS: u64 = mask(b"kO");

/// Flags that a verb returns when it went well; those of `ms` also when it did not.
const RETURNED: [u64; 5] = [
    RETURNED_ALWAYS | mask(b"cfhlst"),
    RETURNED_ALWAYS | mask(b"cs"),
    RETURNED_ALWAYS,
    RETURNED_ALWAYS | mask(b"ct"),
    RETURNED_ALWAYS,
];

/// Appends the line that answers `meta`: code, value length, flags in the order they were asked for, then what is
/// special about the item in the order Z X W, and CRLF.
///
/// `value_len` goes with [`MetaCode::Value`] and nothing else; the value and CRLF are the caller's to add. Of a command
/// that failed only `k`, `b` and `O` are shown, and of `ms` also `c`, which is 0, and `s`.
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
                out.extend_from_slice(meta.key);
                if meta.flags.has(b'b') {
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

/// Appends the line that answers `me` for an item that is there; for one that is not it is [`line::META_MISS`].
/// The key is shown as it was sent, so that no byte of it can break the line.
pub fn encode_debug(out: &mut Vec<u8>, meta: &Meta, item: &MetaDebug) {
    out.extend_from_slice(b"ME ");
    out.extend_from_slice(meta.key);
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

/// Whether the flag `q` keeps the reply `code` to `meta` back: what was to be expected is hidden, which for `mg` is a
/// miss and for the others success. Errors never are, nor is a bad data chunk.
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

// The constant replies are what the encoder comes to without flags.
const _: () = assert!(line::META_MISS[0] == MetaCode::Miss.letters()[0]);
const _: () = assert!(line::META_DONE[0] == MetaCode::Done.letters()[0]);
