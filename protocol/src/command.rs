//! The requests of clients: [`Command`], borrowed from the bytes it was parsed from.
//!
//! Commands are `Copy` values of numbers and borrowed slices, so that a batch of them lives on the stack. A
//! command that has to outlive its bytes, for example on the way to another shard, is split into a
//! [`CommandHead`] and those bytes.

mod parts;

pub use parts::{CommandHead, CommandParts, OwnedCommand};

use crate::binary::{Binary, BinaryControl};
use crate::exptime::Exptime;

/// One parsed request. A retrieval line yields one [`Command::Retrieve`] for each of its keys, so that a line
/// of any length needs no more memory than its longest key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command<'a> {
    /// One key of a `get`, `gets`, `gat` or `gats` line.
    Retrieve(Retrieve<'a>),
    /// The line of `set`, `add`, `replace`, `append`, `prepend` or `cas`; `value_len` bytes and CRLF follow
    /// it.
    Store(Store<'a>),
    /// `delete KEY [0] [noreply]`
    Delete(Delete<'a>),
    /// `incr` and `decr`
    Arithmetic(Arithmetic<'a>),
    /// `touch KEY EXPTIME [noreply]`
    Touch(Touch<'a>),
    /// The line of `mg`, `ms`, `md`, `ma` or `me`; after that of `ms` follow `value_len` bytes and CRLF.
    Meta(Meta<'a>),
    /// A request of the binary protocol on a key; `value_len` bytes follow it, without CRLF.
    Binary(Binary<'a>),
    /// A request of the binary protocol that has no key, or that is refused.
    BinaryControl(BinaryControl<'a>),
    /// `mn`, which is answered `MN`: clients send it after quiet commands to learn that all of them were
    /// executed.
    MetaNoop,
    /// `flush_all [DELAY] [noreply]`
    FlushAll {
        /// When the items are invalidated; `None` when the client sent no delay.
        delay: Option<Exptime>,
        /// The client sent `noreply`: the command is not answered.
        noreply: bool,
    },
    /// `verbosity N [noreply]`
    Verbosity {
        /// The level as sent, at most `u32::MAX`; no smaller limit is applied here.
        level: u32,
        /// The client sent `noreply`: the command is not answered.
        noreply: bool,
    },
    /// `version`
    Version,
    /// `quit`
    Quit,
    /// `stats [WORDS]`
    Stats {
        /// Everything after the verb, without blanks at either end; empty for plain `stats`.
        words: &'a [u8],
    },
    /// `shutdown [graceful]`
    Shutdown {
        /// Whether the line is `shutdown graceful`.
        graceful: bool,
    },
    /// `cache_memlimit MB [noreply]`
    CacheMemlimit {
        /// The memory limit in megabytes (1,048,576 bytes), as sent.
        megabytes: u64,
        /// The client sent `noreply`: the command is not answered.
        noreply: bool,
    },
    /// A command of operators and tools, which names no key and whose arguments are not parsed here.
    Admin {
        /// The first word of the line.
        verb: AdminVerb,
        /// Everything after the verb, without blanks at either end.
        words: &'a [u8],
    },
}

/// The verbs of [`Command::Admin`]. This crate does not parse their arguments; the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminVerb {
    /// `slabs reassign|automove ...`
    Slabs,
    /// `lru mode|tune|temp_ttl ...`
    Lru,
    /// `lru_crawler ...`
    LruCrawler,
    /// `watch ...`
    Watch,
    /// `refresh_certs`
    RefreshCerts,
    /// `extstore ...`
    Extstore,
    /// `debugtime ...`
    DebugTime,
}

/// One key of a `get`, `gets`, `gat` or `gats` line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retrieve<'a> {
    /// The key, 1 to [`crate::KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// Whether the reply shows the cas unique: `gets` and `gats`.
    pub with_cas: bool,
    /// The new exptime of the item, as sent: `gat` and `gats` only.
    pub touch: Option<Exptime>,
    /// Whether this is the last key of its line, so that `END` follows its value.
    pub last: bool,
}

/// The line of a classic storage command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Store<'a> {
    /// Which of the six storage commands this is.
    pub verb: StoreVerb,
    /// The key, 1 to [`crate::KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// A number that is stored with the value and returned with it; it means nothing to the server.
    pub client_flags: u32,
    /// The new exptime of the item.
    pub exptime: Exptime,
    /// Length of the value in bytes, without its CRLF; at most [`crate::VALUE_LEN_MAX`].
    pub value_len: u32,
    /// The cas unique that the item must have: `cas` only, else 0.
    pub cas_unique: u64,
    /// The client sent `noreply`: the command is not answered.
    pub noreply: bool,
}

/// The classic storage commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum StoreVerb {
    Set = 0,
    Add = 1,
    Replace = 2,
    Append = 3,
    Prepend = 4,
    Cas = 5,
}

/// The line of `delete`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delete<'a> {
    /// The key, 1 to [`crate::KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The client sent `noreply`: the command is not answered.
    pub noreply: bool,
}

/// The line of `incr` or `decr`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic<'a> {
    /// The key, 1 to [`crate::KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The number to add or to subtract.
    pub delta: u64,
    /// Whether to subtract: `decr`.
    pub decrement: bool,
    /// The client sent `noreply`: the command is not answered.
    pub noreply: bool,
}

/// The line of `touch`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Touch<'a> {
    /// The key, 1 to [`crate::KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The new exptime of the item, as sent.
    pub exptime: Exptime,
    /// The client sent `noreply`: the command is not answered.
    pub noreply: bool,
}

