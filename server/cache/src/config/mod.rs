//! The configuration of a cache. It is checked once: nothing in [`CacheConfig`] has to be parsed later, or
//! can be wrong.

mod args;
mod check;
mod extended;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;

use corecached_engine::EvictionWeight;
use corecached_net::endpoints::ListenAddress;
use corecached_shard::config::{ItemLimit, ServerConfig};

pub use args::CacheArgs;
pub use check::check;
pub use extended::suboption_names;

/// Most bytes of a reply in one datagram (`-U`), without the header.
pub const UDP_PAYLOAD_BYTES: usize = 1392;
/// The highest `--udp-reply-max` in bytes. The datagrams of a reply are numbered with 16 bits.
pub(crate) const UDP_REPLY_BYTES_MAX: usize = UDP_PAYLOAD_BYTES * u16::MAX as usize;

/// The checked configuration of a cache.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// What every server is configured with.
    pub server: ServerConfig,
    /// Memory of the whole process in bytes (`-m`). Items get what the rest of it leaves.
    pub memory_bytes: usize,
    /// The item size limit (`-I`).
    pub item_limit: ItemLimit,
    /// Whether items are evicted when memory is full. Otherwise requests fail (`-M`).
    pub evict: bool,
    /// Whether `flush_all` is allowed (not `-F`).
    pub allow_flush: bool,
    /// Whether `shutdown` is allowed (`-A`).
    pub allow_shutdown: bool,
    /// Whether `debugtime` is allowed (`--debug-time`).
    pub debug_time: bool,
    /// Whether `watch` is allowed (not `-W`).
    pub allow_watch: bool,
    /// Whether keys may be dumped (not `-X`).
    pub allow_dump: bool,
    /// Whether `lru_crawler` lists keys from the start (not `-o no_lru_crawler`), before it is told `enable`.
    pub crawler: bool,
    /// The byte after the prefix of a key, for `stats detail` (`-D`).
    pub prefix_delimiter: u8,
    /// Whether to count by prefix from the start (`-D`).
    pub count_prefixes: bool,
    /// The file of users and passwords, of `-Y` or of SASL.
    pub auth_file: Option<PathBuf>,
    /// Whether clients authenticate by SASL (`-S`). Then all of them speak the binary protocol.
    pub sasl: bool,
    /// The UDP addresses to listen on (`-U`).
    pub udp: Vec<ListenAddress>,
    /// Longest reply over UDP in bytes (`--udp-reply-max`).
    pub udp_reply_max: usize,
    /// Whether to lock the memory of the process (`-k`).
    pub lock_memory: bool,
    /// What eviction optimizes (`--policy-weight`).
    pub policy_weight: EvictionWeight,
    /// The file in which contents outlive a graceful stop (`-e`).
    pub memory_file: Option<PathBuf>,
    /// Settings that only `stats settings` shows.
    pub shown: ShownSettings,
}

/// Settings that have no effect but that `stats settings` shows them.
#[derive(Clone, Debug)]
pub struct ShownSettings {
    /// The UDP port. 0 when UDP is off.
    pub udp_port: u16,
    /// The UDP addresses that are listened on.
    pub udp_addresses: Vec<SocketAddr>,
    /// The TCP port: `-p`, or the free port that was taken.
    pub port: u16,
    /// The addresses of `-l`, as they were given.
    pub listen: Option<String>,
    /// The growth factor of `-f`.
    pub growth_factor: f64,
    /// The least item size of `-n`.
    pub chunk_size: u64,
    /// The requests per event of `-R`.
    pub reqs_per_event: u64,
    /// The protocol of `-B`.
    pub protocol: &'static str,
    /// The mask of `-a`, in octal digits.
    pub umask: String,
}

impl CacheConfig {
    /// Whether the memory limit of one slice may be set to so many bytes at run time.
    #[must_use]
    pub(crate) fn slice_limit_fits(&self, bytes: usize) -> bool {
        bytes / 2 >= self.item_limit.item_bytes_max && bytes <= SLICE_BYTES_MAX
    }
}

/// Most shards of a cache (`-t`).
pub const SHARDS_MAX: usize = 1024;

/// Most memory of one slice in bytes. Its index numbers units of 4 bytes with 32 bits.
pub const SLICE_BYTES_MAX: usize = 16 << 30;
