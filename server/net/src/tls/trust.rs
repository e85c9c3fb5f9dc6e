//! What connections to servers begin with: whom to trust, by what name, and what to show. Immutable: `trusted`
//! makes another one when files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::anybody::Anybody;
use super::certificates::{certificates, key};
use super::files::read;
use super::options::KeyFormat;

/// Where it is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustOptions {
    /// Authorities of servers' certificates.
    pub authorities: PathBuf,
    /// What the option is called that named them.
    pub flag: &'static str,
    /// What servers are shown: a certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that certificates must bear; by default that of the server.
    pub name: Option<String>,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

/// What one connection begins with.
#[derive(Clone, Debug)]
pub struct Secure {
    /// Whom to trust, and what to show.
    pub config: Arc<ClientConfig>,
    /// The name that the certificate must bear.
    pub name: ServerName<'static>,
}

impl Trust {
    /// What `options` name.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(options: &TrustOptions) -> Result<Self, String> {
        let authorities = named(options.flag, &options.authorities);
        let mut roots = RootCertStore::empty();
        let pem = read(&options.authorities).map_err(&authorities)?;
        for certificate in certificates(&pem).map_err(&authorities)? {
            roots.add(certificate).map_err(|error| authorities(error.to_string()))?;
        }
        let config = identified(builder()?.with_root_certificates(roots), options.identity.as_ref())?;
        let name = options.name.as_ref().map(|name| ServerName::try_from(name.clone())).transpose();
        let name = name.map_err(|error| {
            format!("--ssl-server-name {}: {error}", options.name.as_deref().unwrap_or_default())
        })?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// Everybody, whatever certificate is shown: for a look at a server on the same machine. `identity` as in
    /// [`TrustOptions`].
    ///
    /// # Errors
    /// As [`Trust::load`].
    pub fn anybody(identity: Option<&(PathBuf, PathBuf)>) -> Result<Self, String> {
        let verifier = Arc::new(Anybody::new(ring::default_provider().signature_verification_algorithms));
        let builder = builder()?.dangerous().with_custom_certificate_verifier(verifier);
        Ok(Self { config: Arc::new(identified(builder, identity)?), name: None })
    }

    /// For a connection to `host`.
    ///
    /// # Errors
    /// It is neither a name nor an address.
    pub fn towards(&self, host: &str) -> io::Result<Secure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.trim_end_matches('.').to_owned()).map_err(io::Error::other)?,
        };
        Ok(Secure { config: Arc::clone(&self.config), name })
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

fn named(flag: &'static str, path: &Path) -> impl Fn(String) -> String {
    let path = path.display().to_string();
    move |error: String| format!("{flag} {path}: {error}")
}

/// With what servers are shown.
fn identified(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, String> {
    let Some((chain_path, key_path)) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain_error = named("--pem-cert-path", chain_path);
    let chain = read(chain_path).and_then(|pem| certificates(&pem)).map_err(&chain_error)?;
    let key = read(key_path).and_then(|bytes| key(bytes, KeyFormat::Pem));
    let key = key.map_err(named("--pem-key-path", key_path))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| chain_error(error.to_string()))
}
