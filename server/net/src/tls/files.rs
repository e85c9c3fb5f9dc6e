//! Files with certificates and keys: read within a bound, taken apart, and compared with what they held
//! before.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::der::Reader;
use super::error::{FILE_BYTES_MAX, Instead, TlsError, TlsFileError};
use super::options::KeyFormat;
use super::pem::sections;
use super::private_key::{PrivateKey, PublicKey};

/// Labels of certificates. After the last kind OpenSSL writes what it trusts the certificate for.
const CERTIFICATES: [&str; 3] = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
/// What labels of private keys end with.
const PRIVATE_KEY: &str = "PRIVATE KEY";

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let len = std::fs::metadata(path).map_err(TlsFileError::Read)?.len();
    if len > FILE_BYTES_MAX {
        return Err(TlsFileError::TooLong { len });
    }
    std::fs::read(path).map_err(TlsFileError::Read)
}

/// A hash of what the files hold, or of why one cannot be read.
pub(super) fn fingerprint<'a>(files: impl Iterator<Item = &'a Path>) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.for_each(|file| read(file).map_err(|error| error.to_string()).hash(&mut hasher));
    hasher.finish()
}

/// The certificates in a file, at least one.
pub(super) fn certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let sections = sections(file).map_err(TlsFileError::Pem)?;
    let mut found = Vec::new();
    for section in sections.iter().filter(|section| CERTIFICATES.contains(&&*section.label)) {
        let der = section.decode().map_err(TlsFileError::Pem)?;
        let certificate = Reader(&der).whole().ok_or(TlsFileError::NotCertificate)?;
        found.push(CertificateDer::from(certificate.to_vec()));
    }
    if found.is_empty() {
        let instead = Instead::new(file, sections.into_iter().map(|section| section.label));
        return Err(TlsFileError::NoCertificate { instead });
    }
    Ok(found)
}

/// The private key in a file: the first, if there are several.
pub(super) fn key(file: &[u8], format: KeyFormat) -> Result<PrivateKey, TlsFileError> {
    if format == KeyFormat::Der {
        let text = file.windows(b"-----BEGIN".len()).any(|part| part == b"-----BEGIN");
        return PrivateKey::read(file).map_err(|error| if text { TlsFileError::NotDer } else { error });
    }
    let sections = sections(file).map_err(TlsFileError::Pem)?;
    match sections.iter().find(|section| section.label.ends_with(PRIVATE_KEY)) {
        Some(section) if section.encrypted => Err(TlsFileError::Passphrase),
        Some(section) => PrivateKey::read(&section.decode().map_err(TlsFileError::Pem)?),
        None => {
            let instead = Instead::new(file, sections.into_iter().map(|section| section.label));
            Err(TlsFileError::NoKey { instead })
        }
    }
}

/// A certificate to show, with those that signed it, and its key. `of_chain` and `of_key` add the options that
/// named the files.
pub(super) fn identity(
    chain: Vec<CertificateDer<'static>>,
    of_chain: impl Fn(TlsFileError) -> TlsError,
    key: &PrivateKey,
    of_key: impl Fn(TlsFileError) -> TlsError,
) -> Result<Arc<SingleCertAndKey>, TlsError> {
    let publics: Option<Vec<_>> = chain.iter().map(PublicKey::from_certificate).collect();
    let publics = publics.ok_or_else(|| of_chain(TlsFileError::NotCertificate))?;
    match key.signing_key(&publics[0]) {
        Ok(key) => Ok(Arc::new(CertifiedKey::new(chain, key).into())),
        Err(error) => match publics.iter().position(|public| key.signing_key(public).is_ok()) {
            Some(at) => Err(of_chain(TlsFileError::Order { number: at + 1 })),
            None => Err(of_key(error)),
        },
    }
}
