//! The options that every server has, cache or proxy, once they have been checked. Nothing in
//! [`ServerConfig`] has to be parsed later, or can be wrong.

use std::path::PathBuf;

use corecached_net::endpoints::{IoBackend, Listen};
use corecached_net::tls::TlsOptions;

use crate::error::ConfigError;
use crate::operation::Operation;

/// The options that every server has.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The addresses to listen on.
    pub listen: Listen,
    /// Maximum number of connections at once, over all shards.
    pub connections_max: usize,
    /// Length of each accept queue.
    pub listen_backlog: i32,
    /// Number of shards. `None` when the command line does not say it.
    pub shards: Option<usize>,
    /// The backend for the network.
    pub io_backend: IoBackend,
    /// TLS for connections of clients. `None` when it is off.
    pub tls: Option<TlsOptions>,
    /// Seconds after which an idle connection is closed. 0 is never.
    pub idle_timeout_s: u32,
    /// How many `-v` were given.
    pub verbosity: u32,
    /// The user to become when the process runs as root.
    pub user: Option<String>,
    /// Whether to raise the limit of core files.
    pub core_dumps: bool,
    /// The file to write the process id to.
    pub pid_file: Option<PathBuf>,
    /// The options of operation.
    pub operation: Operation,
    /// Flags and suboptions that were given and have no effect.
    pub without_effect: Vec<String>,
}

/// The item size limit. It counts the header and the key of memcached's items too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemLimit {
    /// Largest item in bytes as memcached counts it: header, key and value.
    pub item_bytes_max: usize,
    /// Whether items have cas uniques.
    pub cas: bool,
}

impl ItemLimit {
    /// Longest value in bytes under a key of this length with these client flags.
    #[inline]
    #[must_use]
    pub const fn value_bytes_max(&self, key_len: usize, client_flags: u32) -> usize {
        /// Bytes of memcached's header, of the byte after the key, and of the CRLF after the value.
        const FIXED: usize = 48 + 1 + 2;
        let optional = if self.cas { 8 } else { 0 } + if client_flags != 0 { 4 } else { 0 };
        self.item_bytes_max.saturating_sub(FIXED + optional + key_len)
    }
}

/// Parses a whole number of `flag` from `least` to `most`. As in C, what follows the digits is ignored; then a
/// warning says so.
///
/// # Errors
/// When `text` begins with something else. `exit_code` is the exit code of the error.
pub fn parse_number<T>(flag: &str, text: &str, least: T, most: T, exit_code: u8) -> Result<T, ConfigError>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let (digits, ignored) = leading_number(text.trim());
    match digits.parse::<T>() {
        Ok(value) if value >= least && value <= most => {
            if !ignored.is_empty() {
                tracing::warn!("{flag} {text:?} counts as {value}: leave out {ignored:?}, which is ignored");
            }
            Ok(value)
        }
        _ => Err(ConfigError::new(flag, text, &format!("give a number from {least} to {most}"), exit_code)),
    }
}

/// Divides `text` after the whole number, with or without a sign, that it begins with.
#[must_use]
pub fn leading_number(text: &str) -> (&str, &str) {
    let signs = usize::from(text.starts_with(['+', '-']));
    let digits = text[signs..].bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(if digits == 0 { 0 } else { signs + digits })
}
