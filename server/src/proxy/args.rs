//! mcrouter's command line.
//!
//! What of it says something here is a field of [`Args`]; what tunes only mcrouter's own machinery is accepted and named
//! in one log line. An option that is not known is left out with a warning, as mcrouter does.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser};
use corecached_protocol::Wire;

use super::config;
use super::hot::HotOptions;
use super::merge::MergeOptions;
use super::relay::UpstreamOptions;
use super::spool::SpoolOptions;
use super::upstream::{HealthOptions, Limits};
use crate::config::{
    Address, Args as CacheArgs, Config, ConfigError, Listen, OperateArgs, Serves, TlsOptions, Verify, check,
};
use crate::tls::{Trust, TrustOptions, Usage};

/// Exit code of a wrong value.
const EX_VALUE: u8 = 1;
/// Largest value that is taken from a client, bytes: it is held until it has come whole.
pub(super) const VALUE_BYTES_MAX: usize = 64 << 20;
/// Where deletes that fail are kept unless told otherwise.
pub const ASYNC_DIR: &str = "/var/spool/mcrouter";
/// Memory of the store that a proxy's shard has and does not use, bytes.
pub const STORE_BYTES: usize = 4 << 20;

/// A memcached proxy: takes mcrouter's command line and configuration, and follows DNS.
///
/// Options that tune machinery this proxy does not have are accepted and named in one log line at -v; unknown ones are
/// left out with a warning.
#[derive(Debug, Parser)]
#[command(name = "corecached proxy", bin_name = "corecached proxy", disable_version_flag = true)]
pub struct Args {
    /// Ports to listen on, separated by commas
    #[arg(short = 'p', long, value_name = "PORTS", value_delimiter = ',', default_value = "5000")]
    pub port: Vec<String>,

    /// Addresses to listen on, separated by commas [default: all]
    #[arg(long, value_name = "ADDRS", value_delimiter = ',')]
    pub listen_addresses: Vec<String>,

    /// Unix socket to listen on instead of TCP
    #[arg(long, value_name = "FILE")]
    pub unix_domain_sock: Option<String>,

    /// Ports to listen on for TLS, separated by commas
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
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

    /// Certificate shown to clients
    #[arg(long, value_name = "FILE")]
    pub server_pem_cert_path: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE")]
    pub server_pem_key_path: Option<PathBuf>,

    /// Clients on --ssl-port must show a certificate that --pem-ca-path holds good
    #[arg(long)]
    pub ssl_require_peer_certs: bool,

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
    #[arg(long, value_name = "PARAMS", value_delimiter = ',')]
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
    #[arg(short = 'a', long, value_name = "DIR", default_value = ASYNC_DIR)]
    pub async_dir: PathBuf,

    /// Milliseconds between attempts to deliver what is in that folder; 0 leaves it to `corecached replay`
    #[arg(long, value_name = "MS", default_value = "10000")]
    pub async_replay_ms: String,

    /// Milliseconds after a pool's servers changed in which keys are fetched from where they were; 0: never
    ///
    /// For pools without a "warm_resize" of their own. Costs a request more for each key that moved and is not there yet,
    /// and a delete more for each write of one; see the README.
    #[arg(long, value_name = "MS", default_value = "0")]
    pub warm_resize_ms: String,

    /// Milliseconds a destination has to connect, and to answer; 0 is no limit
    #[arg(short = 't', long, value_name = "MS", default_value = "1000")]
    pub server_timeout: String,

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

    /// Ask caches whether they run corecached with -o core_ports, and send each key to the core that owns it
    #[arg(long)]
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

    /// Milliseconds from the start in which /readyz waits for a first server of each pool whose names DNS resolves
    ///
    /// After that the proxy is ready all the same, and says so in its log; 0: at once.
    #[arg(long, value_name = "MS", default_value = "30000")]
    pub ready_wait_ms: String,

    /// How to reach the network: auto, io_uring or epoll
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub io_backend: String,

    /// Of whoever operates it.
    #[command(flatten)]
    pub operate: OperateArgs,

    /// Say more; repeat for more still
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print the version and exit
    #[arg(short = 'V', long)]
    pub version: bool,

    /// `--async-dir` was given.
    #[arg(skip)]
    pub async_dir_given: bool,

    /// What was given and changes nothing.
    #[arg(skip)]
    pub without_effect: Vec<String>,
}

