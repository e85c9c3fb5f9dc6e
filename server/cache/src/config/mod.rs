//! Configuration, checked once: nothing in [`Config`] is left to be parsed or to be wrong.

pub mod args;
mod check;
mod extended;
mod operate;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use corecached_engine::EvictionWeight;
use corecached_protocol::Wire;

pub use args::Args;
pub use check::check;
pub use operate::{LogFormat, OperateArgs, Operation};
pub use tls::{HANDSHAKE_TIMEOUT_MS, KeyFormat, MIN_VERSIONS, TlsOptions, TlsShown, Verify};

use crate::tls::Usage;

/// Everything the server relies on.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Most connections at once, over all cores.
    pub connections_max: usize,
    /// Length of each accept queue.
    pub listen_backlog: i32,
    /// Bytes of items and index, over all cores.
    pub memory_bytes: usize,
    /// Largest item as memcached counts it: its header, key and value, bytes.
    pub item_bytes_max: usize,
    /// Make room by dropping items.
    pub evict: bool,
    /// Hand out cas uniques.
    pub cas: bool,
    /// Shards, when given with `-t`.
    pub shards: Option<usize>,
    /// 0, 1 or 2.
    pub verbosity: u32,
    /// Whether `flush_all` works.
    pub allow_flush: bool,
    /// Whether `shutdown` works.
    pub allow_shutdown: bool,
    /// Whether `debugtime` works.
    pub debug_time: bool,
    /// Whether `watch` works.
    pub allow_watch: bool,
    /// Whether keys may be dumped.
    pub allow_dump: bool,
    /// Between the prefix and the rest of a key, for `stats detail`.
    pub prefix_delimiter: u8,
    /// Count by prefix from the start.
    pub count_prefixes: bool,
    /// Users and passwords, of text (`-Y`) or of SASL.
    pub auth_file: Option<PathBuf>,
    /// SASL (`-S`), which goes with the binary protocol alone.
    pub sasl: bool,
    /// TLS (`-Z`).
    pub tls: Option<TlsOptions>,
    /// Seconds after which a connection that says nothing is closed; 0 is never.
    pub idle_timeout_s: u32,
    /// Each core listens on a port of its own too: this one and those behind it, or, if it is 0, any.
    pub core_ports: Option<u16>,
    /// A proxy: keys are not stored here but forwarded.
    pub is_proxy: bool,
    /// How to reach the network.
    pub io_backend: IoBackend,
    /// User to become, when root.
    pub user: Option<String>,
    /// Run in the background.
    pub daemon: bool,
    /// Raise the core file limit.
    pub core_dumps: bool,
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// Where to answer datagrams.
    pub udp: Vec<SocketAddr>,
    /// Longest reply to one, bytes.
    pub udp_reply_max: usize,
    /// `-k`
    pub lock_memory: bool,
    /// What eviction gets the most of for its memory.
    pub policy_weight: EvictionWeight,
    /// Where contents outlive a graceful stop.
    pub memory_file: Option<PathBuf>,
    /// How it is watched and stopped.
    pub operation: Operation,
    /// Flags and suboptions that were given and change nothing.
    pub without_effect: Vec<String>,
    /// Numbers that only `stats settings` shows.
    pub shown: Shown,
}

/// See [`Config::shown`].
#[derive(Clone, Debug)]
pub struct Shown {
    /// UDP port, 0 when it is off.
    pub udp_port: u16,
    /// `-p`, or the port that was taken.
    pub port: u16,
    /// `-l` as given.
    pub listen: Option<String>,
    /// `-f`
    pub growth_factor: f64,
    /// `-n`
    pub chunk_size: u64,
    /// `-R`
    pub reqs_per_event: u64,
    /// `-B`
    pub protocol: &'static str,
    /// `-a`, octal digits.
    pub umask: String,
}

impl Config {
    /// Longest value, bytes, under the item size limit, which counts what memcached's items hold besides.
    #[inline]
    #[must_use]
    pub fn value_bytes_max(&self, key_len: usize, client_flags: u32) -> usize {
        /// Header, the byte that ends the key, the CRLF that ends the value.
        const FIXED: usize = 48 + 1 + 2;
        let optional = if self.cas { 8 } else { 0 } + if client_flags != 0 { 4 } else { 0 };
        self.item_bytes_max.saturating_sub(FIXED + optional + key_len)
    }

    /// Whether one slice may be given this many bytes at run time.
    #[must_use]
    pub fn slice_limit_fits(&self, bytes: usize) -> bool {
        bytes / 2 >= self.item_bytes_max && bytes <= SLICE_BYTES_MAX
    }
}

/// Most memory of one slice, bytes: its locations are 32-bit numbers of 4-byte granules.
pub const SLICE_BYTES_MAX: usize = 16 << 30;
