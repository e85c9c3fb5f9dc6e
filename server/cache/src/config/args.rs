//! The command line as it was written: the flags of memcached, and those that memcached does not have.
//! [`super::check()`] turns it into a configuration.

use std::ffi::OsString;

use clap::{ArgAction, Parser};

use corecached_shard::operation::OperateArgs;

/// A memcached-compatible cache: every CPU core owns a slice of the keys and shares nothing.
///
/// Takes the command line of memcached. Flags for parts of memcached that this server does not have (slab
/// classes, LRU threads, hash table) are accepted and named in one line of the log with -v.
#[derive(Debug, Parser)]
#[command(
    name = "corecached",
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true,
    infer_long_args = true,
    after_help = "Other commands, each with a --help of its own:\n  \
                  corecached proxy          a proxy in front of several caches, with mcrouter's options\n  \
                  corecached check-config   check a proxy's configuration and print its routes\n  \
                  corecached healthcheck    a round trip to a cache or a proxy, for probes\n  \
                  corecached drain          have a server announce that it is about to stop, and wait\n  \
                  corecached replay         deliver the deletes that a proxy could not (its --async-dir)\n  \
                  corecached seccomp-profile   print the filter for containers that allows io_uring, or install it"
)]
pub struct CacheArgs {
    /// TCP port to listen on; 0 is off, -1 any free port [default: 11211, or that of -U]
    #[arg(short = 'p', long, alias = "po", value_name = "PORT", allow_hyphen_values = true)]
    pub port: Option<String>,

