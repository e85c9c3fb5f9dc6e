//! What connections to servers begin with: the authorities to trust, the name to expect, and the certificate
//! to show. Immutable: [`super::ReloadableTrust`] makes another one when files change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::accept_any::AcceptAnyCertificate;
use super::error::{TlsError, TlsFileError, of_flag};
use super::files::{certificates, identity as shown, key, read};
use super::options::KeyFormat;
use super::p521;

/// Where a [`Trust`] is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustOptions {
    /// Authorities of servers' certificates.
    pub authorities: PathBuf,
    /// The option that named them, for error messages.
    pub flag: &'static str,
    /// The files of a certificate and its key that servers are shown.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that certificates must bear; by default that of the host.
    pub name: Option<String>,
}

/// What connections to servers begin with.
#[derive(Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

/// What one connection to a server begins with.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// The authorities to trust, and the certificate to show.
    pub config: Arc<ClientConfig>,
    /// The name that the server's certificate must bear.
    pub name: ServerName<'static>,
}

impl Trust {
    /// Reads the files that `options` name.
    ///
    /// # Errors
    /// The file or name that cannot be used, and why.
    pub fn load(options: &TrustOptions) -> Result<Self, TlsError> {
        let authorities = of_flag(options.flag, &options.authorities);
        let mut roots = RootCertStore::empty();
        let pem = read(&options.authorities).map_err(&authorities)?;
        for certificate in certificates(&pem).map_err(&authorities)? {
            roots.add(certificate).map_err(|error| authorities(TlsFileError::Authority(error)))?;
        }
        let config = identified(builder()?.with_root_certificates(roots), options.identity.as_ref())?;
        let name = options.name.as_ref().map(|name| {
            let refused = |source| TlsError::ServerName { name: name.clone(), source };
            ServerName::try_from(name.clone()).map_err(refused)
        });
        Ok(Self { config: Arc::new(config), name: name.transpose()? })
    }

    /// Takes any certificate, and so is open to a server in the middle: only for a health check of a server
    /// on the same machine. `identity` as in [`TrustOptions`].
    ///
    /// # Errors
    /// As [`Trust::load`].
    pub fn insecure_accept_any(identity: Option<&(PathBuf, PathBuf)>) -> Result<Self, TlsError> {
        let algorithms = p521::provider().signature_verification_algorithms;
        let verifier = Arc::new(AcceptAnyCertificate::new(algorithms));
        let builder = builder()?.dangerous().with_custom_certificate_verifier(verifier);
        Ok(Self { config: Arc::new(identified(builder, identity)?), name: None })
    }

    /// What a connection to `host` begins with.
    ///
    /// # Errors
    /// When `host` is neither a name nor an address.
    pub fn for_host(&self, host: &str) -> io::Result<ClientTls> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.trim_end_matches('.').to_owned()).map_err(io::Error::other)?,
        };
        Ok(ClientTls { config: Arc::clone(&self.config), name })
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(Arc::new(p521::provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Client)
}

/// Adds the certificate that servers are shown, if there is one.
fn identified(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, TlsError> {
    let Some((chain_path, key_path)) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain_error = of_flag("--pem-cert-path", chain_path);
    let chain = read(chain_path).and_then(|pem| certificates(&pem)).map_err(&chain_error)?;
    let key_error = of_flag("--pem-key-path", key_path);
    let key = read(key_path).and_then(|bytes| key(&bytes, KeyFormat::Pem)).map_err(&key_error)?;
    Ok(builder.with_client_cert_resolver(shown(chain, chain_error, &key, key_error)?))
}
