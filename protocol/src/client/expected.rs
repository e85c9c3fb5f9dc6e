//! The kinds of replies that may answer a command.

use crate::{Command, MetaVerb};

/// The replies that a command may get, besides `ERROR`, `CLIENT_ERROR` and `SERVER_ERROR`, which may answer
/// any command. Any other reply means that commands and replies of the connection are no longer in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The replies to a retrieval: a `VALUE` for each key that was found, in the order of the request, and
    /// `END`.
    Values {
        /// Whether the cas unique is shown: `gets` and `gats`.
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
    /// `VERSION ...`, which is read as [`crate::Reply::Done`].
    Version,
    /// The reply to a meta command without `q`.
    Meta(MetaVerb),
    /// `MN`
    MetaNoop,
}

impl Expected {
    /// The replies that may answer `command`. `None` for commands that a proxy does not send to a
    /// destination, since they are not answered by exactly one reply of one of these kinds.
    #[inline]
    #[must_use]
    pub fn from_command(command: &Command) -> Option<Self> {
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

    /// Whether the command carries a value. A server that refuses the line of such a command may read the
    /// value as commands, and then nothing that it sends can be assigned to a command any more.
    #[inline]
    #[must_use]
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Store | Self::Meta(MetaVerb::Set))
    }
}
