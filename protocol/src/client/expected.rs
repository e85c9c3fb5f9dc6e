//! What may answer a command.

use crate::{Command, MetaVerb};

/// The replies a command may get, besides `ERROR`, `CLIENT_ERROR` and `SERVER_ERROR`, which may answer any. A reply to
/// something else means that the connection lost its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A retrieval: a `VALUE` for each key that is there, in the order they were asked for, and `END`.
    Values {
        /// `gets`, `gats`: the cas unique is shown.
        with_cas: bool,
    },
    /// `STORED`, `NOT_STORED`, `EXISTS`, `NOT_FOUND`
    Store,
    /// `DELETED`, `NOT_FOUND`
    Delete,
    /// A number, or `NOT_FOUND`
    Number,
    /// `TOUCHED`, `NOT_FOUND`
    Touch,
    /// `OK`
    Done,
    /// `VERSION ...`, read as [`crate::Reply::Done`].
    Version,
    /// The reply to a meta command without `q`.
    Meta(MetaVerb),
    /// `MN`
    MetaNoop,
}

impl Expected {
    /// What answers `command`; `None` for those that a proxy does not send on: their answer is no single reply.
    #[inline]
    #[must_use]
    pub fn of(command: &Command) -> Option<Self> {
        Some(match command {
            Command::Retrieve(retrieve) => Self::Values { with_cas: retrieve.with_cas },
            Command::Store(_) => Self::Store,
            Command::Delete(_) => Self::Delete,
            Command::Arithmetic(_) => Self::Number,
            Command::Touch(_) => Self::Touch,
            Command::Meta(meta) => Self::Meta(meta.verb),
            Command::MetaNoop => Self::MetaNoop,
            Command::FlushAll { .. } | Command::Verbosity { .. } => Self::Done,
            Command::Version => Self::Version,
            Command::Quit
            | Command::Stats { .. }
            | Command::Shutdown { .. }
            | Command::CacheMemlimit { .. }
            | Command::Admin { .. }
            | Command::Binary(_)
            | Command::BinaryControl(_) => return None,
        })
    }

    /// Whether a value goes with the command. A server that refuses such a line may take the value for commands, so
    /// that nothing it sends from then on can be told from an answer.
    #[inline]
    #[must_use]
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Store | Self::Meta(MetaVerb::Set))
    }
}