/// Options with a value that change nothing here.
const VALUES_WITHOUT_EFFECT: &[&str] = &[
    "listen-sock-fd",
    "num-listening-sockets",
    "client-timeout",
    "max-client-outstanding-reqs",
    "core-multiplier",
    "fibers-stack-size",
    "fibers-max-pool-size",
    "reconfiguration-jitter-ms",
    "file-observer-poll-period-ms",
    "file-observer-sleep-before-update-ms",
    "config-dump-root",
    "max-dumped-config-age",
    "runtime-vars-file",
    "waiting-request-timeout-ms",
    "maximum-soft-tkos",
    "target-max-shadow-requests",
    "proxy-max-inflight-requests",
    "proxy-max-throttled-requests",
    "proxy-max-inflight-shadow-requests",
    "keepalive-count",
    "keepalive-interval",
    "keepalive-idle",
    "tcp-rto-min",
    "default-qos-class",
    "default-qos-path",
    "max-no-flush-event-loops",
    "log-path",
    "stats-root",
    "stats-logging-interval",
    "debug-fifo-root",
];

/// Options without a value that change nothing here.
const TOGGLES_WITHOUT_EFFECT: &[&str] = &[
    "big-value-hide-reply-flag",
    "retain-source-ip",
    "thread-affinity",
    "remote-thread",
    "force-same-thread",
    "group-remote-errors",
    "enable-qos",
    "use-asynclog-version2",
    "disable-failure-logging",
    "test-mode",
];

/// How often an option that is not known is left out before that counts as bad usage.
const UNKNOWN_MAX: usize = 64;

