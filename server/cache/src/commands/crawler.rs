//! `lru_crawler`: lists of all items. There is nothing else to crawl for: expired items are found without.
//!
//! A list is made a piece at a time, shard after shard, while its client takes it; one at a time in the whole server.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corecached_engine::{Seconds, Store};
use corecached_protocol::{line, number::put_decimal};

/// Slab classes of memcached are numbered from 1 to here; all items are of class 1.
const CLASS_MAX: u32 = 63;
/// Longest sleep of the crawler, microseconds.
const SLEEP_MAX_US: u64 = 1_000_000;

/// How items are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemList {
    /// `metadump`: a line of fields.
    Fields,
    /// `mgdump`: the command that reads it.
    MetaGets,
}

impl ItemList {
    /// What ends the list.
    #[must_use]
    pub const fn end(self) -> &'static [u8] {
        match self {
            Self::Fields => line::END,
            Self::MetaGets => line::META_MISS,
        }
    }
}

/// What `lru_crawler` comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crawl {
    /// A line.
    Answer(&'static [u8]),
    /// A list of all items.
    List(ItemList),
    /// A list of the items of classes that have none.
    Nothing(ItemList),
}

/// Whether lists may be made, and whether one is.
#[derive(Debug, Default)]
pub struct Crawler {
    disabled: AtomicBool,
    dumping: AtomicBool,
}

impl Crawler {
    /// Unless `lru_crawler disable` was the last word.
    pub fn is_enabled(&self) -> bool {
        !self.disabled.load(Ordering::Relaxed)
    }

    /// Whoever gets true makes a list, and ends it with [`Crawler::end_dump`].
    pub fn begin_dump(&self) -> bool {
        !self.dumping.swap(true, Ordering::Relaxed)
    }

    /// See [`Crawler::begin_dump`].
    pub fn end_dump(&self) {
        self.dumping.store(false, Ordering::Relaxed);
    }
}

/// What `lru_crawler WORDS` comes to.
#[must_use]
pub fn command(words: &[u8], crawler: &Crawler, allow_dump: bool) -> Crawl {
    let mut words = words.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let (verb, argument) = (words.next().unwrap_or(b""), words.next());
    let number = |most: u64, past: &'static [u8]| match argument {
        None => line::ERROR,
        Some(word) => match decimal::<u32>(word) {
            Some(number) if u64::from(number) <= most => line::OK,
            Some(_) => past,
            None => line::BAD_FORMAT,
        },
    };
    Crawl::Answer(match (verb, argument) {
        (b"enable", _) if crawler.disabled.swap(false, Ordering::Relaxed) => line::OK,
        (b"enable", _) => line::CRAWLER_NOT_RESTARTED,
        (b"disable", _) => {
            crawler.disabled.store(true, Ordering::Relaxed);
            line::OK
        }
        (b"sleep", _) => number(SLEEP_MAX_US, line::CRAWLER_SLEEP_TOO_LONG),
        (b"tocrawl", _) => number(u64::MAX, line::ERROR),
        (b"crawl", Some(classes)) => match holds_items(classes) {
            Some(_) => line::OK,
            None => line::BAD_CRAWLER_CLASS,
        },
        (b"metadump" | b"mgdump", _) if !allow_dump => line::METADUMP_NOT_ALLOWED,
        (b"metadump" | b"mgdump", Some(_)) if !crawler.is_enabled() => DISABLED,
        (b"metadump" | b"mgdump", Some(classes)) => {
            let list = if verb == b"metadump" { ItemList::Fields } else { ItemList::MetaGets };
            return match holds_items(classes) {
                Some(true) => Crawl::List(list),
                Some(false) => Crawl::Nothing(list),
                None if classes == b"hash" => Crawl::List(list),
                None => Crawl::Answer(line::BAD_CRAWLER_CLASS),
            };
        }
        _ => line::ERROR,
    })
}

/// A list while the crawler is switched off.
const DISABLED: &[u8] = b"CLIENT_ERROR lru crawler disabled\r\n";
/// A list while another is made.
pub const BUSY: &[u8] = b"BUSY currently processing crawler request\r\n";

/// Whether `all` or one of `1,2,...` is the class of items; `None` when one is no class.
fn holds_items(classes: &[u8]) -> Option<bool> {
    if classes == b"all" {
        return Some(true);
    }
    let mut holds = false;
    for class in classes.split(|&byte| byte == b',') {
        let class = decimal::<u32>(class).filter(|class| (1..=CLASS_MAX).contains(class))?;
        holds |= class == 1;
    }
    Some(holds)
}

fn decimal<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// What [`list`] begins with when there is nothing behind it.
const NO_MORE: u64 = u64::MAX;
/// Bytes of that number.
const CURSOR_BYTES: usize = 8;

/// A piece of the list of a shard's items that begins at `from`, and in front of it where the next one does.
pub fn list(store: &Store, from: u64, list: ItemList, now: Seconds) -> Vec<u8> {
    let mut out = vec![0; CURSOR_BYTES];
    let next = store.walk(from, now, |key, item| match list {
        ItemList::Fields => {
            out.extend_from_slice(b"key=");
            put_uri_encoded(&mut out, key);
            out.extend_from_slice(b" exp=");
            match item.expires {
                None => out.extend_from_slice(b"-1"),
                Some(at) => put_decimal(&mut out, at.0.into()),
            }
            out.extend_from_slice(b" la=");
            put_decimal(&mut out, item.last_access().0.into());
            out.extend_from_slice(b" cas=");
            put_decimal(&mut out, item.cas);
            out.extend_from_slice(if item.hit_before { b" fetch=yes" } else { b" fetch=no" });
            out.extend_from_slice(b" cls=1 size=");
            put_decimal(&mut out, item.stored_bytes.into());
            out.extend_from_slice(b" flags=");
            put_decimal(&mut out, item.client_flags.into());
            out.extend_from_slice(b" \n");
        }
        ItemList::MetaGets => {
            out.extend_from_slice(b"mg ");
            if item.binary_key {
                out.extend_from_slice(STANDARD.encode(key).as_bytes());
                out.extend_from_slice(b" b");
            } else {
                out.extend_from_slice(key);
            }
            out.extend_from_slice(b"\r\n");
        }
    });
    out[..CURSOR_BYTES].copy_from_slice(&next.unwrap_or(NO_MORE).to_le_bytes());
    out
}

/// What [`list`] made: where the next piece begins, `None` behind the last, and the lines.
#[must_use]
pub fn piece(answer: &[u8]) -> (Option<u64>, &[u8]) {
    let Some((cursor, lines)) = answer.split_first_chunk() else { return (None, &[]) };
    let next = u64::from_le_bytes(*cursor);
    ((next != NO_MORE).then_some(next), lines)
}

/// As memcached does: all but letters, digits and four others as `%XX`.
pub fn put_uri_encoded(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}
