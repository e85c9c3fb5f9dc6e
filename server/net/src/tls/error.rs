//! Why TLS cannot be set up: what was being done, and the reason.

use std::io;
use std::path::Path;

use rustls::pki_types::{InvalidDnsNameError, pem};
use rustls::server::VerifierBuilderError;

/// Longest file, bytes: hundreds of certificates.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{setting}: {source}")]
    File {
        /// The option that names the file, with its value, as it was given.
        setting: String,
        /// What is wrong with the file.
        source: TlsFileError,
    },
    /// Clients are to show certificates, and no file of authorities is named.
    #[error("-o ssl_ca_cert: name a file of authorities")]
    NoAuthorities,
    /// The authorities cannot verify clients.
    #[error("-o ssl_ca_cert: {0}")]
    ClientVerifier(#[source] VerifierBuilderError),
    /// The cipher suites and versions do not go together.
    #[error("-o ssl_ciphers: {0}")]
    Versions(#[source] rustls::Error),
    /// A list of ciphers allows no suite that exists here.
    #[error("name at least one suite of {known}, or HIGH for all of them")]
    NoSuite {
        /// The names of the suites that exist, as such a list.
        known: String,
    },
    /// The name that certificates of servers must bear is none.
    #[error("--ssl-server-name {name}: {source}")]
    ServerName {
        /// The name, as it was given.
        name: String,
        /// What is wrong with it.
        source: InvalidDnsNameError,
    },
    /// No keys can be made to encrypt session tickets with.
    #[error("no keys for tickets: {0}")]
    TicketKeys(#[source] rustls::Error),
    /// The TLS library refuses its own default versions for connections to servers.
    #[error("{0}")]
    Client(#[source] rustls::Error),
}

/// Why a file of certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[source] io::Error),
    /// It is longer than any file of certificates.
    #[error("{len} bytes are too many: at most {FILE_BYTES_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: u64,
    },
    /// It holds no certificate.
    #[error("there is no certificate in PEM format in it")]
    NoCertificate,
    /// It is not PEM.
    #[error("not certificates in PEM format: {0}")]
    Certificates(#[source] pem::Error),
    /// It holds no private key that can be read.
    #[error("there is no private key in PEM format in it, at least none without a passphrase")]
    NoKey,
    /// It is not PEM.
    #[error("not a private key in PEM format: {0}")]
    PemKey(#[source] pem::Error),
    /// It is not a private key in DER.
    #[error("not a private key: {0}")]
    DerKey(&'static str),
    /// It holds a certificate that cannot be an authority's.
    #[error("{0}")]
    Authority(#[source] rustls::Error),
    /// The key is not that of the server's certificate.
    #[error("not of the certificate: {0}")]
    Key(#[source] rustls::Error),
    /// The certificate cannot be shown with the key that belongs to it.
    #[error("{0}")]
    Identity(#[source] rustls::Error),
}

/// Adds to the error of a file the option that named it: `-o {option}={path}`.
pub(super) fn of_suboption(option: &'static str, path: &Path) -> impl Fn(TlsFileError) -> TlsError {
    move |source| TlsError::File { setting: format!("-o {option}={}", path.display()), source }
}

/// Adds to the error of a file the option that named it: `{flag} {path}`.
pub(super) fn of_flag(flag: &'static str, path: &Path) -> impl Fn(TlsFileError) -> TlsError {
    move |source| TlsError::File { setting: format!("{flag} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_option_as_it_was_given_and_the_reason() {
        let path = Path::new("/run/x.pem");
        let cases = [
            (
                of_suboption("ssl_key", path)(TlsFileError::NoKey),
                "-o ssl_key=/run/x.pem: there is no private key in PEM format in it, \
                 at least none without a passphrase",
            ),
            (
                of_flag("--pem-ca-path", path)(TlsFileError::TooLong { len: 1_048_577 }),
                "--pem-ca-path /run/x.pem: 1048577 bytes are too many: at most 1048576",
            ),
            (
                of_flag("--pem-cert-path", path)(TlsFileError::Read(io::Error::from_raw_os_error(2))),
                "--pem-cert-path /run/x.pem: No such file or directory (os error 2)",
            ),
            (
                of_suboption("ssl_chain_cert", path)(TlsFileError::NoCertificate),
                "-o ssl_chain_cert=/run/x.pem: there is no certificate in PEM format in it",
            ),
            (TlsError::NoAuthorities, "-o ssl_ca_cert: name a file of authorities"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
