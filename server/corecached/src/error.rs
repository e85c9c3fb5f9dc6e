//! Why a server does not start, or ends early.

use std::io;

use corecached_net::granted::UringRefused;
use corecached_shard::ConfigError;

/// `EX_OSERR` of sysexits: what memcached exits with when it cannot listen.
pub(crate) const EX_OSERR: u8 = 71;

/// Why a server does not start, or ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The process cannot go to the background.
    #[error("-d: the process cannot go to the background: {0}; leave -d out")]
    Daemon(io::Error),
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for: {0}")]
    Signals(io::Error),
    /// A shard ended while the server ran.
    #[error("a shard ended: {0}")]
    Shard(io::Error),
    /// A graceful stop could not save the contents.
    #[error("-e: contents are not kept: the lines above say why")]
    NotKept,
}

impl StartError {
    /// The exit code of the process.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(error) => error.exit_code,
            Self::Daemon(_) | Self::Signals(_) | Self::Shard(_) | Self::NotKept => EX_OSERR,
        }
    }
}

/// Why the shards of a server cannot be launched on one backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// A listening socket cannot be shared with a shard.
    #[error("a listening socket cannot be duplicated: {0}")]
    Socket(io::Error),
    /// The thread of a shard cannot be started.
    #[error("{0}")]
    Host(String),
    /// glommio cannot host a shard.
    #[error(transparent)]
    Executor(corecached_shard::host_glommio::ExecutorError),
    /// The kernel does not let this process use io_uring.
    #[error(transparent)]
    Uring(#[from] UringRefused),
    /// A store cannot be made, for want of memory or because its settings do not fit.
    #[error("{0}")]
    Store(corecached_engine::ConfigError),
    /// The network driver of a shard cannot be made.
    #[error("{0}")]
    Driver(io::Error),
    /// The file in which contents outlive a restart cannot be written.
    #[error("-e: {0}")]
    Warm(io::Error),
    /// The thread of a shard ended before it had reported.
    #[error("a shard ended at start")]
    Ended,
}
