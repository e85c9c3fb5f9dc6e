//! `lru_crawler`: lists of all items. This server has no crawler, since the store finds expired items by
//! itself.
//!
//! A list is made a piece at a time, shard after shard, while its client reads it. The whole server makes one
//! at a time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corecached_engine::{Item, Seconds, Store};
use corecached_protocol::{line, number::put_decimal};

/// The highest slab class of memcached. The lowest is 1, and all items here are in class 1.
pub(crate) const CLASS_MAX: u32 = 63;
/// Longest sleep of the crawler in microseconds, as in memcached.
const SLEEP_MAX_US: u64 = 1_000_000;

/// The format of a list of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemList {
    /// `metadump`: a line of fields for each item.
    Fields,
    /// `mgdump`: the `mg` command that reads each item.
    MetaGets,
}

impl ItemList {
    /// The line that ends the list.
    #[must_use]
    pub(crate) const fn end(self) -> &'static [u8] {
        match self {
            Self::Fields => line::END,
            Self::MetaGets => line::META_MISS,
        }
    }

    /// Appends the line of one item.
    fn put_item(self, out: &mut Vec<u8>, key: &[u8], item: &Item<'_>) {
        match self {
            Self::Fields => {
                out.extend_from_slice(b"key=");
                put_uri_encoded(out, key);
                out.extend_from_slice(b" exp=");
                match item.expires {
                    None => out.extend_from_slice(b"-1"),
                    Some(at) => put_decimal(out, at.0.into()),
                }
                out.extend_from_slice(b" la=");
                put_decimal(out, item.last_access().0.into());
                out.extend_from_slice(b" cas=");
                put_decimal(out, item.cas);
                out.extend_from_slice(if item.hit_before { b" fetch=yes" } else { b" fetch=no" });
                out.extend_from_slice(b" cls=1 size=");
                put_decimal(out, item.stored_bytes.into());
                out.extend_from_slice(b" flags=");
                put_decimal(out, item.client_flags.into());
                out.extend_from_slice(b" \n");
            }
            Self::MetaGets => {
                out.extend_from_slice(b"mg ");
                if item.binary_key {
                    out.extend_from_slice(STANDARD.encode(key).as_bytes());
                    out.extend_from_slice(b" b");
                } else {
                    out.extend_from_slice(key);
                }
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// What to do for an `lru_crawler` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrawlerAction {
    /// Answer with this line.
    Answer(&'static [u8]),
    /// List all items.
    List(ItemList),
    /// Answer with an empty list: the command named only classes without items.
    EmptyList(ItemList),
}

/// Whether lists may be made, and whether one is being made.
#[derive(Debug)]
pub(crate) struct Crawler {
    /// Set by `-o no_lru_crawler` and `lru_crawler disable`.
    disabled: AtomicBool,
    /// A list is being made.
    dumping: AtomicBool,
    /// Lists that were begun.
    dumps: AtomicU64,
    /// Items in all lists.
    items_listed: AtomicU64,
}

impl Crawler {
    /// A crawler that makes lists if it is `enabled`, or when it is told `lru_crawler enable`.
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            disabled: AtomicBool::new(!enabled),
            dumping: AtomicBool::new(false),
            dumps: AtomicU64::new(0),
            items_listed: AtomicU64::new(0),
        }
    }

    /// Whether lists may be made.
    pub(crate) fn is_enabled(&self) -> bool {
        !self.disabled.load(Ordering::Relaxed)
    }

    /// Begins a list. False when another is being made. After true, the caller calls [`Crawler::end_dump`] in
    /// the end.
    pub(crate) fn begin_dump(&self) -> bool {
        let begins = !self.dumping.swap(true, Ordering::Relaxed);
        self.dumps.fetch_add(u64::from(begins), Ordering::Relaxed);
        begins
    }

    /// Whether a list is being made.
    pub(crate) fn is_dumping(&self) -> bool {
        self.dumping.load(Ordering::Relaxed)
    }

    /// Items that were listed since the start.
    pub(crate) fn items_listed(&self) -> u64 {
        self.items_listed.load(Ordering::Relaxed)
    }

    /// Lists that were begun since the start.
    pub(crate) fn dumps(&self) -> u64 {
        self.dumps.load(Ordering::Relaxed)
    }

    /// The list that [`Crawler::begin_dump`] began has ended.
    pub(crate) fn end_dump(&self) {
        let was_dumping = self.dumping.swap(false, Ordering::Relaxed);
        debug_assert!(was_dumping, "a list that ends has begun");
    }
}

/// Carries out `lru_crawler WORDS`, apart from making a list.
#[must_use]
pub(crate) fn command(words: &[u8], crawler: &Crawler, allow_dump: bool) -> CrawlerAction {
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
    CrawlerAction::Answer(match (verb, argument) {
        (b"enable", _) if crawler.disabled.swap(false, Ordering::Relaxed) => line::OK,
        (b"enable", _) => line::CRAWLER_NOT_RESTARTED,
        (b"disable", _) => {
            crawler.disabled.store(true, Ordering::Relaxed);
            line::OK
        }
        (b"sleep", _) => number(SLEEP_MAX_US, line::CRAWLER_SLEEP_TOO_LONG),
        (b"tocrawl", _) => number(u64::MAX, line::ERROR),
        (b"crawl", Some(_)) if !crawler.is_enabled() => DISABLED,
        (b"crawl", Some(classes)) => match holds_items(classes) {
            Some(_) => line::OK,
            None => line::BAD_CRAWLER_CLASS,
        },
        (b"metadump" | b"mgdump", _) if !allow_dump => line::METADUMP_NOT_ALLOWED,
        (b"metadump" | b"mgdump", Some(_)) if !crawler.is_enabled() => DISABLED,
        (b"metadump" | b"mgdump", Some(classes)) => {
            let list = if verb == b"metadump" { ItemList::Fields } else { ItemList::MetaGets };
            return match holds_items(classes) {
                Some(true) => CrawlerAction::List(list),
                Some(false) => CrawlerAction::EmptyList(list),
                None if classes == b"hash" => CrawlerAction::List(list),
                None => CrawlerAction::Answer(line::BAD_CRAWLER_CLASS),
            };
        }
        _ => line::ERROR,
    })
}

/// The answer to a command for a list while the crawler is switched off.
const DISABLED: &[u8] = b"CLIENT_ERROR lru crawler disabled\r\n";
/// The answer to a command for a list while another is being made.
pub(crate) const BUSY: &[u8] = b"BUSY currently processing crawler request\r\n";

/// Whether `all`, or one of the classes in a list like `1,2,...`, has items. `None` when one of them is no
/// class.
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

/// What a piece begins with when it is the last one of its shard.
const NO_MORE: u64 = u64::MAX;
/// Bytes of the cursor at the beginning of a piece.
const CURSOR_BYTES: usize = 8;

/// A piece of the list of a shard's items, from cursor `from` on. Before its lines it has the cursor of the
/// next piece.
pub(crate) fn list_piece(
    crawler: &Crawler,
    store: &Store,
    from: u64,
    list: ItemList,
    now: Seconds,
) -> Vec<u8> {
    let mut out = vec![0; CURSOR_BYTES];
    let mut items = 0;
    let next = store.walk(from, now, |key, item| {
        items += 1;
        list.put_item(&mut out, key, item);
    });
    crawler.items_listed.fetch_add(items, Ordering::Relaxed);
    out[..CURSOR_BYTES].copy_from_slice(&next.unwrap_or(NO_MORE).to_le_bytes());
    out
}

/// The parts of what [`list_piece`] made: the cursor of the next piece, which is `None` after the last one,
/// and the lines.
#[must_use]
pub(crate) fn split_piece(answer: &[u8]) -> (Option<u64>, &[u8]) {
    let Some((cursor, lines)) = answer.split_first_chunk() else { return (None, &[]) };
    let next = u64::from_le_bytes(*cursor);
    ((next != NO_MORE).then_some(next), lines)
}

/// Appends `bytes` as memcached shows keys: all but letters, digits and `-._~` as `%XX`.
pub(crate) fn put_uri_encoded(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}
