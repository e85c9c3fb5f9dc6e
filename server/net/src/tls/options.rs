//! How a server secures the connections of its clients: files, versions, ciphers, and what clients must show.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::SupportedCipherSuite;

use super::ciphers;

/// What a client has for its handshake by default. That takes a few round trips: ten seconds are enough over
/// the slowest of networks, and few enough that clients which never finish do not take all connections.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Milliseconds that [`TlsOptions::handshake_timeout`] may be set to.
pub const HANDSHAKE_TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;

/// How connections of a listening socket are secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// Not secured: `notls:`, and everything without `-Z`.
    #[default]
    Plain,
    /// As `-o ssl_verify_mode` says.
    Default,
    /// Clients are not asked for certificates: `btls:`.
    Basic,
    /// Clients must show certificates: `mtls:`.
    Mutual,
}

/// How a server secures the connections of its clients, checked.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// File of the server's certificate and those between it and an authority's.
    pub chain: PathBuf,
    /// File of its private key; `None` when that is in the same file.
    pub key: Option<PathBuf>,
    /// How the key is written.
    pub key_format: KeyFormat,
    /// File of the authorities that sign clients' certificates.
    pub authorities: Option<PathBuf>,
    /// What clients must show.
    pub verify: Verify,
    /// Whether sessions are remembered for clients that know no tickets.
    pub session_cache: bool,
    /// Cipher suites, best first.
    pub suites: Vec<SupportedCipherSuite>,
    /// Whether TLS 1.3 alone is spoken, and not 1.2.
    pub only_13: bool,
    /// From the connect to the end of the handshake; past it the connection is closed.
    pub handshake_timeout: Duration,
    /// Whether the files are read again when they change.
    pub watch: bool,
    /// Settings that have no effect but in `stats settings`.
    pub shown: TlsShown,
}

impl TlsOptions {
    /// These files and this verification, with the default of every other option.
    #[must_use]
    pub fn from_files(
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

    /// The files that are read, in the order of their options.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.chain).chain(&self.key).chain(&self.authorities).map(PathBuf::as_path)
    }
}

/// Settings that memcached has, and that are only shown here.
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
    /// Base64 between two lines that name what it is.
    Pem,
    /// Binary.
    Der,
}

/// Which certificates clients must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// None; they are not asked for one.
    No,
    /// None, or one that an authority has signed.
    Ask,
    /// One that an authority has signed.
    Require,
}

/// Names of `ssl_min_version`, as `stats settings` shows them.
pub const MIN_VERSIONS: [&str; 4] = ["tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3"];
/// Index in [`MIN_VERSIONS`] of the least version that is spoken, whatever is asked for.
pub const LEAST_VERSION: u64 = 2;