impl Args {
    /// Read a command line, program name first. An argument may carry blanks around it, and a short option its value
    /// after a blank in the same argument (`"-p 5000"`), as the tutorial's chart writes them.
    ///
    /// # Errors
    /// What clap says: bad usage, or the help text.
    pub fn read(argv: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut argv: Vec<OsString> = argv.into_iter().map(trim).collect();
        let mut unknown = Vec::new();
        loop {
            match command().try_get_matches_from(&argv) {
                Ok(matches) => {
                    let mut args = Self::from_arg_matches(&matches)?;
                    let given = |name: &&&str| {
                        matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
                    };
                    let accepted = VALUES_WITHOUT_EFFECT.iter().chain(TOGGLES_WITHOUT_EFFECT).filter(given);
                    args.async_dir_given = given(&&"async_dir");
                    args.without_effect = accepted.map(|name| format!("--{name}")).chain(unknown).collect();
                    return Ok(args);
                }
                Err(error) => match unknown_option(&error, &argv) {
                    Some(at) if unknown.len() < UNKNOWN_MAX => {
                        let option = argv.remove(at).to_string_lossy().into_owned();
                        eprintln!("corecached proxy: {option}: no such option; left out");
                        unknown.push(option);
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// What the server relies on.
    ///
    /// # Errors
    /// The first option that cannot be used.
    pub fn check(&self) -> Result<Checked, ConfigError> {
        let mut cache = CacheArgs::read([OsString::from("corecached")])
            .map_err(|error| ConfigError::new("defaults", "", &error.to_string(), EX_VALUE))?;
        cache.io_backend.clone_from(&self.io_backend);
        cache.threads = self.num_proxies.clone().filter(|text| text.trim() != "auto");
        cache.listen_backlog.clone_from(&self.tcp_listen_backlog);
        cache.verbose = self.verbose;
        cache.operate.clone_from(&self.operate);
        let mut config = check(&cache)?;
        config.listen = self.listen()?;
        config.connections_max = match number("--max-conns", &self.max_conns, 0, 10_000_000)? {
            0 | 1 => descriptors_max(),
            most => most as usize,
        };
        config.allow_flush = self.enable_flush_cmd;
        config.item_bytes_max = VALUE_BYTES_MAX;
        config.is_proxy = true;
        config.without_effect.clone_from(&self.without_effect);
        let options = config::Options {
            route_prefix: self.route_prefix.clone(),
            server_timeout_ms: number("--server-timeout", &self.server_timeout, 0, u64::from(u32::MAX))?
                as u32,
            send_invalid_route_to_default: self.send_invalid_route_to_default,
            miss_on_get_errors: !self.disable_miss_on_get_errors,
            miss_on_arithmetic_errors: !self.disable_miss_on_arith_errors,
            spool_deletes: !self.asynclog_disable,
            shard_splits: !self.disable_shard_split_route,
            zone: self.zone.clone().or_else(|| std::env::var("CORECACHED_ZONE").ok()).unwrap_or_default(),
            big_value_threshold: number(
                "--big-value-split-threshold",
                &self.big_value_split_threshold,
                0,
                VALUE_BYTES_MAX as u64,
            )? as u32,
            big_value_batch: number("--big-value-batch-size", &self.big_value_batch_size, 0, 1 << 16)? as u32,
            log_all: self.enable_logging_route,
            warm_resize_ms: number("--warm-resize-ms", &self.warm_resize_ms, 0, MS_MAX)? as u32,
            host_id: host_id(),
            params: self.params()?,
        };
        let probe_initial_ms = number("--probe-timeout-initial", &self.probe_timeout_initial, 1, MS_MAX)?;
        config.tls = self.tls_of_clients()?;
        let upstream = UpstreamOptions {
            trust: self.trust()?,
            inactive_reset_ms: number(
                "--reset-inactive-connection-interval",
                &self.reset_inactive_connection_interval,
                0,
                MS_MAX,
            )?,
            connect_retries: number("--connect-timeout-retries", &self.connect_timeout_retries, 0, 1000)?
                as u32,
            limits: Limits {
                requests_max: number(
                    "--target-max-pending-requests",
                    &self.target_max_pending_requests,
                    1,
                    10_000_000,
                )? as usize,
                inflight_max: number(
                    "--target-max-inflight-requests",
                    &self.target_max_inflight_requests,
                    0,
                    10_000_000,
                )? as usize,
                bytes_max: 2 * VALUE_BYTES_MAX,
                ..Limits::default()
            },
            health: HealthOptions {
                ejects: !self.disable_tko_tracking,
                timeouts_max: number("--timeouts-until-tko", &self.timeouts_until_tko, 1, 1_000_000)? as u32,
                probe_initial_ms,
                probe_max_ms: number("--probe-timeout-max", &self.probe_timeout_max, 1, MS_MAX)?
                    .max(probe_initial_ms),
            },
            merge: self.merge()?,
        };
        let reload_delay_ms =
            number("--reconfiguration-delay-ms", &self.reconfiguration_delay_ms, 0, MS_MAX)?;
        let replay_ms = number("--async-replay-ms", &self.async_replay_ms, 0, MS_MAX)?;
        Ok(Checked {
            config,
            options,
            spool: (!self.asynclog_disable).then(|| SpoolOptions {
                dir: self.async_dir.clone(),
                make: self.async_dir_given,
                replay_every: Duration::from_millis(replay_ms),
            }),
            upstream,
            source: self.source()?,
            reload_delay_ms,
            dns_server: self.dns()?,
            ready_wait: Duration::from_millis(number("--ready-wait-ms", &self.ready_wait_ms, 0, MS_MAX)?),
            core_aware: self.core_aware,
        })
    }

    fn merge(&self) -> Result<MergeOptions, ConfigError> {
        let keys = number("--hot-keys", &self.hot_keys, 0, 1_000_000)? as usize;
        let megabytes = number("--hot-key-memory", &self.hot_key_memory, 1, 65_536)? as usize;
        let stale_ms = number("--hot-key-stale-ms", &self.hot_key_stale_ms, 0, 60_000)?;
        if stale_ms > 0 && keys == 0 {
            let remedy = "give --hot-keys too: how many to look for";
            return Err(ConfigError::new("--hot-key-stale-ms", &self.hot_key_stale_ms, remedy, EX_VALUE));
        }
        let hot = HotOptions { keys, stale_ms, bytes_max: megabytes << 20 };
        Ok(MergeOptions { single_flight: self.single_flight, hot, flushes: Arc::default() })
    }

    fn listen(&self) -> Result<Listen, ConfigError> {
        let serves = Serves { wire: Wire::Text, ..Serves::default() };
        if let Some(path) = &self.unix_domain_sock {
            return Ok(Listen::Unix { path: PathBuf::from(path.trim()), mode: 0o666, serves });
        }
        let mut ips = crate::config::ALL_ADDRESSES.to_vec();
        if !self.listen_addresses.is_empty() {
            let ip = |text: &String| {
                let remedy = "give IP addresses, separated by commas";
                text.trim()
                    .parse::<IpAddr>()
                    .map_err(|_| ConfigError::new("--listen-addresses", text, remedy, EX_VALUE))
            };
            ips = self.listen_addresses.iter().map(ip).collect::<Result<_, _>>()?;
        }
        let mut addresses = Vec::new();
        let plain = self.port.iter().map(|port| ("--port", port, Usage::Plain));
        for (flag, port, usage) in
            plain.chain(self.ssl_port.iter().map(|port| ("--ssl-port", port, Usage::Default)))
        {
            let port = number(flag, port, 0, u64::from(u16::MAX))? as u16;
            let serves = Serves { usage, ..serves };
            addresses.extend(ips.iter().map(|&ip| Address { at: SocketAddr::new(ip, port), serves }));
        }
        Ok(Listen::Tcp(addresses))
    }

    /// How connections to `--ssl-port` are secured.
    fn tls_of_clients(&self) -> Result<Option<TlsOptions>, ConfigError> {
        let Some(first) = self.ssl_port.first() else { return Ok(None) };
        let own = (&self.server_pem_cert_path, &self.server_pem_key_path);
        let (chain, key) = if own.0.is_some() { own } else { (&self.pem_cert_path, &self.pem_key_path) };
        let Some(chain) = chain else {
            let remedy =
                "name the certificate for it: --server-pem-cert-path FILE, and --server-pem-key-path FILE";
            return Err(ConfigError::new("--ssl-port", first, remedy, EX_VALUE));
        };
        let verify = if self.ssl_require_peer_certs { Verify::Require } else { Verify::No };
        if verify == Verify::Require && self.pem_ca_path.is_none() {
            let remedy = "name the authorities of clients' certificates: --pem-ca-path FILE";
            return Err(ConfigError::new("--ssl-require-peer-certs", "", remedy, EX_VALUE));
        }
        let authorities = self.pem_ca_path.clone().filter(|_| verify == Verify::Require);
        Ok(Some(TlsOptions::of_files(chain.clone(), key.clone(), authorities, verify)))
    }

    /// How destinations with `use_ssl` are secured.
    fn trust(&self) -> Result<Option<Arc<Trust>>, ConfigError> {
        let Some(authorities) = self.pem_ca_path.clone() else { return Ok(None) };
        let identity = match (&self.pem_cert_path, &self.pem_key_path) {
            (Some(chain), Some(key)) => Some((chain.clone(), key.clone())),
            (None, None) => None,
            _ => {
                let remedy = "give both --pem-cert-path and --pem-key-path, or neither";
                return Err(ConfigError::new("--pem-cert-path", "", remedy, EX_VALUE));
            }
        };
        let name = self.ssl_server_name.clone();
        let options = TrustOptions { authorities, flag: "--pem-ca-path", identity, name };
        let trust = Trust::load(&options).map_err(|error| ConfigError::new("TLS", "", &error, EX_VALUE))?;
        Ok(Some(Arc::new(trust)))
    }

    fn source(&self) -> Result<Source, ConfigError> {
        let file = |path: &str| Source::File(PathBuf::from(path));
        match (&self.config, &self.config_file, &self.config_str) {
            (Some(config), None, None) => Ok(match config.trim().strip_prefix("file:") {
                Some(path) => file(path),
                None => Source::Text(config.clone()),
            }),
            (None, Some(path), None) => Ok(Source::File(path.clone())),
            (None, None, Some(text)) => Ok(Source::Text(text.clone())),
            (None, None, None) => {
                Err(ConfigError::new("--config-file", "", "name the file with pools and routes", EX_VALUE))
            }
            _ => {
                let remedy = "give one of --config, --config-file and --config-str";
                Err(ConfigError::new("--config-file", "", remedy, EX_VALUE))
            }
        }
    }

    fn params(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let pair = |text: &String| match text.split_once(':') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => Err(ConfigError::new("--config-params", text, "write name:value", EX_VALUE)),
        };
        self.config_params.iter().map(pair).collect()
    }

    fn dns(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = &self.dns_server else { return Ok(None) };
        let parsed =
            text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
        parsed.map(Some).map_err(|_| ConfigError::new("--dns-server", text, "write IP or IP:PORT", EX_VALUE))
    }
}

/// A day: no timeout is longer.
const MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// What [`Args::check`] found good.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Of the server.
    pub config: Config,
    /// Of the routes.
    pub options: config::Options,
    /// Of all destinations.
    pub upstream: UpstreamOptions,
    /// Where deletes that fail are kept; `None` answers them with the error.
    pub spool: Option<SpoolOptions>,
    /// Where the configuration of pools and routes is.
    pub source: Source,
    /// From a change of it to its use.
    pub reload_delay_ms: u64,
    /// Whom to ask for names.
    pub dns_server: Option<SocketAddr>,
    /// How long it is not ready for want of a pool's first server.
    pub ready_wait: Duration,
    /// Ask caches for their cores.
    pub core_aware: bool,
}

/// Where the configuration of pools and routes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// On the command line.
    Text(String),
}

fn command() -> clap::Command {
    let quiet = |name: &&'static str| Arg::new(*name).long(*name).hide(true);
    let values = VALUES_WITHOUT_EFFECT.iter().map(|name| quiet(name).num_args(1));
    let toggles = TOGGLES_WITHOUT_EFFECT.iter().map(|name| quiet(name).action(ArgAction::SetTrue));
    Args::command().args(values).args(toggles)
}

/// Where in `argv` the option stands that `error` calls unknown.
fn unknown_option(error: &clap::Error, argv: &[OsString]) -> Option<usize> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return None };
    let is_it = |argument: &OsString| {
        let text = argument.to_string_lossy();
        text == option.as_str() || text.split('=').next() == Some(option.as_str()) || {
            option.len() == 2 && !text.starts_with("--") && text.starts_with(option.as_str())
        }
    };
    // A word that is no option (mcrouter's flavor) is not overlooked.
    argv.iter().skip(1).position(is_it).map(|at| at + 1).filter(|_| option.starts_with('-'))
}

