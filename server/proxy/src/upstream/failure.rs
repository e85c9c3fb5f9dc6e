//! The error replies that a client gets in place of the reply of a destination.

use bytes::Bytes;
use corecached_protocol::{ErrorKind, Reply};

/// Why a destination was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EjectionReason {
    /// It left too many requests in a row without a reply.
    Timeout,
    /// It did not take a connection in time.
    ConnectTimeout,
    /// It refused a connection.
    Connect,
    /// It answered that it is shutting down.
    Shutdown,
}

impl EjectionReason {
    /// Whether a single failure ejects.
    #[must_use]
    pub(crate) const fn is_hard(self) -> bool {
        !matches!(self, Self::Timeout)
    }

    /// The reply to a request for a destination ejected for this.
    #[must_use]
    pub(crate) const fn reply(self) -> Reply {
        let line: &[u8] = match self {
            Self::Timeout => b"SERVER_ERROR Server unavailable. Reason: timeout",
            Self::ConnectTimeout => b"SERVER_ERROR Server unavailable. Reason: connection timeout",
            Self::Connect => b"SERVER_ERROR Server unavailable. Reason: connection error",
            Self::Shutdown => b"SERVER_ERROR Server unavailable. Reason: shutdown",
        };
        Reply::Error { kind: ErrorKind::Ejected, line: Bytes::from_static(line) }
    }
}

/// The reply to a get that a slow destination refuses, so that another one is asked.
#[must_use]
pub(crate) const fn slow() -> Reply {
    let line: &[u8] = b"SERVER_ERROR 307 busy: the server is slow (adaptive_concurrency)";
    Reply::Error { kind: ErrorKind::Busy, line: Bytes::from_static(line) }
}

/// The reply for a request that failed with `kind`, worded as mcrouter words it.
#[must_use]
pub(crate) const fn failure(kind: ErrorKind) -> Reply {
    let line: &[u8] = match kind {
        ErrorKind::Busy => b"SERVER_ERROR 307 busy",
        ErrorKind::Timeout => b"SERVER_ERROR timeout",
        ErrorKind::ConnectTimeout => b"SERVER_ERROR connection timeout",
        ErrorKind::Connect => b"SERVER_ERROR connection error",
        ErrorKind::Ejected => b"SERVER_ERROR unavailable",
        ErrorKind::Shutdown => b"SERVER_ERROR 301 shutdown",
        ErrorKind::TryAgain => b"SERVER_ERROR 302 try again",
        ErrorKind::BadKey => b"CLIENT_ERROR bad key",
        ErrorKind::Remote => b"SERVER_ERROR remote error",
        ErrorKind::Local => b"SERVER_ERROR local error",
        ErrorKind::Client => b"CLIENT_ERROR malformed request",
    };
    Reply::Error { kind, line: Bytes::from_static(line) }
}
