//! Certificates made for one test, and clients that trust them.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::Folder;

/// An authority that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate and its key.
pub struct Identity {
    /// The certificate, as DER.
    pub certificate: CertificateDer<'static>,
    /// The certificate, as PEM.
    pub certificate_pem: String,
    /// Its private key, as PEM.
    pub key_pem: String,
    key: KeyPair,
}

impl Authority {
    /// Makes an authority with a new key.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, certificate) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), certificate, pem }
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a certificate for `localhost` that servers and clients may use.
    pub fn sign(&self) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key_pem: key.serialize_pem(),
            key,
        }
    }

    /// The configuration of a client that trusts the authority, offers these versions, and shows `identity`
    /// if asked.
    pub fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![identity.certificate.clone()], key).unwrap()
            }
        })
    }
}

impl Identity {
    /// Writes it to `chain.pem` and `key.pem` in `folder`. Returns the value of `-o` that uses these files.
    pub fn install(&self, folder: &Folder) -> String {
        let (chain, key) = (folder.file("chain.pem"), folder.file("key.pem"));
        // A reload between the two writes would find a pair that does not fit, and keep the old one.
        std::fs::write(&key, &self.key_pem).unwrap();
        std::fs::write(&chain, &self.certificate_pem).unwrap();
        format!("ssl_chain_cert={},ssl_key={}", chain.display(), key.display())
    }

    /// The private key, as DER.
    pub fn key_der(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    /// The files of a Secret with it, under the names of [`Identity::install`].
    pub fn secret(&self) -> [(&str, &str); 2] {
        [("chain.pem", &self.certificate_pem), ("key.pem", &self.key_pem)]
    }
}
