//! What a client can ask for: [`Command`], borrowed from the bytes it was parsed from.
//!
//! Commands are plain `Copy` values of numbers and borrowed slices, so that a batch of them lives on the stack and a
//! command for another shard can be written into the mesh and rebuilt there.

use crate::binary::{Binary, BinaryControl};
use crate::exptime::Exptime;

/// One parsed request. A retrieval line yields one [`Command::Retrieve`] a key, so a line of any length needs no more
/// room than its longest key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command<'a> {
    /// One key of a `get`, `gets`, `gat` or `gats` line.
    Retrieve(Retrieve<'a>),
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`: the line; `value_len` bytes and CRLF follow it.
    Store(Store<'a>),
    /// `delete KEY [0] [noreply]`
    Delete(Delete<'a>),
    /// `incr` and `decr`
    Arithmetic(Arithmetic<'a>),
    /// `touch KEY EXPTIME [noreply]`
    Touch(Touch<'a>),
    /// `mg`, `ms`, `md`, `ma`, `me`; for `ms` `value_len` bytes and CRLF follow the line.
    Meta(Meta<'a>),
    /// A request of the binary protocol on a key; `value_len` bytes follow it.
    Binary(Binary<'a>),
    /// A request of the binary protocol without a key, or one that is refused.
    BinaryControl(BinaryControl<'a>),
    /// `mn`: answered `MN`, and ends a batch of quiet commands.
    MetaNoop,
    /// `flush_all [DELAY] [noreply]`
    FlushAll {
        /// When the items die; `None` when no delay was given.
        delay: Option<Exptime>,
        /// No reply is wanted.
        noreply: bool,
    },
    /// `verbosity N [noreply]`
    Verbosity {
        /// As sent; the server caps it.
        level: u32,
        /// No reply is wanted.
        noreply: bool,
    },
    /// `version`
    Version,
    /// `quit`
    Quit,
    /// `stats [WORDS]`: everything after `stats `, trimmed of blanks at both ends.
    Stats {
        /// Empty for plain `stats`.
        words: &'a [u8],
    },
    /// `shutdown [graceful]`
    Shutdown {
        /// `shutdown graceful`
        graceful: bool,
    },
    /// `cache_memlimit MB [noreply]`
    CacheMemlimit {
        /// As sent.
        megabytes: u64,
        /// No reply is wanted.
        noreply: bool,
    },
    /// A command that operators and tools send and that touches no key.
    Admin {
        /// Which.
        verb: AdminVerb,
        /// Everything after the verb, trimmed of blanks at both ends.
        words: &'a [u8],
    },
}

/// Verbs whose arguments the server reads itself.
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

/// One key of a retrieval line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retrieve<'a> {
    /// 1 to 250 bytes.
    pub key: &'a [u8],
    /// `gets`, `gats`: show the cas unique.
    pub with_cas: bool,
    /// `gat`, `gats`: the new exptime.
    pub touch: Option<Exptime>,
    /// The last key of its line: `END` follows its value.
    pub last: bool,
}

/// The line of a classic storage command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Store<'a> {
    /// Which of the six.
    pub verb: StoreVerb,
    /// 1 to 250 bytes.
    pub key: &'a [u8],
    /// Opaque to the server.
    pub client_flags: u32,
    /// When the item dies.
    pub exptime: Exptime,
    /// Bytes of the value, without its CRLF.
    pub value_len: u32,
    /// `cas` only, else 0.
    pub cas_unique: u64,
    /// No reply is wanted.
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

/// `delete`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delete<'a> {
    /// 1 to 250 bytes.
    pub key: &'a [u8],
    /// No reply is wanted.
    pub noreply: bool,
}

/// `incr`, `decr`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic<'a> {
    /// 1 to 250 bytes.
    pub key: &'a [u8],
    /// What to add, or to take away.
    pub delta: u64,
    /// `decr`
    pub decrement: bool,
    /// No reply is wanted.
    pub noreply: bool,
}

/// `touch`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Touch<'a> {
    /// 1 to 250 bytes.
    pub key: &'a [u8],
    /// When the item dies.
    pub exptime: Exptime,
    /// No reply is wanted.
    pub noreply: bool,
}

/// A meta command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meta<'a> {
    /// Which of the five.
    pub verb: MetaVerb,
    /// The key as sent: base64 when `flags.has(b'b')`; [`crate::MetaKey`] decodes it.
    pub key: &'a [u8],
    /// `ms` only, else 0: bytes of the value, without its CRLF.
    pub value_len: u32,
    /// What was asked.
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

/// What `ms` does with the value, or `ma` with the number: its `M` flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum MetaMode {
    /// `ms`, the default: `S`
    #[default]
    Set = 0,
    Add = 1,
    Append = 2,
    Prepend = 3,
    Replace = 4,
    /// `ma`, the default: `I`, `+`
    Increment = 5,
    Decrement = 6,
}

/// The flags of a meta command: which were sent, in what order, and their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct MetaFlags<'a> {
    /// One bit a letter; see [`MetaFlags::has`].
    pub present: u64,
    /// The flags as sent, separated by blanks: replies return theirs in this order.
    pub tokens: &'a [u8],
    /// `T`
    pub exptime: Exptime,
    /// `N`
    pub vivify: Exptime,
    /// `R`: seconds
    pub recache_s: i32,
    /// `E`
    pub new_cas: u64,
    /// `C`
    pub compare_cas: u64,
    /// `F`
    pub client_flags: u32,
    /// `D`; 1 when not sent
    pub delta: u64,
    /// `J`
    pub initial: u64,
    /// `M`
    pub mode: MetaMode,
}

impl MetaFlags<'_> {
    /// Whether the flag `letter` (`a-z`, `A-Z`) was sent.
    #[inline]
    #[must_use]
    pub const fn has(&self, letter: u8) -> bool {
        self.present & Self::bit(letter) != 0
    }

    /// The bit of `letter` in [`MetaFlags::present`]; 0 for what is not a letter.
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
