//! The checked command line, on which the rest of the proxy relies: every number is within its bounds, and
//! the configuration is named exactly once.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{EX_VALUE, ProxyArgs};
use crate::config::{self, DistanceTimeouts};
use crate::hot::HotOptions;
use crate::merge::MergeOptions;
use crate::relay::UpstreamOptions;
use crate::request::VALUE_BYTES_MAX;
use crate::source::KeptConfig;
use crate::spool::SpoolOptions;
use crate::upstream::{ConnectionLimits, HealthOptions};
use corecached_net::endpoints::{ALL_ADDRESSES, Listen, ListenAddress, ListenerProtocol};
use corecached_net::tls::{ReloadableTrust, Usage};
use corecached_shard::ConfigError;
use corecached_shard::config::{ItemLimit, ServerConfig};

use crate::service::FrontOptions;

/// Most shards: as many as a cache may have.
const SHARDS_MAX: u64 = 1024;
/// The longest timeout: a day.
const MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// A checked command line: what [`ProxyArgs::check`] returns.
#[derive(Clone, Debug)]
pub struct CheckedProxy {
    /// The options that all servers have.
    pub server: ServerConfig,
    /// The options that concern clients.
    pub front: FrontOptions,
    /// The options of the configuration of pools and routes.
    pub options: config::Options,
    /// The options of all destinations.
    pub upstream: UpstreamOptions,
    /// How the certificates of destinations are verified that are reached over TLS.
    pub trusted: Option<ReloadableTrust>,
    /// Where deletes that failed are kept; `None` answers them with the error.
    pub spool: Option<SpoolOptions>,
    /// Where the configuration of pools and routes is.
    pub source: ConfigSource,
    /// Where the last configuration that could be used is kept.
    pub kept_config: Option<KeptConfig>,
    /// Milliseconds from a change of the configuration to its use.
    pub reload_delay_ms: u64,
    /// The DNS server to ask; `None` asks those of the system.
    pub dns_server: Option<SocketAddr>,
    /// The folder with the token and the authorities for the cluster's API server.
    pub service_account: PathBuf,
    /// How long the proxy waits, at most, for a first server in each pool before it reports that it is ready.
    pub ready_wait: Duration,
}

/// Where the configuration of pools and routes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// In a file.
    File(PathBuf),
    /// On the command line.
    Text(String),
}

