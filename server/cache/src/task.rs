//! What a session of a cache does beside reading commands, and what its shards ask each other.

use corecached_net::ConnId;
use corecached_protocol::CommandHead;
use corecached_protocol::binary::Envelope;
use corecached_shard::Task;

use crate::commands::crawler::ItemList;

/// What a session does instead of reading commands.
#[derive(Debug)]
pub enum CacheTask {
    /// It waits for a password, and carries out nothing before.
    Authenticate,
    /// It sends a value that is stored piece by piece.
    Upload(Box<Upload>),
    /// It is sent a list of all items.
    Dump(Box<Dump>),
    /// It is told what happens (`watch`), and what it says is ignored.
    Watch,
}

impl Task for CacheTask {
    fn awaits_client(&self) -> bool {
        matches!(self, Self::Authenticate)
    }

    fn may_close(&self, ended: bool, stalled: bool) -> bool {
        match self {
            Self::Watch => ended,
            Self::Dump(_) => false,
            Self::Authenticate | Self::Upload(_) => ended && !stalled,
        }
    }
}

/// A value on its way into a store.
#[derive(Debug)]
pub struct Upload {
    /// The line that announced it, parsed again when the value is complete.
    pub(crate) line: Vec<u8>,
    /// Hash of the key.
    pub(crate) hash: u64,
    /// The shard that stores it.
    pub(crate) owner: usize,
    /// Bytes of the value that have not come.
    pub(crate) left: usize,
    /// Bytes of the CRLF after the value that have come. Both from the start in the binary protocol, where none comes.
    pub(crate) terminator: usize,
    /// Something else than CRLF came after the value.
    pub(crate) bad_terminator: bool,
}

/// Below this many bytes that have not come, another system call is not worth what it saves.
const DIRECT_BYTES_MIN: usize = 8 * 1024;

impl Upload {
    /// Whether shard `me` has the rest received straight to where it is stored: the shard owns it, and enough is left. A
    /// value of the binary protocol ends with its last piece, which goes the other way.
    pub(crate) fn is_received_directly(&self, me: usize) -> bool {
        self.owner == me && self.left >= DIRECT_BYTES_MIN && self.terminator == 0
    }
}

/// A list of all items, on its way to the client a piece at a time.
#[derive(Clone, Copy, Debug)]
pub struct Dump {
    /// How items are listed.
    pub(crate) list: ItemList,
    /// The shard whose items come next.
    pub(crate) shard: usize,
    /// Where among its items.
    pub(crate) from: u64,
    /// That shard has been asked, and has not answered.
    pub(crate) asked: bool,
}

/// What a session does once all of its earlier replies have been sent.
#[derive(Debug)]
pub enum CacheBarrier {
    /// Asks every shard, and answers with what comes of it.
    Ask {
        /// What every shard is asked.
        what: CacheBroadcast,
        /// What the answers become.
        then: CacheThen,
    },
    /// `stats WORDS` of published numbers.
    Stats {
        /// The words after `stats`.
        words: Vec<u8>,
        /// Of a request in the binary protocol: what its packets begin with.
        binary: Option<Envelope>,
    },
    /// `refresh_certs`
    RefreshCertificates,
}

/// What the answers to a broadcast become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheThen {
    /// One line.
    Line(&'static [u8]),
    /// Nothing: the client sent `noreply`.
    Silence,
    /// The answer as it is.
    Relay,
    /// Success, in the binary protocol.
    BinaryDone(Envelope),
    /// The list of prefixes, in the binary protocol.
    BinaryPrefixes(Envelope),
    /// A list of at most this many items.
    Items(u32),
    /// The list of connections.
    Conns,
    /// The list of prefixes.
    Prefixes,
}

/// What one shard asks of another.
#[derive(Clone, Copy, Debug)]
pub enum CacheAsk {
    /// Carry out a command on a key, with its value.
    Execute(CommandHead),
    /// Drop the key: a write to it was refused, and its old value would be stale.
    Unlink {
        /// The key is sent in base64.
        base64: bool,
    },
    /// A value that is too large to wait for begins; its bytes follow in pieces. Never answered.
    UploadBegin {
        /// Bytes of the value.
        value_len: u32,
    },
    /// The next piece of it. Never answered.
    UploadPiece,
    /// All pieces have come: do what the command says.
    UploadCommit(CommandHead),
    /// The client broke off. Never answered.
    UploadAbort,
}

/// What every shard is asked to do at the same point of a connection's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheBroadcast {
    /// Everything stored so far expires at this second.
    Flush {
        /// Unix seconds.
        at_s: u32,
    },
    /// Each slice has a new memory limit.
    MemoryLimit {
        /// Bytes for each slice.
        bytes: usize,
    },
    /// Counters start again from 0.
    ResetCounters,
    /// Describe some of the shard's items.
    DescribeItems {
        /// How many at most.
        limit: u32,
    },
    /// List some of the shard's items. Asked of one shard at a time.
    ListItems {
        /// Where to begin.
        from: u64,
        /// How items are listed.
        list: ItemList,
    },
    /// Describe the shard's connections.
    DescribeConns,
    /// Describe the shard's counters by prefix.
    DescribePrefixes,
    /// Count by prefix from now on, or no longer.
    CountPrefixes {
        /// Whether to count.
        on: bool,
    },
}

/// A connection, over all shards: the shard that accepted it, and its name there.
pub(crate) type Client = (usize, ConnId);