/// The line of a meta command that names a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meta<'a> {
    /// Which of the five meta commands this is.
    pub verb: MetaVerb,
    /// The key as sent, 1 to [`crate::KEY_BYTES_MAX`] bytes: base64 when `flags.has(b'b')`, which
    /// [`crate::MetaKey`] decodes.
    pub key: &'a [u8],
    /// Length of the value in bytes, without its CRLF; at most [`crate::VALUE_LEN_MAX`]. 0 for verbs other
    /// than `ms`.
    pub value_len: u32,
    /// The flags of the line.
    pub flags: MetaFlags<'a>,
}

/// The meta commands that name a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum MetaVerb {
    Get = 0,
    Set = 1,
    Delete = 2,
    Arithmetic = 3,
    Debug = 4,
}

/// What `ms` does with the value, or `ma` with the number, as the flag `M` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum MetaMode {
    /// `S`, the default of `ms`.
    #[default]
    Set = 0,
    Add = 1,
    Append = 2,
    Prepend = 3,
    Replace = 4,
    /// `I` or `+`, the default of `ma`.
    Increment = 5,
    Decrement = 6,
}

/// The flags of a meta command: which of them were sent, in what order, and the numbers that came with them.
///
/// A number whose flag was not sent is 0 unless its field says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct MetaFlags<'a> {
    /// The flags that were sent, as one bit for each letter; see [`MetaFlags::has`].
    pub present: u64,
    /// The flags as sent, separated by blanks; replies return theirs in this order. Empty for `me`.
    pub tokens: &'a [u8],
    /// `T`: the new exptime of the item.
    pub exptime: Exptime,
    /// `N`: the exptime of the item that is created on a miss.
    pub vivify: Exptime,
    /// `R`: the remaining TTL in seconds below which one client is told to renew the item.
    pub recache_s: i32,
    /// `E`: the cas unique that the item gets.
    pub new_cas: u64,
    /// `C`: the cas unique that the item must have.
    pub compare_cas: u64,
    /// `F`: a number that is stored with the value and means nothing to the server.
    pub client_flags: u32,
    /// `D`: the number to add or to subtract; 1 when the flag was not sent.
    pub delta: u64,
    /// `J`: the number of the item that `ma` creates on a miss.
    pub initial: u64,
    /// `M`: the mode of `ms` or `ma`, which is the default of the verb when the flag was not sent.
    pub mode: MetaMode,
}

impl MetaFlags<'_> {
    /// Whether the flag `letter` (`a-z`, `A-Z`) was sent.
    #[inline]
    #[must_use]
    pub const fn has(&self, letter: u8) -> bool {
        self.present & Self::bit(letter) != 0
    }

    /// The bit of `letter` in [`MetaFlags::present`]; 0 for a byte that is not a letter.
    #[inline]
    #[must_use]
    pub const fn bit(letter: u8) -> u64 {
        match letter {
            b'a'..=b'z' => 1 << (letter - b'a'),
            b'A'..=b'Z' => 1 << (letter - b'A' + 26),
            _ => 0,
        }
    }
}