impl ProxyArgs {
    /// Checks all options.
    ///
    /// # Errors
    /// The first option that cannot be used, with its value and the remedy.
    pub fn check(&self) -> Result<CheckedProxy, ConfigError> {
        if let Some((option, value, remedy)) = &self.refused {
            return Err(ConfigError::new(option, value, remedy, EX_VALUE));
        }
        for (option, meaning) in &self.relied_on {
            tracing::warn!("--{option} has no effect: {meaning}");
        }
        for word in self.stray.iter().filter(|word| !word.trim().is_empty()) {
            tracing::warn!(
                "{word:?} is neither an option nor the value of one, and changes nothing: flavors do not exist here, so \
                 write their options on the command line"
            );
        }
        if self.core_aware {
            tracing::warn!(
                "--core-aware is gone, and changes nothing: it cost the caches more CPU than it saved; leave it out"
            );
        }
        let server = ServerConfig {
            listen: self.listen()?,
            connections_max: match number("--max-conns", &self.max_conns, 0, 10_000_000)? {
                0 | 1 => descriptors_max(),
                most => most as usize,
            },
            listen_backlog: number("--tcp-listen-backlog", &self.tcp_listen_backlog, 1, i32::MAX as u64)?
                as i32,
            shards: match self.num_proxies.as_deref() {
                None => None,
                Some(text) if text.trim() == "auto" => None,
                Some(text) => Some(number("--num-proxies", text, 1, SHARDS_MAX)? as usize),
            },
            io_backend: self
                .io_backend
                .parse()
                .map_err(|remedy| ConfigError::new("--io-backend", &self.io_backend, remedy, EX_VALUE))?,
            tls: self.tls_of_clients()?,
            idle_timeout_s: 0,
            verbosity: u32::from(self.verbose),
            user: None,
            core_dumps: false,
            pid_file: None,
            operation: self.operate.check()?,
            without_effect: self.without_effect.clone(),
        };
        let front = FrontOptions {
            allow_flush: self.enable_flush_cmd,
            item_limit: ItemLimit { item_bytes_max: VALUE_BYTES_MAX, cas: true },
        };
        let ms = |name: &str, text: &str| Ok(number(name, text, 0, u64::from(u32::MAX))? as u32);
        let options = config::Options {
            route_prefix: self.route_prefix.clone(),
            server_timeout_ms: ms("--server-timeout", &self.server_timeout)?,
            send_invalid_route_to_default: self.send_invalid_route_to_default,
            distance_timeouts: DistanceTimeouts {
                within_cluster_ms: ms("--within-cluster-timeout-ms", &self.within_cluster_timeout_ms)?,
                cross_cluster_ms: ms("--cross-cluster-timeout-ms", &self.cross_cluster_timeout_ms)?,
                cross_region_ms: ms("--cross-region-timeout-ms", &self.cross_region_timeout_ms)?,
            },
            group_errors: self.group_remote_errors,
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
        let upstream = UpstreamOptions {
            inactive_reset_ms: number(
                "--reset-inactive-connection-interval",
                &self.reset_inactive_connection_interval,
                0,
                MS_MAX,
            )?,
            connect_retries: number("--connect-timeout-retries", &self.connect_timeout_retries, 0, 1000)?
                as u32,
            limits: ConnectionLimits {
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
                ..ConnectionLimits::default()
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
        Ok(CheckedProxy {
            server,
            front,
            options,
            spool: (!self.asynclog_disable).then(|| SpoolOptions {
                dir: self.async_dir.clone(),
                make: self.async_dir_given,
                replay_every: Duration::from_millis(replay_ms),
            }),
            upstream,
            trusted: self.trusted()?,
            source: self.source()?,
            kept_config: self.kept_config()?,
            reload_delay_ms,
            dns_server: self.dns()?,
            service_account: self.service_account.clone(),
            ready_wait: Duration::from_millis(number("--ready-wait-ms", &self.ready_wait_ms, 0, MS_MAX)?),
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

    fn kept_config(&self) -> Result<Option<KeptConfig>, ConfigError> {
        let age_s = number("--max-dumped-config-age", &self.max_dumped_config_age, 0, MS_MAX)?;
        let Some(root) = self.config_dump_root.as_ref().filter(|root| !root.is_empty() && age_s > 0) else {
            return Ok(None);
        };
        let port = match self.listen()? {
            Listen::Tcp(addresses) => addresses.first().map_or(0, |address| address.socket_address.port()),
            Listen::Unix { .. } => 0,
        };
        Ok(Some(KeptConfig::new(Path::new(root), port, Duration::from_secs(age_s))))
    }

    fn listen(&self) -> Result<Listen, ConfigError> {
        let protocol = ListenerProtocol::default();
        if let Some(path) = &self.unix_domain_sock {
            return Ok(Listen::Unix { path: PathBuf::from(path.trim()), mode: 0o666, protocol });
        }
        let mut ips = ALL_ADDRESSES.to_vec();
        if !self.listen_addresses.is_empty() {
            let ip = |text: &String| {
                let remedy = "give IP addresses, separated by commas";
                text.trim()
                    .parse::<IpAddr>()
                    .map_err(|_| ConfigError::new("--listen-addresses", text, remedy, EX_VALUE))
            };
            ips = self.listen_addresses.iter().map(ip).collect::<Result<_, _>>()?;
        }
        let mut addresses: Vec<ListenAddress> = Vec::new();
        let plain = self.port.iter().map(|port| ("--port", port, Usage::Plain));
        for (flag, port, usage) in
            plain.chain(self.ssl_port.iter().map(|port| ("--ssl-port", port, Usage::Default)))
        {
            let port = number(flag, port, 0, u64::from(u16::MAX))? as u16;
            let protocol = ListenerProtocol { usage, ..protocol };
            for &ip in &ips {
                // Without addresses given, one family is enough.
                let same_entry = self.listen_addresses.is_empty() && ip != ips[0];
                let entry = addresses.last().map_or(0, |last| last.entry + usize::from(!same_entry));
                addresses.push(ListenAddress { socket_address: SocketAddr::new(ip, port), protocol, entry });
            }
        }
        Ok(Listen::Tcp(addresses))
    }

    fn source(&self) -> Result<ConfigSource, ConfigError> {
        let file = |path: &str| ConfigSource::File(PathBuf::from(path));
        let given = [self.config.is_some(), self.config_file.is_some(), self.config_str.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            let taken = if self.config.is_some() { "--config" } else { "--config-file" };
            tracing::warn!(
                "of --config, --config-file and --config-str {taken} counts, as in mcrouter: leave the others out"
            );
        }
        match (&self.config, &self.config_file, &self.config_str) {
            (Some(config), _, _) => Ok(match config.trim().strip_prefix("file:") {
                Some(path) => file(path),
                None => ConfigSource::Text(config.clone()),
            }),
            (None, Some(path), _) => Ok(ConfigSource::File(path.clone())),
            (None, None, Some(text)) => Ok(ConfigSource::Text(text.clone())),
            (None, None, None) => {
                Err(ConfigError::new("--config-file", "", "name the file with pools and routes", EX_VALUE))
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

pub(super) fn number(flag: &str, text: &str, least: u64, most: u64) -> Result<u64, ConfigError> {
    match text.trim().parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(ConfigError::new(flag, text, &format!("give a number from {least} to {most}"), EX_VALUE)),
    }
}

/// File descriptors that are kept for listeners, rings, logs and destinations.
const DESCRIPTORS_RESERVED: usize = 256;

fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    most.min(1 << 20).saturating_sub(DESCRIPTORS_RESERVED)
}

/// A number that stays the same as long as the host keeps its name.
fn host_id() -> u64 {
    let name = rustix::system::uname();
    name.nodename().to_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
    })
}
