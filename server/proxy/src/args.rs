//! mcrouter's command line. Each option that has an effect here is a field of [`ProxyArgs`].
//!
//! | module | what it does |
//! | --- | --- |
//! | `read` | parses a command line |
//! | `checked` | checks every value, for the rest of the proxy to rely on |
//! | `secured` | does so for the options of TLS |

mod checked;
mod read;
mod secured;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{ArgAction, Parser};

use crate::config;
use crate::discovery::ACCOUNT;
use crate::spool::SPOOL_FOLDER;
use corecached_shard::operation::OperateArgs;

pub use checked::{CheckedProxy, ConfigSource};

/// Exit code of a wrong value.
const EX_VALUE: u8 = 1;

/// A memcached proxy: takes mcrouter's command line and configuration, and follows DNS.
///
/// Options that tune machinery this proxy does not have are accepted and named in one log line at -v; unknown ones are
/// left out with a warning.
#[derive(Debug, Parser)]
#[command(
    name = "corecached proxy",
    bin_name = "corecached proxy",
    disable_version_flag = true,
    args_override_self = true,
    infer_long_args = true
)]
pub struct ProxyArgs {
    /// Ports to listen on, separated by commas
    #[arg(short = 'p', long, value_name = "PORTS", value_delimiter = ',', default_value = "5000", action = ArgAction::Set)]
    pub port: Vec<String>,

    /// Addresses to listen on, separated by commas [default: all]
    #[arg(long, value_name = "ADDRS", value_delimiter = ',', action = ArgAction::Set)]
    pub listen_addresses: Vec<String>,

    /// Unix socket to listen on instead of TCP
    #[arg(long, value_name = "FILE")]
    pub unix_domain_sock: Option<String>,

    /// Ports to listen on for TLS, separated by commas
    #[arg(long, value_name = "PORTS", value_delimiter = ',', action = ArgAction::Set)]
    pub ssl_port: Vec<String>,

    /// Certificates of the authorities that sign those of destinations with use_ssl; and of clients, if they must show one
    #[arg(long, value_name = "FILE")]
    pub pem_ca_path: Option<PathBuf>,

    /// Certificate shown to destinations, and to clients unless --server-pem-cert-path is given
    #[arg(long, value_name = "FILE")]
    pub pem_cert_path: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE")]
    pub pem_key_path: Option<PathBuf>,

    /// Certificate shown to clients; it and its key are read again when they change
    #[arg(long, value_name = "FILE")]
    pub server_pem_cert_path: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE")]
    pub server_pem_key_path: Option<PathBuf>,

    /// Clients on --ssl-port must show a certificate that --pem-ca-path holds good
    #[arg(long)]
    pub ssl_require_peer_certs: bool,

    /// Milliseconds that a client on --ssl-port has for its handshake; past it its connection is closed
    #[arg(long, value_name = "MS", default_value = "10000")]
    pub ssl_handshake_timeout_ms: String,

    /// Name that certificates of destinations must bear [default: the server's, as the configuration has it]
    #[arg(long, value_name = "NAME")]
    pub ssl_server_name: Option<String>,

    /// Length of each accept queue
    #[arg(long, value_name = "NUM", default_value = "1024")]
    pub tcp_listen_backlog: String,

    /// Most connections of clients at once; 0 is as many as files may be open
    #[arg(long, value_name = "NUM", default_value = "0")]
    pub max_conns: String,

    /// Cores to use [default: those this process may run on]
    #[arg(long, visible_alias = "proxy-threads", value_name = "NUM")]
    pub num_proxies: Option<String>,

    /// Configuration: file:PATH, or the JSON itself
    #[arg(long, value_name = "CONFIG")]
    pub config: Option<String>,

    /// File with the configuration
    #[arg(short = 'f', long, value_name = "PATH")]
    pub config_file: Option<PathBuf>,

    /// The configuration itself
    #[arg(long, value_name = "JSON")]
    pub config_str: Option<String>,

