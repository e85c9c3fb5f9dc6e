//! The options of TLS, for connections of clients and for connections to destinations.

use std::time::Duration;

use super::checked::number;
use super::{EX_VALUE, ProxyArgs};
use corecached_net::tls::{HANDSHAKE_TIMEOUT_MS, ReloadableTrust, TlsOptions, TrustOptions, Verify};
use corecached_shard::ConfigError;

impl ProxyArgs {
    /// The TLS options of connections of clients to `--ssl-port`; `None` without such a port.
    pub(super) fn tls_of_clients(&self) -> Result<Option<TlsOptions>, ConfigError> {
        let (least, most) = HANDSHAKE_TIMEOUT_MS.into_inner();
        let handshake_ms = number("--ssl-handshake-timeout-ms", &self.ssl_handshake_timeout_ms, least, most)?;
        let Some(first) = self.ssl_port.first() else { return Ok(None) };
        let own = (&self.server_pem_cert_path, &self.server_pem_key_path);
        let (chain, key) = if own.0.is_some() { own } else { (&self.pem_cert_path, &self.pem_key_path) };
        let Some(chain) = chain else {
            let remedy =
                "name the certificate for it: --server-pem-cert-path FILE, and --server-pem-key-path FILE";
            return Err(ConfigError::new("--ssl-port", first, remedy, EX_VALUE));
        };
        let verify = if self.ssl_require_peer_certs { Verify::Require } else { Verify::No };
        if verify == Verify::Require && self.pem_ca_path.is_none() {
            let remedy = "name the authorities of clients' certificates: --pem-ca-path FILE";
            return Err(ConfigError::new("--ssl-require-peer-certs", "", remedy, EX_VALUE));
        }
        let authorities = self.pem_ca_path.clone().filter(|_| verify == Verify::Require);
        Ok(Some(TlsOptions {
            handshake_timeout: Duration::from_millis(handshake_ms),
            watch: true,
            ..TlsOptions::from_files(chain.clone(), key.clone(), authorities, verify)
        }))
    }

    /// How destinations with `use_ssl` are verified; `None` without `--pem-ca-path`.
    pub(super) fn trusted(&self) -> Result<Option<ReloadableTrust>, ConfigError> {
        let Some(authorities) = self.pem_ca_path.clone() else { return Ok(None) };
        let identity = match (&self.pem_cert_path, &self.pem_key_path) {
            (Some(chain), Some(key)) => Some((chain.clone(), key.clone())),
            (None, None) => None,
            _ => {
                let remedy = "give both --pem-cert-path and --pem-key-path, or neither";
                return Err(ConfigError::new("--pem-cert-path", "", remedy, EX_VALUE));
            }
        };
        let name = self.ssl_server_name.clone();
        let options = TrustOptions { authorities, flag: "--pem-ca-path", identity, name };
        ReloadableTrust::load(options)
            .map(Some)
            .map_err(|error| ConfigError::new("TLS", "", &error.to_string(), EX_VALUE))
    }
}
