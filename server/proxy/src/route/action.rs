//! What an [`Execution`](super::Execution) tells its caller to do, and what bounds it.

use corecached_protocol::Reply;

use super::slab::SlotId;
use crate::request::{BadKey, OwnedRequest};

/// A request that was sent; its reply is brought back under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CallId(pub(super) SlotId);

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Send a request, and bring its reply to [`Execution::replied`](super::Execution::replied), once,
    /// whatever it is.
    Send {
        /// The name under which the reply is brought back.
        call: CallId,
        /// The destination, as [`Routes::place`](super::Routes::place) numbers it.
        place: u32,
        /// What is sent.
        request: OwnedRequest,
        /// After a reply of [`ErrorKind::Busy`](corecached_protocol::ErrorKind::Busy) another server would be
        /// asked, or no client would see it. Without that the destination must not refuse: the client would
        /// get the error.
        may_be_refused: bool,
    },
    /// The client's answer; exactly one for each [`Execution::begin`](super::Execution::begin).
    Answer {
        /// The number that `begin` was given.
        ticket: u64,
        /// The answer.
        reply: Reply,
    },
    /// A delete failed and is to be kept for later. `NOT_FOUND` to
    /// [`Execution::replied`](super::Execution::replied) says that it is kept, any error that it cannot be.
    Keep {
        /// The name under which the reply is brought back.
        call: CallId,
        /// The destination, as [`Routes::place`](super::Routes::place) numbers it.
        place: u32,
        /// The delete.
        request: OwnedRequest,
    },
}

/// What bounds an [`Execution`](super::Execution).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExecutionLimits {
    /// Most requests sent and not answered, and most that a handle holds back. Past it routes see
    /// `SERVER_ERROR 307 busy`.
    pub calls_max: usize,
    /// Most requests that wait at nodes of trees. Past it, the same.
    pub frames_max: usize,
    /// With this many requests sent and not answered, no copies are made for shadows.
    pub calls_with_shadows_max: usize,
}

impl Default for ExecutionLimits {
    fn default() -> Self {
        Self { calls_max: 1 << 17, frames_max: 1 << 16, calls_with_shadows_max: 1 << 14 }
    }
}

/// `request` as its destination sees it.
///
/// # Errors
/// The key is too long with its routing prefix.
pub(super) fn outgoing(request: OwnedRequest, keep_prefix: bool) -> Result<OwnedRequest, BadKey> {
    if keep_prefix && !request.prefix().is_empty() { request.join_prefix() } else { Ok(request) }
}
