//! What a destination answers, read by a proxy and written on to its client.

use bytes::Bytes;

/// A reply to one command; to a retrieval, what came back for one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A retrieval found the key.
    Value {
        /// Opaque to all but the client.
        client_flags: u32,
        /// `gets`, `gats`
        cas_unique: Option<u64>,
        /// Without its CRLF.
        value: Bytes,
    },
    /// A retrieval did not find the key: no line says so.
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
    /// `incr`, `decr`: the number now.
    Number(u64),
    /// A reply to a meta command.
    Meta {
        /// As received, without its line end: `HD`, `VA 5 s5`, `EN`, `NF`, `NS`, `EX`, `MN`, `ME key ...`.
        line: Bytes,
        /// `VA` only; without its CRLF.
        value: Option<Bytes>,
    },
    /// Something went wrong, there or on the way.
    Error {
        /// What, as far as routing cares.
        kind: ErrorKind,
        /// What the client is told, without its line end: `SERVER_ERROR timeout`.
        line: Bytes,
    },
}

/// Classes of errors that routing tells apart, from the mildest to the gravest for "the worst of several replies".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// `307`: too much to do.
    Busy,
    /// No answer in time.
    Timeout,
    /// No connection in time.
    ConnectTimeout,
    /// No connection.
    Connect,
    /// The destination gets no traffic for now.
    Ejected,
    /// `301`: it is going away.
    Shutdown,
    /// `302`
    TryAgain,
    /// The key cannot be sent.
    BadKey,
    /// `SERVER_ERROR` from the destination.
    Remote,
    /// Ours: no destination, a limit reached.
    Local,
    /// `CLIENT_ERROR` or `ERROR` from the destination.
    Client,
}
