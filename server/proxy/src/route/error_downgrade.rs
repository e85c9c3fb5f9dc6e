//! What a client gets in place of an error.

use corecached_protocol::{ErrorKind, Reply};

use crate::upstream::failure;

/// The error downgrade of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorDowngrade {
    /// The client gets the error.
    None,
    /// The client is told that there was one, not which (`--group-remote-errors`).
    Grouped,
    /// A retrieval that failed is answered as if the key were not there.
    Miss,
    /// Arithmetic that failed is answered `NOT_FOUND`.
    NotFound,
}

impl ErrorDowngrade {
    /// What the client gets for `reply`.
    #[must_use]
    pub fn apply(self, reply: Reply) -> Reply {
        match (self, &reply) {
            // A mistake of the client's, which a miss would hide for ever.
            (_, Reply::Error { kind: ErrorKind::BadKey, .. }) => reply,
            (Self::Grouped, Reply::Error { .. }) => failure(ErrorKind::Remote),
            (Self::Miss, Reply::Error { .. }) => Reply::Miss,
            (Self::NotFound, Reply::Error { .. }) => Reply::NotFound,
            _ => reply,
        }
    }
}
