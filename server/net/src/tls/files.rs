//! Files with certificates and keys: read within a bound, taken apart, and compared with what they held
//! before.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{FILE_BYTES_MAX, TlsFileError};
use super::options::KeyFormat;

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
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsFileError::NoCertificate),
        Ok(found) => Ok(found),
        Err(error) => Err(TlsFileError::Certificates(error)),
    }
}

/// The private key in a file.
pub(super) fn key(bytes: Vec<u8>, format: KeyFormat) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    match format {
        KeyFormat::Pem => PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsFileError::NoKey,
            error => TlsFileError::PemKey(error),
        }),
        KeyFormat::Der => PrivateKeyDer::try_from(bytes).map_err(TlsFileError::DerKey),
    }
}
