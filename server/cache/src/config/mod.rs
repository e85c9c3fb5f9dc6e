//! The configuration of a cache, checked once: nothing in [`CacheConfig`] is left to be parsed or to be wrong.

pub mod args;
mod check;
mod extended;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;

use corecached_engine::EvictionWeight;
use corecached_shard::config::{ItemLimit, ServerConfig};

pub use args::CacheArgs;
pub use check::check;

/// Bytes of a reply in one datagram (`-U`).
pub const UDP_PAYLOAD_BYTES: usize = 1392;
/// Longest reply over UDP that may be allowed, bytes: the datagrams of a reply are numbered with 16 bits.
pub const UDP_REPLY_BYTES_MAX: usize = UDP_PAYLOAD_BYTES * u16::MAX as usize;

/// Everything a cache relies on.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// What every server is configured with.
    pub server: ServerConfig,
    /// Bytes of items and index, over all shards.
    pub memory_bytes: usize,
    /// Largest item.
    pub item_limit: ItemLimit,
    /// Make room by dropping items.
    pub evict: bool,
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
    /// Where to answer datagrams.
    pub udp: Vec<SocketAddr>,
    /// Longest reply to a datagram, bytes.
    pub udp_reply_max: usize,
    /// Keep the process from being swapped out (`-k`).
    pub lock_memory: bool,
    /// What eviction gets the most of for its memory.
    pub policy_weight: EvictionWeight,
    /// File in which contents outlive a graceful stop (`-e`).
    pub memory_file: Option<PathBuf>,
    /// Numbers that only `stats settings` shows.
    pub shown: Shown,
}

/// Numbers that only `stats settings` shows.
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

impl CacheConfig {
    /// Whether one slice may be given this many bytes at run time.
    #[must_use]
    pub fn slice_limit_fits(&self, bytes: usize) -> bool {
        bytes / 2 >= self.item_limit.item_bytes_max && bytes <= SLICE_BYTES_MAX
    }
}

/// Most memory of one slice, bytes: its locations are 32-bit numbers of 4-byte granules.
pub const SLICE_BYTES_MAX: usize = 16 << 30;
