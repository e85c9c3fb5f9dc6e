//! Why a command that ends by itself fails.

use std::io;
use std::path::PathBuf;

use corecached_cache::UsersError;
use corecached_net::tls::TlsError;

/// Why `drain`, `healthcheck` or `seccomp-profile` fails: what was being done, to what, and the cause.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// A step of the exchange with the server failed.
    #[error("{target}: {step}: {source}")]
    Exchange {
        /// The address of the server, as it was given.
        target: String,
        /// The name of the step: `look up`, `connect`, `TLS`, `send` or `receive`.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The host of the server has no address.
    #[error("{target}: look up: no address")]
    NoAddress {
        /// The address of the server, as it was given.
        target: String,
    },
    /// The admin server did not accept the request.
    #[error("{target}: receive: {status:?} is not success")]
    Status {
        /// The address of the admin server.
        target: String,
        /// The first line of the response.
        status: String,
    },
    /// The server sent another line than the one that was expected.
    #[error("{target}: receive: {line:?} instead of {expected:?}")]
    Reply {
        /// The address of the server, as it was given.
        target: String,
        /// The line that was received.
        line: String,
        /// The line that was expected.
        expected: String,
    },
    /// The file of `--auth-file` cannot be used.
    #[error("--auth-file {}: {source}", file.display())]
    Users {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: UsersError,
    },
    /// A certificate or key that was given cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The host of the server cannot be the name of a certificate.
    #[error("{target}: {source}")]
    ServerName {
        /// The address of the server, as it was given.
        target: String,
        /// What is wrong with the host.
        source: io::Error,
    },
    /// The profile cannot be printed.
    #[error("print: {0}")]
    Print(#[source] io::Error),
    /// Signals cannot be waited for.
    #[error("signals: {0}")]
    Signals(#[source] io::Error),
    /// The profile cannot be installed.
    #[error("--install {}: {source}", file.display())]
    Install {
        /// The file that was to be written.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CommandError {
    /// Makes an error of a step of the exchange with the server at `target` from its cause.
    pub(crate) fn exchange(target: &str, step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Exchange { target: target.to_owned(), step, source }
    }
}
