//! TLS towards clients, and of a proxy towards its destinations: a driver over another driver, so that shards and sessions see plain bytes and a server without
//! TLS runs none of this.
//!
//! `driver` decrypts what comes and encrypts what goes, once a turn and connection; `connection` is one client's state;
//! `certificates` reads the files and reads them again on demand, on control threads alone, `follow` when they change; `trust` is what a proxy
//! needs to know of its destinations, `trusted` reads that again; `anybody` is who a probe trusts.

mod anybody;
pub mod certificates;
pub mod ciphers;
mod connection;
pub mod driver;
mod files;
pub mod follow;
mod options;
pub mod trust;
mod trusted;

pub use certificates::Certificates;
pub use driver::{SecureDriver, Tls};
pub use options::{
    HANDSHAKE_TIMEOUT, HANDSHAKE_TIMEOUT_MS, KeyFormat, LEAST_VERSION, MIN_VERSIONS, TlsOptions, TlsShown,
    Usage, Verify,
};
pub use trust::{Secure, Trust, TrustOptions};
pub use trusted::Trusted;
