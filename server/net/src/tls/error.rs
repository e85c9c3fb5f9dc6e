//! Why TLS cannot be set up: what was being done, and the reason.

use std::path::Path;
use std::{fmt, io};

use rustls::pki_types::InvalidDnsNameError;
use rustls::server::VerifierBuilderError;

use super::der::{Reader, SEQUENCE};
use super::pem::PemError;

/// Longest file, bytes: hundreds of certificates.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// The number that PKCS#12 begins with. Keys begin with 0 or 1.
const PKCS12_VERSION: u8 = 3;

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
    /// It is not PEM.
    #[error("not PEM: {0}")]
    Pem(#[source] PemError),
    /// It holds no certificate.
    #[error("no certificate is in it: {instead}{}", instead.remedy("openssl x509"))]
    NoCertificate {
        /// What it is instead.
        instead: Instead,
    },
    /// What it holds as a certificate is none.
    #[error("what is in it as a certificate is none: make the file anew")]
    NotCertificate,
    /// It holds no private key.
    #[error("no private key is in it: {instead}{}", instead.remedy("openssl pkey"))]
    NoKey {
        /// What it is instead.
        instead: Instead,
    },
    /// What it holds as a private key is none.
    #[error("what is in it as a private key is none: make the file anew")]
    NotKey,
    /// It is text, and was said to be DER.
    #[error("the key is PEM and not DER: leave ssl_keyformat out")]
    NotDer,
    /// The key is encrypted.
    #[error(
        "the key has a passphrase, and the server does not ask for it: `openssl pkey -in FILE -out NEW` removes it"
    )]
    Passphrase,
    /// The key is of a kind that cannot be used.
    #[error(
        "{found} cannot be used: make one of RSA with 2048, 3072 or 4096 bits, P-256, P-384, P-521 or Ed25519, \
         and a certificate for it"
    )]
    Unsupported {
        /// Its kind, with `a` or `an`.
        found: String,
    },
    /// The key is that of another certificate.
    #[error("the key is of another certificate: name the key and the certificate that were made together")]
    NotOfCertificate,
    /// The key is that of a later certificate in the file.
    #[error(
        "the key is of certificate {number} in the file: put that first, and those that signed it after it"
    )]
    Order {
        /// Its number, from 1.
        number: usize,
    },
    /// It holds a certificate that cannot be an authority's.
    #[error("{0}")]
    Authority(#[source] rustls::Error),
}

/// What a file without a certificate or key is instead.
#[derive(Debug)]
pub enum Instead {
    /// Empty.
    Empty,
    /// A certificate or key that is not PEM.
    Der,
    /// A key and certificates, encrypted together.
    Pkcs12,
    /// Text of two bytes a letter.
    Utf16,
    /// PEM of other things, as labelled; none when it is anything else.
    Labels(Vec<String>),
}

impl Instead {
    /// What `file` is, which has sections of these labels.
    pub(super) fn new(file: &[u8], labels: impl Iterator<Item = String>) -> Self {
        let version = Reader(file).inner(SEQUENCE).map(|mut fields| fields.integer());
        match (file, version) {
            ([], _) => Self::Empty,
            ([0xfe, 0xff, ..] | [0xff, 0xfe, ..], _) => Self::Utf16,
            (_, Some(Some([PKCS12_VERSION]))) => Self::Pkcs12,
            (_, Some(_)) => Self::Der,
            _ => Self::Labels(labels.collect()),
        }
    }

    /// What to do about it, with the `program` that converts what was looked for.
    fn remedy(&self, program: &str) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Der => format!(": `{program} -inform DER -in FILE -out NEW` converts it"),
            Self::Pkcs12 => ": `openssl pkcs12 -nodes -in FILE -out NEW` converts it".to_owned(),
            Self::Utf16 => ": save it as ASCII or UTF-8".to_owned(),
            Self::Labels(_) => ": name a PEM file with one".to_owned(),
        }
    }
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Der => f.write_str("it is DER and not PEM"),
            Self::Pkcs12 => f.write_str("it is PKCS#12 and not PEM"),
            Self::Utf16 => f.write_str("it is UTF-16 text"),
            Self::Labels(labels) if labels.is_empty() => f.write_str("it is not PEM"),
            Self::Labels(labels) => write!(f, "there is only {}", labels.join(", ")),
        }
    }
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
        let no_key = |file: &[u8]| TlsFileError::NoKey { instead: Instead::new(file, std::iter::empty()) };
        let cases = [
            (
                of_suboption("ssl_key", path)(TlsFileError::Unsupported { found: "an Ed448 key".into() }),
                "-o ssl_key=/run/x.pem: an Ed448 key cannot be used: make one of RSA with 2048, 3072 or 4096 bits, \
                 P-256, P-384, P-521 or Ed25519, and a certificate for it",
            ),
            (
                of_suboption("ssl_key", path)(no_key(b"0\x03\x02\x01\x00")),
                "-o ssl_key=/run/x.pem: no private key is in it: it is DER and not PEM: \
                 `openssl pkey -inform DER -in FILE -out NEW` converts it",
            ),
            (
                of_suboption("ssl_key", path)(no_key(b"0\x03\x02\x01\x03")),
                "-o ssl_key=/run/x.pem: no private key is in it: it is PKCS#12 and not PEM: \
                 `openssl pkcs12 -nodes -in FILE -out NEW` converts it",
            ),
            (
                of_suboption("ssl_key", path)(no_key(b"\xff\xfe-\0")),
                "-o ssl_key=/run/x.pem: no private key is in it: it is UTF-16 text: save it as ASCII or UTF-8",
            ),
            (
                of_suboption("ssl_key", path)(no_key(b"")),
                "-o ssl_key=/run/x.pem: no private key is in it: it is empty",
            ),
            (
                of_suboption("ssl_key", path)(no_key(b"text")),
                "-o ssl_key=/run/x.pem: no private key is in it: it is not PEM: name a PEM file with one",
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
                of_suboption("ssl_chain_cert", path)(TlsFileError::NoCertificate {
                    instead: Instead::Labels(vec!["PUBLIC KEY".into(), "PRIVATE KEY".into()]),
                }),
                "-o ssl_chain_cert=/run/x.pem: no certificate is in it: there is only PUBLIC KEY, PRIVATE KEY: \
                 name a PEM file with one",
            ),
            (TlsError::NoAuthorities, "-o ssl_ca_cert: name a file of authorities"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