fn trim(argument: OsString) -> OsString {
    match argument.to_str() {
        // "-p 5000": the blank belongs to nobody.
        Some(text) => match text.trim().split_once(' ') {
            Some((flag, value)) if flag.len() == 2 && flag.starts_with('-') => {
                OsString::from(format!("{flag}{}", value.trim()))
            }
            _ => OsString::from(text.trim()),
        },
        None => argument,
    }
}

fn number(flag: &str, text: &str, least: u64, most: u64) -> Result<u64, ConfigError> {
    match text.trim().parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(ConfigError::new(flag, text, &format!("give a number from {least} to {most}"), EX_VALUE)),
    }
}

/// Descriptors kept for listeners, rings, logs and destinations.
const DESCRIPTORS_BESIDE: usize = 256;

fn descriptors_max() -> usize {
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| {
        usize::try_from(hard).unwrap_or(usize::MAX).min(1 << 20).saturating_sub(DESCRIPTORS_BESIDE)
    })
}

/// The same for as long as the host keeps its name.
fn host_id() -> u64 {
    let name = rustix::system::uname();
    name.nodename().to_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Args {
        let argv = std::iter::once("mcrouter").chain(line.iter().copied()).map(OsString::from);
        Args::read(argv).expect("a command line")
    }

    #[test]
    fn the_tutorials_command_line_is_taken() {
        let args = read(&["-p 5000", "--config-file=/etc/mcrouter/config.json"]);
        let checked = args.check().expect("good");
        let Listen::Tcp(addresses) = checked.config.listen else { panic!("no addresses") };
        assert!(addresses.iter().all(|address| address.at.port() == 5000) && addresses.len() == 2);
        assert_eq!(checked.source, Source::File("/etc/mcrouter/config.json".into()));
    }

    #[test]
    fn options_of_other_machinery_and_unknown_ones_change_nothing() {
        let args = read(&[
            "--config-str={}",
            "--fibers-stack-size",
            "24576",
            "--thread-affinity",
            "--no-such-thing=1",
            "-p",
            "11300,11301",
        ]);
        assert_eq!(args.port, ["11300", "11301"]);
        assert_eq!(args.without_effect, ["--fibers-stack-size", "--thread-affinity", "--no-such-thing=1"]);
    }

    #[test]
    fn a_wrong_value_is_named_with_its_remedy() {
        let checked = |line: &[&str]| read(line).check().unwrap_err().to_string();
        assert_eq!(checked(&["-p", "x", "-f", "c"]), "--port \"x\": give a number from 0 to 65535");
        assert_eq!(checked(&[]), "--config-file \"\": name the file with pools and routes");
        assert_eq!(
            checked(&["-f", "c", "--config-str", "{}"]),
            "--config-file \"\": give one of --config, --config-file and --config-str"
        );
        assert_eq!(
            checked(&["-f", "c", "--dns-server", "here"]),
            "--dns-server \"here\": write IP or IP:PORT"
        );
    }

    #[test]
    fn either_spelling_of_the_configuration_is_taken() {
        let source = |line: &[&str]| read(line).check().expect("good").source;
        assert_eq!(source(&["--config", "file:/a.json"]), Source::File("/a.json".into()));
        assert_eq!(source(&["--config", "{}"]), Source::Text("{}".into()));
        assert_eq!(source(&["--config-str", "{}"]), Source::Text("{}".into()));
        assert_eq!(source(&["-f", "/a.json"]), Source::File("/a.json".into()));
    }
}
