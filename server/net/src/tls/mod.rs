//! TLS with clients, and of a proxy with its destinations: a driver over another driver, so that shards and
//! sessions see plain bytes, and a server without TLS runs none of this.
//!
//! ```text
//! driver            decrypts what comes and encrypts what goes, once a turn for each connection
//! connection        the state of one secured connection
//! certificates      what a server shows to clients, and reads again on demand; control threads alone do that
//! follow            reads the certificates again when their files change
//! trust             what a client needs to know of servers; reloadable_trust reads that again
//! accept_any        a verifier that takes any certificate, for health checks on the same machine
//! options, ciphers  what an operator may set
//! files, pem, der   reading files; private_key knows the kinds of keys, p521 signs with one of them
//! error             what is wrong with files and options
//! ```

mod accept_any;
mod certificates;
pub mod ciphers;
mod connection;
mod der;
mod driver;
mod error;
mod files;
pub mod follow;
mod options;
mod p521;
mod pem;
mod private_key;
mod reloadable_trust;
mod trust;

pub use certificates::{Certificates, TlsCounters};
pub use driver::{SecureDriver, TlsDriver};
pub use error::{Instead, TlsError, TlsFileError};
pub use options::{
    HANDSHAKE_TIMEOUT, HANDSHAKE_TIMEOUT_MS, KeyFormat, LEAST_VERSION, MIN_VERSIONS, TlsOptions, TlsShown,
    Usage, Verify,
};
pub use pem::PemError;
pub use reloadable_trust::ReloadableTrust;
pub use trust::{ClientTls, Trust, TrustOptions};
