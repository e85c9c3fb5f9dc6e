//! What every server is configured with, cache or proxy, once it has been checked: nothing in [`ServerConfig`] is left to be
//! parsed or to be wrong.

use std::path::PathBuf;

use corecached_net::endpoints::{IoBackend, Listen};
use corecached_net::tls::TlsOptions;

use crate::error::ConfigError;
use crate::operation::Operation;

/// What every server is configured with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: Listen,
    /// The addresses were given, so that each of them must be had. Else those of a family that this machine has not are
    /// left out.
    pub listen_is_given: bool,
    /// Most connections at once, over all shards.
    pub connections_max: usize,
    /// Length of each accept queue.
    pub listen_backlog: i32,
    /// Shards, if the command line says how many.
    pub shards: Option<usize>,
    /// How to reach the network.
    pub io_backend: IoBackend,
    /// TLS towards clients.
    pub tls: Option<TlsOptions>,
    /// Seconds after which a connection that says nothing is closed; 0 is never.
    pub idle_timeout_s: u32,
    /// 0, 1 or 2, as `-v` counts.
    pub verbosity: u32,
    /// User to become, when root.
    pub user: Option<String>,
    /// Run in the background.
    pub daemon: bool,
    /// Raise the core file limit.
    pub core_dumps: bool,
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// How it is watched and stopped.
    pub operation: Operation,
    /// Flags and suboptions that were given and change nothing.
    pub without_effect: Vec<String>,
}

/// The item size limit, which counts what memcached's items hold beside their value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemLimit {
    /// Largest item as memcached counts it: its header, key and value, bytes.
    pub item_bytes_max: usize,
    /// Items have cas uniques.
    pub cas: bool,
}

impl ItemLimit {
    /// Longest value, bytes, under a key of this length with these client flags.
    #[inline]
    #[must_use]
    pub const fn value_bytes_max(&self, key_len: usize, client_flags: u32) -> usize {
        /// Header, the byte that ends the key, the CRLF that ends the value.
        const FIXED: usize = 48 + 1 + 2;
        let optional = if self.cas { 8 } else { 0 } + if client_flags != 0 { 4 } else { 0 };
        self.item_bytes_max.saturating_sub(FIXED + optional + key_len)
    }
}

/// Parses a whole number of `flag` from `least` to `most`.
///
/// # Errors
/// When `text` is something else. `exit_code` is what the process then ends with.
pub fn parse_number<T>(flag: &str, text: &str, least: T, most: T, exit_code: u8) -> Result<T, ConfigError>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match text.trim().parse::<T>() {
        Ok(value) if value >= least && value <= most => Ok(value),
        _ => Err(ConfigError::new(flag, text, &format!("give a number from {least} to {most}"), exit_code)),
    }
}
