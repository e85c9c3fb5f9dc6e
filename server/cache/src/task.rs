//! What a session of a cache does instead of reading commands, and what its shards ask each other.

use corecached_net::ConnId;
use corecached_protocol::CommandHead;
use corecached_protocol::binary::Envelope;
use corecached_shard::Task;

use crate::commands::crawler::ItemList;

/// What a session does instead of reading commands.
#[derive(Debug)]
pub enum CacheTask {
    /// Waits until the client has authenticated. Until then no command is carried out.
    Authenticate,
    /// Receives a value that is uploaded piece by piece.
    Upload(Box<Upload>),
    /// Sends a list of all items.
    Dump(Box<Dump>),
    /// Sends events (`watch`), and ignores input.
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

/// A value that is uploaded to a store piece by piece.
#[derive(Debug)]
pub struct Upload {
    /// The line of the command, which is parsed again when the value is complete.
    pub(crate) line: Vec<u8>,
    /// Hash of the key.
    pub(crate) hash: u64,
    /// The shard that owns the key.
    pub(crate) owner: usize,
    /// Bytes of the value that have not been received.
    pub(crate) left: usize,
    /// Bytes of the CRLF after the value that have been received. 2 from the start in the binary protocol,
    /// which has no CRLF.
    pub(crate) terminator: usize,
    /// Something else than CRLF was received after the value.
    pub(crate) bad_terminator: bool,
}

/// When fewer bytes are left, receiving them directly saves less than the additional system call costs.
const DIRECT_BYTES_MIN: usize = 8 * 1024;

impl Upload {
    /// Whether shard `me` may receive the rest straight into its store: it owns the key, and enough is left.
    /// Values of the binary protocol are not received in this way, since their last piece also commits them.
    pub(crate) fn is_received_directly(&self, me: usize) -> bool {
        self.owner == me && self.left >= DIRECT_BYTES_MIN && self.terminator == 0
    }
}

/// A list of all items that is sent to a client a piece at a time.
#[derive(Clone, Copy, Debug)]
pub struct Dump {
    /// The format of the list.
    pub(crate) list: ItemList,
    /// The shard of the next piece.
    pub(crate) shard: usize,
    /// Cursor of the next piece among the items of that shard.
    pub(crate) from: u64,
    /// That shard has been asked for the piece, and has not answered.
    pub(crate) asked: bool,
}

/// What a session does once all of its earlier replies have been sent.
#[derive(Debug)]
pub enum CacheBarrier {
    /// Broadcasts to every shard, and replies once all have answered.
    Broadcast {
        /// What every shard is asked.
        what: CacheBroadcast,
        /// The reply.
        then: CacheThen,
    },
    /// Replies to `stats WORDS` from published numbers.
    Stats {
        /// The words after `stats`.
        words: Vec<u8>,
        /// The envelope of a request in the binary protocol. `None` in the text protocol.
        binary: Option<Envelope>,
    },
    /// Has the certificates read again (`refresh_certs`).
    RefreshCertificates,
}

/// How to reply once all shards have answered a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheThen {
    /// Reply with this line.
    Line(&'static [u8]),
    /// Do not reply: the client sent `noreply`, or a quiet request.
    Silence,
    /// Reply with the answers as they are.
    Relay,
    /// Reply with success, in the binary protocol.
    BinaryDone(Envelope),
    /// Reply with the counters of all prefixes, in the binary protocol.
    BinaryPrefixes(Envelope),
    /// Reply with a list of at most this many items.
    Items(u32),
    /// Reply with the list of connections.
    Conns,
    /// Reply with the counters of all prefixes.
    Prefixes,
}

/// What one shard asks of another.
#[derive(Clone, Copy, Debug)]
pub enum CacheAsk {
    /// Carry out a command on a key, with its value.
    Execute(CommandHead),
    /// Delete the key: a write to it was refused, and its old value would be stale.
    Unlink {
        /// The key is sent in base64.
        base64: bool,
    },
    /// Open the upload of a value. Its bytes follow in pieces. Never answered.
    UploadBegin {
        /// Bytes of the value.
        value_len: u32,
    },
    /// Append a piece to the upload. Never answered.
    UploadPiece,
    /// Carry out the command with the value that was uploaded.
    UploadCommit(CommandHead),
    /// Drop the upload. Never answered.
    UploadAbort,
}

/// What every shard is asked to do at the same point of a connection's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheBroadcast {
    /// Have every item that is stored now expire at this second.
    Flush {
        /// Unix seconds.
        at_s: u32,
    },
    /// Set the memory limit of the slice.
    MemoryLimit {
        /// Bytes for each slice.
        bytes: usize,
    },
    /// Reset the counters to 0.
    ResetCounters,
    /// List some of the shard's items for `stats cachedump`.
    ListSomeItems {
        /// Most items to list.
        limit: u32,
    },
    /// Make a piece of a list of all items. Only one shard is asked at a time.
    ListItemsPiece {
        /// Cursor of the piece.
        from: u64,
        /// The format of the list.
        list: ItemList,
    },
    /// List the shard's connections.
    ListConns,
    /// List the shard's counters by prefix.
    ListPrefixes,
    /// Begin or stop to count by prefix.
    CountPrefixes {
        /// Whether to count from now on.
        on: bool,
    },
}

/// A connection of any shard: the shard that accepted it, and its id there.
pub(crate) type Client = (usize, ConnId);
