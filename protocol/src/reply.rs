//! The reply of a destination, which a proxy reads and passes to its client.

use bytes::Bytes;

/// The reply to one command; of a retrieval, the reply to one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A retrieval found the key.
    Value {
        /// The number that a client stored with the value.
        client_flags: u32,
        /// The cas unique of the item: `gets` and `gats` only.
        cas_unique: Option<u64>,
        /// The value, without its CRLF.
        value: Bytes,
    },
    /// A retrieval did not find the key. On the wire this is the absence of a `VALUE` line.
    Miss,
    /// `STORED`
    Stored,
    /// `NOT_STORED`
    NotStored,
    /// `EXISTS`
    Exists,
    /// `NOT_FOUND`
    NotFound,
    /// `DELETED`
    Deleted,
    /// `TOUCHED`
    Touched,
    /// `OK`
    Done,
    /// The number after `incr` or `decr`.
    Number(u64),
    /// A reply to a meta command that is not an error.
    Meta {
        /// The line as received, without its line end: `HD`, `VA 5 s5`, `EN`, `NF`, `NS`, `EX`, `MN`, `ME key
        /// ...`.
        line: Bytes,
        /// The value, without its CRLF: `VA` only.
        value: Option<Bytes>,
    },
    /// An error of the destination, or of the proxy on the way to it.
    Error {
        /// The class of the error, which routing decides by.
        kind: ErrorKind,
        /// The line that the client gets, without its line end: `SERVER_ERROR timeout`.
        line: Bytes,
    },
}

/// The classes of errors that routing tells apart. They are ordered from the mildest to the worst, for route
/// handles that answer with the worst of several replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// `SERVER_ERROR 307`: the destination has too much to do.
    Busy,
    /// The destination did not answer in time.
    Timeout,
    /// The destination did not accept the connection in time.
    ConnectTimeout,
    /// The connection to the destination failed.
    Connect,
    /// The destination is ejected: it gets no traffic for now.
    Ejected,
    /// `SERVER_ERROR 301`: the destination is shutting down.
    Shutdown,
    /// `SERVER_ERROR 302`: the destination asks to try again.
    TryAgain,
    /// The key cannot be sent to the destination.
    BadKey,
    /// Any other `SERVER_ERROR` from the destination.
    Remote,
    /// An error of the proxy itself: there is no destination, or a limit was reached.
    Local,
    /// `CLIENT_ERROR` or `ERROR` from the destination.
    Client,
}