    /// UDP port; 0 is off, -1 any free port
    #[arg(short = 'U', long, aliases = ["ud", "udp", "udp-"], value_name = "PORT", default_value = "0",
          allow_hyphen_values = true)]
    pub udp_port: String,

    /// What eviction optimizes: "requests" for the hit rate of requests, "bytes" for the hit rate of bytes
    #[arg(long, value_name = "WHAT", default_value = "requests")]
    pub policy_weight: String,

    /// Longest reply over UDP in bytes; longer ones are refused, since the sender's address may be forged
    #[arg(long, value_name = "BYTES", default_value = "1392")]
    pub udp_reply_max: String,

    /// Unix socket to listen on instead of TCP
    #[arg(short = 's', long, value_name = "FILE")]
    pub unix_socket: Option<String>,

    /// Access mask of the Unix socket, in octal
    #[arg(short = 'a', long, value_name = "MASK", default_value = "700")]
    pub unix_mask: String,

    /// Enable the "shutdown" command
    #[arg(short = 'A', long)]
    pub enable_shutdown: bool,

    /// Addresses to listen on, with or without a port, separated by commas; may be repeated [default: all]
    #[arg(short = 'l', long, value_name = "ADDR")]
    pub listen: Vec<String>,

    /// Run in the background; returns when it serves
    #[arg(short = 'd', long)]
    pub daemon: bool,

    /// Raise the core file limit
    #[arg(short = 'r', long)]
    pub enable_coredumps: bool,

    /// User to become; only as root
    #[arg(short = 'u', long, value_name = "USER")]
    pub user: Option<String>,

    /// Memory of the whole process, in megabytes [default: what the control group's memory limit leaves,
    /// else 64]
    #[arg(short = 'm', long, value_name = "MB", allow_hyphen_values = true)]
    pub memory_limit: Option<String>,

    /// Answer an error when memory is full instead of evicting
    #[arg(short = 'M', long)]
    pub disable_evictions: bool,

    /// Maximum number of connections at once
    #[arg(short = 'c', long, value_name = "NUM", default_value = "1024", allow_hyphen_values = true)]
    pub conn_limit: String,

    /// Keep memory from being swapped out
    #[arg(short = 'k', long)]
    pub lock_memory: bool,

    /// Log more; -vv more again, but no commands of clients: the watch command shows these
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print this help and exit
    #[arg(short = 'h', long, action = ArgAction::HelpShort)]
    pub help: Option<bool>,

    /// Print the licence and exit
    #[arg(short = 'i', long)]
    pub license: bool,

    /// Print the version and exit
    #[arg(short = 'V', long)]
    pub version: bool,

    /// File to write the process id to
    #[arg(short = 'P', long, value_name = "FILE")]
    pub pidfile: Option<String>,

    /// Accepted, no effect: there are no slab classes
    #[arg(short = 'f', long, value_name = "FACTOR", default_value = "1.25", allow_hyphen_values = true)]
    pub slab_growth_factor: String,

    /// Accepted, no effect: there are no slab classes
    #[arg(short = 'n', long, value_name = "BYTES", default_value = "48", allow_hyphen_values = true)]
    pub slab_min_size: String,

    /// Accepted, no effect: a core with 64 MB or more of -m uses large pages anyway, if the kernel offers
    /// them
    #[arg(short = 'L', long)]
    pub enable_largepages: bool,

    /// Delimiter between key prefix and id, for "stats detail", which this turns on
    #[arg(short = 'D', value_name = "CHAR")]
    pub prefix_delimiter: Option<String>,

    /// Cores to use [default: those this process may run on]
    #[arg(short = 't', long, value_name = "NUM", allow_hyphen_values = true)]
    pub threads: Option<String>,

    /// Accepted, no effect: the commands and bytes of one turn have fixed limits
    #[arg(short = 'R', long, value_name = "NUM", default_value = "20", allow_hyphen_values = true)]
    pub max_reqs_per_event: String,

    /// Disable cas uniques
    #[arg(short = 'C', long)]
    pub disable_cas: bool,

    /// Length of each accept queue; the kernel takes a negative number for its own limit
    #[arg(short = 'b', long, value_name = "NUM", default_value = "1024", allow_hyphen_values = true)]
    pub listen_backlog: String,

    /// Protocol: ascii, binary, or auto, which tells them apart by the first byte [default: auto]
    #[arg(short = 'B', long, value_name = "NAME")]
    pub protocol: Option<String>,

    /// Largest item: 1k to 1024m, with k, m or no suffix
    #[arg(short = 'I', long, value_name = "SIZE", default_value = "1m", allow_hyphen_values = true)]
    pub max_item_size: String,

    /// Disable the flush_all command
    #[arg(short = 'F', long)]
    pub disable_flush_all: bool,

    /// Disable dumps of keys
    #[arg(short = 'X', long)]
    pub disable_dumping: bool,

    /// Disable the watch command
    #[arg(short = 'W', long)]
    pub disable_watch: bool,

    /// File of user:password lines; clients of the text protocol must authenticate first. Read again on
    /// SIGHUP
    #[arg(short = 'Y', long, value_name = "FILE")]
    pub auth_file: Option<String>,

    /// SASL authentication (PLAIN) of the binary protocol, with the file that MEMCACHED_SASL_PWDB names
    #[arg(short = 'S', long)]
    pub enable_sasl: bool,

    /// TLS 1.2 and 1.3 on TCP, with -o ssl_chain_cert=FILE,ssl_key=FILE and, for client certificates,
    /// ssl_ca_cert=FILE,ssl_verify_mode=1|2; "notls:", "btls:" (no client certificate) or "mtls:" (client
    /// certificate required) before an address of -l hold for that address alone. Files are read again on
    /// SIGHUP, by "refresh_certs", and with ssl_watch_certs when they change. A client has 10 seconds for its
    /// handshake (ssl_handshake_timeout_ms)
    #[arg(short = 'Z', long)]
    pub enable_ssl: bool,

    /// Keep the contents over a graceful stop (SIGUSR1, or shutdown graceful), in FILE and in FILE.0 and up
    /// beside it
    ///
    /// The files are written during the stop. The next start reads and removes them, on any number of cores.
    #[arg(short = 'e', long, value_name = "FILE")]
    pub memory_file: Option<String>,

    /// Accepted, no effect
    #[arg(short = 'N', long, value_name = "NUM")]
    pub napi_ids: Option<String>,

    /// Memcached's extended options, separated by commas
    #[arg(short = 'o', long, value_name = "OPTIONS")]
    pub extended: Vec<String>,

    /// How to reach the network: auto, io_uring or epoll
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub io_backend: String,

    /// For tests: the command "debugtime" stops the server's time (p), lets it run again (r) or puts it ahead
    /// (SECONDS)
    #[arg(long, hide = true)]
    pub debug_time: bool,

    /// The options of operation.
    #[command(flatten)]
    pub operate: OperateArgs,

    /// Words that are neither flags nor values of flags.
    #[arg(hide = true)]
    pub stray: Vec<String>,
}

impl CacheArgs {
    /// Parses a command line, with the name of the program first. An argument may have leading blanks, and it
    /// may be a flag and its value with a blank between them ("-m 64"), as container manifests write them. Of a
    /// flag with one value that is given more than once, the last one counts. A long flag may be cut short as
    /// long as it can be no other flag of memcached; the aliases above are such beginnings.
    ///
    /// # Errors
    /// When the usage is wrong, or when the help text was asked for.
    pub fn read(argv: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(argv.into_iter().map(trim_start))
    }
}

fn trim_start(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) => OsString::from(text.trim_start()),
        None => argument,
    }
}
