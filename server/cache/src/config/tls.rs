//! The TLS settings: `-Z` and the `ssl_` suboptions of `-o`.

use std::path::PathBuf;
use std::time::Duration;

use corecached_net::tls::{
    HANDSHAKE_TIMEOUT, KeyFormat, LEAST_VERSION, MIN_VERSIONS, TlsOptions, TlsShown, Verify, ciphers,
};
use corecached_shard::ConfigError;

use super::CacheArgs;
use super::extended::Extended;

/// Exit code of a wrong value.
const EX_VALUE: u8 = 1;
/// Exit code of values that cannot be combined: `EX_USAGE` of sysexits.
const EX_USAGE: u8 = 64;

/// Checks the TLS settings. `None` without `-Z`. `mutual` says whether a listener requires client
/// certificates (`mtls:`).
///
/// # Errors
/// The first setting that cannot be used.
pub(super) fn check(
    args: &CacheArgs,
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
        // 3 is to ask only once on a connection, and this server never asks more often.
        _ if authorities.is_some() => Verify::Ask,
        mode => {
            tracing::warn!(
                "-o ssl_verify_mode={mode}: without ssl_ca_cert no client certificate can be verified, so none is requested"
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
    let suites = ciphers::parse(list.unwrap_or("DEFAULT")).map_err(|error| {
        ConfigError::new(
            "-o",
            &format!("ssl_ciphers={}", list.unwrap_or_default()),
            &error.to_string(),
            EX_USAGE,
        )
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
