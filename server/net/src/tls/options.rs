//! What a server that speaks TLS to its clients is told: files, versions, ciphers, and what clients must show.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::SupportedCipherSuite;

use super::ciphers;

/// A handshake takes a few round trips: ten seconds are enough over the slowest of networks, and few enough that clients
/// which never finish do not take all connections.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What it may be set to, milliseconds.
pub const HANDSHAKE_TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;

/// How connections of a listening socket are secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// Not at all: `notls:`, and everything without `-Z`.
    #[default]
    Plain,
    /// As `-o ssl_verify_mode` says.
    Default,
    /// Clients are not asked for certificates: `btls:`.
    Basic,
    /// Clients must show certificates: `mtls:`.
    Mutual,
}

/// As checked.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// The server's certificate and those between it and an authority's.
    pub chain: PathBuf,
    /// Its private key; `None` is in the same file.
    pub key: Option<PathBuf>,
    /// How the key is written.
    pub key_format: KeyFormat,
    /// Authorities of clients' certificates.
    pub authorities: Option<PathBuf>,
    /// What clients must show.
    pub verify: Verify,
    /// Remember sessions of clients that know no tickets.
    pub session_cache: bool,
    /// Ciphers, best first.
    pub suites: Vec<SupportedCipherSuite>,
    /// TLS 1.3 alone, not 1.2.
    pub only_13: bool,
    /// From connecting to the end of the handshake; past it the connection is closed.
    pub handshake_timeout: Duration,
    /// Read the files again when they change.
    pub watch: bool,
    /// What only `stats settings` shows.
    pub shown: TlsShown,
}

impl TlsOptions {
    /// With everything else as it is unless told otherwise.
    #[must_use]
    pub fn of_files(
        chain: PathBuf,
        key: Option<PathBuf>,
        authorities: Option<PathBuf>,
        verify: Verify,
    ) -> Self {
        Self {
            chain,
            key,
            key_format: KeyFormat::Pem,
            authorities,
            verify,
            session_cache: false,
            suites: ciphers::all(),
            only_13: false,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            watch: false,
            shown: TlsShown {
                verify_mode: 0,
                ciphers: None,
                wbuf_bytes: 16 << 10,
                min_version: LEAST_VERSION as usize,
            },
        }
    }

    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.chain).chain(&self.key).chain(&self.authorities).map(PathBuf::as_path)
    }
}

/// See [`TlsOptions::shown`].
#[derive(Clone, Debug)]
pub struct TlsShown {
    /// `ssl_verify_mode`
    pub verify_mode: u64,
    /// `ssl_ciphers`
    pub ciphers: Option<String>,
    /// `ssl_wbuf_size`, bytes.
    pub wbuf_bytes: u64,
    /// `ssl_min_version`
    pub min_version: usize,
}

/// How a private key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// In letters, between two lines that say what it is.
    Pem,
    /// In bytes.
    Der,
}

/// What clients must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing.
    No,
    /// A certificate that holds, or none.
    Ask,
    /// A certificate that holds.
    Require,
}

/// Names of `ssl_min_version`, as `stats settings` shows them.
pub const MIN_VERSIONS: [&str; 4] = ["tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3"];
/// The least that is spoken, whatever is asked for.
pub const LEAST_VERSION: u64 = 2;