    /// Values for %name% in the configuration, name:value, separated by commas
    #[arg(long, value_name = "PARAMS", value_delimiter = ',', action = ArgAction::Set)]
    pub config_params: Vec<String>,

    /// Check the configuration and exit; "run" checks and goes on
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "exit", require_equals = true)]
    pub validate_config: Option<String>,

    /// Do not read the configuration again when it changes
    #[arg(long)]
    pub disable_reload_configs: bool,

    /// Milliseconds from a change of the configuration to its use
    #[arg(long, value_name = "MS", default_value = "1000")]
    pub reconfiguration_delay_ms: String,

    /// Folder in which the last configuration that could be used is kept; a start with one that cannot uses it
    #[arg(long, value_name = "DIR")]
    pub config_dump_root: Option<String>,

    /// Seconds after which it is not used any more; 0 is never to use it
    #[arg(long, value_name = "SECONDS", default_value = "43200")]
    pub max_dumped_config_age: String,

    /// Where keys without a routing prefix go: /region/cluster/
    #[arg(short = 'R', long, value_name = "PREFIX", default_value = "/././")]
    pub route_prefix: String,

    /// Send keys with an unknown routing prefix where those without one go
    #[arg(long)]
    pub send_invalid_route_to_default: bool,

    /// Zone of this proxy, which reads copies of its own zone first [default: the environment variable CORECACHED_ZONE]
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,

    /// Store values of more than so many bytes in chunks of that size; 0 stores all as they are
    #[arg(long, value_name = "BYTES", default_value = "0")]
    pub big_value_split_threshold: String,

    /// Chunks sent for at a time; 0 is all
    #[arg(long, value_name = "NUM", default_value_t = config::Options::BIG_VALUE_BATCH.to_string())]
    pub big_value_batch_size: String,

    /// Keep keys of every shard in one copy, whatever shard_splits of a pool says
    #[arg(long)]
    pub disable_shard_split_route: bool,

    /// Write a log line for each request, as under a LoggingRoute: 10 a second of each core at most
    #[arg(long)]
    pub enable_logging_route: bool,

    /// Let flush_all through, to every destination
    #[arg(long)]
    pub enable_flush_cmd: bool,

    /// Answer a retrieval that failed with the error, not with a miss
    #[arg(long)]
    pub disable_miss_on_get_errors: bool,

    /// Tell clients of every error as SERVER_ERROR remote error
    #[arg(long)]
    pub group_remote_errors: bool,

    /// Answer arithmetic that failed with the error, not with NOT_FOUND
    #[arg(long)]
    pub disable_miss_on_arith_errors: bool,

    /// Answer a delete that failed with the error, and keep nothing of it
    #[arg(long)]
    pub asynclog_disable: bool,

    /// Folder for deletes that no server took: they are answered NOT_FOUND, and sent again later
    ///
    /// Without such a folder they are answered with the error. One that is given here is made; the default is used
    /// where it is there.
    #[arg(short = 'a', long, value_name = "DIR", default_value = SPOOL_FOLDER)]
    pub async_dir: PathBuf,

    /// Milliseconds between attempts to deliver what is in that folder; 0 leaves it to `corecached replay`
    #[arg(long, value_name = "MS", default_value = "10000")]
    pub async_replay_ms: String,

    /// Milliseconds after a pool's servers changed in which keys are fetched from where they were; 0: never
    ///
    /// For pools without a "warm_resize" of their own. Costs a request more for each key that moved and is not there yet,
    /// and a delete more for each write of one; see server/docs/proxy.md.
    #[arg(long, value_name = "MS", default_value = "0")]
    pub warm_resize_ms: String,

    /// Milliseconds a destination has to connect, and to answer; 0 is no limit
    #[arg(short = 't', long, value_name = "MS", default_value = "1000")]
    pub server_timeout: String,

    /// The same to answer only, for pools with the region and cluster of --route-prefix; 0 is as they say
    #[arg(long, value_name = "MS", default_value = "0")]
    pub within_cluster_timeout_ms: String,

    /// The same for pools with its region and another cluster
    #[arg(long, value_name = "MS", default_value = "0")]
    pub cross_cluster_timeout_ms: String,

    /// The same for pools with another region
    #[arg(long, value_name = "MS", default_value = "0")]
    pub cross_region_timeout_ms: String,

    /// Connections that may time out one after the other before that counts
    #[arg(long, value_name = "NUM", default_value = "0")]
    pub connect_timeout_retries: String,

    /// Timeouts in a row after which a destination is ejected
    #[arg(long, value_name = "NUM", default_value = "3")]
    pub timeouts_until_tko: String,

    /// Milliseconds from ejection to the first probe
    #[arg(short = 'r', long, value_name = "MS", default_value = "10000")]
    pub probe_timeout_initial: String,

    /// Most milliseconds between probes
    #[arg(long, value_name = "MS", default_value = "60000")]
    pub probe_timeout_max: String,

    /// Eject no destination
    #[arg(long)]
    pub disable_tko_tracking: bool,

    /// Most requests to one destination and core that have no reply; past it: SERVER_ERROR 307 busy
    #[arg(long, value_name = "NUM", default_value = "100000")]
    pub target_max_pending_requests: String,

    /// Most requests sent to one destination and core that have no reply; others wait; 0 is no limit
    #[arg(long, value_name = "NUM", default_value = "0")]
    pub target_max_inflight_requests: String,

    /// Milliseconds without use after which a connection to a destination is closed; 0 is never
    #[arg(long, value_name = "MS", default_value = "60000")]
    pub reset_inactive_connection_interval: String,

    /// Gone, and without effect: it cost the caches more CPU than it saved
    #[arg(long, hide = true)]
    pub core_aware: bool,

    /// Send gets for a key once while one is under way, and answer all with its reply
    #[arg(long)]
    pub single_flight: bool,

    /// Keys asked for most to find, and show in `stats hot`; 0 looks for none
    #[arg(long, value_name = "NUM", default_value = "0")]
    pub hot_keys: String,

    /// Milliseconds the values of hot keys may be answered from here; 0 keeps none
    #[arg(long, value_name = "MS", default_value = "0")]
    pub hot_key_stale_ms: String,

    /// Megabytes for the values of hot keys
    #[arg(long, value_name = "MB", default_value = "16")]
    pub hot_key_memory: String,

    /// DNS server to ask, IP or IP:PORT [default: those of the system]
    #[arg(long, value_name = "ADDR")]
    pub dns_server: Option<String>,

    /// Milliseconds from the start in which /readyz waits for a first server of each pool whose address is known
    ///
    /// After that the proxy is ready all the same, and says so in its log; 0: at once.
    #[arg(long, value_name = "MS", default_value = "30000")]
    pub ready_wait_ms: String,

    /// Folder of the token and ca.crt with which endpoint_slices are asked for
    #[arg(long, value_name = "FOLDER", default_value = ACCOUNT)]
    pub service_account: PathBuf,

    /// How to reach the network: auto, io_uring or epoll
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub io_backend: String,

    /// The options that all servers have.
    #[command(flatten)]
    pub operate: OperateArgs,

    /// Log more; repeat to log still more
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print the version and exit
    #[arg(short = 'V', long)]
    pub version: bool,

    /// Words that are neither options nor values: mcrouter's flavor.
    #[arg(hide = true)]
    pub stray: Vec<String>,

    /// An option that cannot be left out, its value, and the remedy.
    #[arg(skip)]
    pub refused: Option<(String, String, String)>,

    /// Options without effect that somebody may rely on, and what that means.
    #[arg(skip)]
    pub relied_on: Vec<(&'static str, &'static str)>,

    /// `--async-dir` was given.
    #[arg(skip)]
    pub async_dir_given: bool,

    /// The options that were given and have no effect.
    #[arg(skip)]
    pub without_effect: Vec<String>,
}
