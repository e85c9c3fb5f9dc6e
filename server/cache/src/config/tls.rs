//! `-Z` and the `ssl_` suboptions of `-o`.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::SupportedCipherSuite;

use super::extended::Extended;
use super::{Args, ConfigError};
use crate::tls::ciphers;

/// Exit code of a wrong value.
const EX_VALUE: u8 = 1;
/// Exit code of values that do not go together, `EX_USAGE` of sysexits.
const EX_USAGE: u8 = 64;

/// A handshake takes a few round trips: ten seconds are enough over the slowest of networks, and few enough that clients
/// which never finish do not take all connections.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What it may be set to, milliseconds.
pub const HANDSHAKE_TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;

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
const LEAST_VERSION: u64 = 2;

/// What `-Z` and `-o` say of TLS; `None` without `-Z`. `mutual`: a listener wants certificates of clients.
///
/// # Errors
/// The first setting that cannot be used.
pub(super) fn check(
    args: &Args,
    extended: &Extended,
    mutual: bool,
) -> Result<Option<TlsOptions>, ConfigError> {
    if !args.enable_ssl {
        if let Some(name) = extended.names().find(|name| name.starts_with("ssl_")) {
            tracing::warn!("-o {name}: nothing is secured without -Z");
        }
        return Ok(None);
    }
    let path = |name| extended.value(name).map(PathBuf::from);
    let Some(chain) = path("ssl_chain_cert") else {
        let remedy = "name the server's certificate: -o ssl_chain_cert=FILE, and its key: ssl_key=FILE";
        return Err(ConfigError::new("-Z", "", remedy, EX_USAGE));
    };
    let key_format = match extended.value("ssl_keyformat").unwrap_or("1") {
        "1" | "PEM" => KeyFormat::Pem,
        "2" | "DER" => KeyFormat::Der,
        other => {
            let remedy = "give 1 for PEM or 2 for DER: keys of engines are not read";
            return Err(ConfigError::new("-o", &format!("ssl_keyformat={other}"), remedy, EX_VALUE));
        }
    };
    let verify_mode = extended.number("ssl_verify_mode").unwrap_or(0);
    let authorities = path("ssl_ca_cert");
    let verify = match verify_mode {
        0 => Verify::No,
        2 => Verify::Require,
        // 3 asks once a connection, which is all that is ever done.
        _ if authorities.is_some() => Verify::Ask,
        mode => {
            tracing::warn!(
                "-o ssl_verify_mode={mode}: without ssl_ca_cert no certificate of a client could hold good: none is asked for"
            );
            Verify::No
        }
    };
    if authorities.is_none() && (verify != Verify::No || mutual) {
        let (flag, value) = match mutual {
            true => ("-l", args.listen.join(",")),
            false => ("-o", format!("ssl_verify_mode={verify_mode}")),
        };
        let remedy = "name the authorities of clients' certificates: -o ssl_ca_cert=FILE";
        return Err(ConfigError::new(flag, &value, remedy, EX_USAGE));
    }
    let list = extended.value("ssl_ciphers");
    let suites = ciphers::parse(list.unwrap_or("DEFAULT")).map_err(|remedy| {
        ConfigError::new("-o", &format!("ssl_ciphers={}", list.unwrap_or_default()), &remedy, EX_USAGE)
    })?;
    let handshake_ms = extended.number("ssl_handshake_timeout_ms");
    let min_version = extended.number("ssl_min_version").unwrap_or(LEAST_VERSION);
    if min_version < LEAST_VERSION {
        let name = MIN_VERSIONS[min_version as usize];
        tracing::warn!("-o ssl_min_version={min_version}: {name} is not spoken, tlsv1.2 is the least");
    }
    Ok(Some(TlsOptions {
        chain,
        key: path("ssl_key"),
        key_format,
        authorities,
        verify,
        session_cache: extended.is_set("ssl_session_cache"),
        suites,
        only_13: min_version > LEAST_VERSION,
        handshake_timeout: handshake_ms.map_or(HANDSHAKE_TIMEOUT, Duration::from_millis),
        watch: extended.is_set("ssl_watch_certs"),
        shown: TlsShown {
            verify_mode,
            ciphers: list.map(str::to_owned),
            wbuf_bytes: extended.number("ssl_wbuf_size").unwrap_or(16) << 10,
            min_version: min_version as usize,
        },
    }))
}
