//! The `stats` of a proxy, under the names that dashboards of mcrouter read. Each shard reports its counters;
//! the shard whose client sent `stats` adds the reports up.

use std::collections::BTreeMap;

use corecached_protocol::{ErrorKind, line, text};
use corecached_shard::{ServerContext, VERSION};

use crate::hot::HotKey;
use crate::relay::Relay;
use crate::request::Operation;
use crate::upstream::{Destination, DestinationStatus};

/// The kinds of errors, with mcrouter's names.
const ERRORS: [(&str, ErrorKind); 9] = [
    ("busy", ErrorKind::Busy),
    ("data_timeout", ErrorKind::Timeout),
    ("connect_timeout", ErrorKind::ConnectTimeout),
    ("connect_error", ErrorKind::Connect),
    ("tko", ErrorKind::Ejected),
    ("shutdown", ErrorKind::Shutdown),
    ("remote_error", ErrorKind::Remote),
    ("local_error", ErrorKind::Local),
    ("client_error", ErrorKind::Client),
];

/// The group of statistics that a `stats` command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsGroup {
    /// `stats`, `stats all`, `stats basic` and similar ones: counters of the whole proxy.
    General,
    /// `stats servers`: each destination.
    Servers,
    /// `stats suspect_servers`: each ejected destination.
    Suspects,
    /// `stats hot`: the keys that are asked for most.
    Hot,
}

impl StatsGroup {
    /// The group that `words` name; `None` if they name none.
    #[must_use]
    pub(crate) fn parse(words: &[u8]) -> Option<Self> {
        Some(match words {
            b"" | b"basic" | b"all" | b"detailed" | b"cmd-error" | b"ods" | b"count" | b"external"
            | b"version" => Self::General,
            b"servers" => Self::Servers,
            b"suspect_servers" => Self::Suspects,
            b"hot" => Self::Hot,
            _ => return None,
        })
    }
}

/// The counters of one destination, over all shards.
#[derive(Clone, Copy, Debug, Default)]
pub struct DestinationStats {
    /// Shards that have a connection.
    pub up: u64,
    /// Shards that are making a connection.
    pub connecting: u64,
    /// Shards that have never needed a connection, or have closed it.
    idle: u64,
    /// Shards that have ejected it after timeouts.
    soft: u64,
    /// Shards that have ejected it because it could not be connected to.
    hard: u64,
    /// Requests that have not been answered.
    pub pending: u64,
    /// Requests that have been sent and not answered.
    pub inflight: u64,
    /// Requests that it was given.
    pub requests: u64,
    /// Replies that came.
    pub replies: u64,
    /// Milliseconds from request to reply, over all replies.
    pub reply_ms: u64,
    /// Retrievals that found their key.
    pub found: u64,
    /// Retrievals that did not.
    pub not_found: u64,
    stored: u64,
    /// Requests that failed, and errors that it answered.
    pub failures: u64,
    /// Connections that were made.
    pub connects: u64,
    closes: u64,
    /// Times that a shard ejected it.
    pub ejections: u64,
    /// Times that it was used again after an ejection.
    pub returns: u64,
    /// Gets that may be under way at once, over all shards; 0 without adaptive concurrency.
    pub concurrency_limit: u64,
    /// By kind, in the order of [`ERRORS`].
    errors: [u64; ERRORS.len()],
}

impl DestinationStats {
    fn new(destination: &Destination) -> Self {
        let counters = destination.counters();
        let mut server = Self {
            pending: destination.pending() as u64,
            inflight: destination.inflight() as u64,
            requests: counters.requests,
            replies: counters.replies,
            reply_ms: counters.reply_ms,
            found: counters.found,
            not_found: counters.not_found,
            stored: counters.stored,
            failures: counters.errors.iter().sum(),
            connects: counters.connects,
            closes: counters.closes,
            ejections: counters.ejections,
            returns: counters.returns,
            concurrency_limit: destination.concurrency().map_or(0, u64::from),
            errors: ERRORS.map(|(_, kind)| counters.errors_of(kind)),
            ..Self::default()
        };
        match destination.status() {
            DestinationStatus::Up => server.up = 1,
            DestinationStatus::Connecting => server.connecting = 1,
            DestinationStatus::Idle => server.idle = 1,
            DestinationStatus::Ejected(reason) if reason.is_hard() => server.hard = 1,
            DestinationStatus::Ejected(_) => server.soft = 1,
        }
        server
    }

    /// Adds the counters of another destination, or those of another shard for this one.
    pub fn add(&mut self, other: &Self) {
        let Self {
            up,
            connecting,
            idle,
            soft,
            hard,
            pending,
            inflight,
            requests,
            replies,
            reply_ms,
            found,
            not_found,
            stored,
            failures,
            connects,
            closes,
            ejections,
            returns,
            concurrency_limit,
            errors,
        } = other;
        self.up += up;
        self.connecting += connecting;
        self.idle += idle;
        self.soft += soft;
        self.hard += hard;
        self.pending += pending;
        self.inflight += inflight;
        self.requests += requests;
        self.replies += replies;
        self.reply_ms += reply_ms;
        self.found += found;
        self.not_found += not_found;
        self.stored += stored;
        self.failures += failures;
        self.connects += connects;
        self.closes += closes;
        self.ejections += ejections;
        self.returns += returns;
        self.concurrency_limit += concurrency_limit;
        self.errors.iter_mut().zip(errors).for_each(|(sum, count)| *sum += count);
    }

    /// Whether any shard has ejected it.
    #[must_use]
    pub const fn is_ejected(&self) -> bool {
        self.soft + self.hard > 0
    }

    /// Whether a shard has a connection, and none has ejected it.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up > 0 && !self.is_ejected()
    }

    /// Whether no shard has ever connected to it.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.idle > 0 && self.up + self.connecting == 0 && self.connects == 0 && !self.is_ejected()
    }

    /// Whether all connections to it have been closed, and no shard has ejected it.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.up == 0 && self.connects > 0 && !self.is_ejected()
    }

    /// The number of errors of each kind, with the kind's name.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ERRORS.iter().zip(self.errors).map(|((name, _), count)| (*name, count))
    }

    /// The mean of the microseconds from request to reply; 0 without replies.
    pub const fn latency_us(&self) -> u64 {
        match self.replies {
            0 => 0,
            replies => self.reply_ms.saturating_mul(1000) / replies,
        }
    }
}

/// Most hot keys in the report of one shard.
const HOT_KEYS_MAX: usize = 32;

/// The report of one shard of a proxy.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// By their names in `stats`.
    counters: Vec<(String, u64)>,
    /// By their names in `stats`; a destination with different timeouts in two pools is there twice.
    destinations: Vec<(String, DestinationStats)>,
    /// The keys asked for most, at most [`HOT_KEYS_MAX`].
    hot: Vec<HotKeyReport>,
}

/// A hot key, as its shard reports it.
#[derive(Clone, Debug)]
pub struct HotKeyReport {
    /// Recent gets; too many by at most `error`.
    pub count: u32,
    /// What the counter began with when the key was added.
    pub error: u32,
    /// Gets that were answered with the kept value.
    pub hits: u64,
    /// Bytes of the kept value; `None` if none is kept.
    pub kept_bytes: Option<usize>,
    /// The key, with `?` in place of control characters.
    pub key: String,
}

impl ShardReport {
    /// The report of the shard of `relay`.
    #[must_use]
    pub(crate) fn new(relay: &Relay) -> Self {
        let mut counters: Vec<(String, u64)> = Operation::NAMES
            .iter()
            .map(|&(name, operation)| (format!("cmd_{name}_count"), relay.requests(operation)))
            .collect();
        let mut put = |name: &str, number: u64| counters.push((name.to_owned(), number));
        put("proxy_reqs_processing", relay.under_way() as u64);
        put("asynclog_requests", relay.spooled());
        let mut hot = Vec::new();
        if let Some(merge) = relay.merge() {
            merge.counters().into_iter().for_each(|(name, number)| put(name, number));
            let keys = merge.hot_keys().map(|hot| hot.top(HOT_KEYS_MAX)).unwrap_or_default();
            hot.extend(keys.into_iter().map(|HotKey { key, count, error, hits, kept_bytes }| HotKeyReport {
                count,
                error,
                hits,
                kept_bytes,
                key: String::from_utf8_lossy(key).replace(char::is_control, "?"),
            }));
        }
        relay.resize_counters().named().into_iter().for_each(|(name, number)| put(name, number));
        relay.tail_counters().named().into_iter().for_each(|(name, number)| put(name, number));
        let refused = relay.destinations().map(|destination| destination.counters().refused).sum();
        put("adaptive_concurrency_refused", refused);
        for (name, kind) in ERRORS {
            let errors = relay.destinations().map(|destination| destination.counters().errors_of(kind));
            put(&format!("result_{name}_count"), errors.sum());
        }
        let shown = |destination: &Destination| {
            let timeout_ms = destination.options().server_timeout_ms;
            let name = format!("{}:ascii:plain:notcompressed-{timeout_ms}", destination.address());
            (name, DestinationStats::new(destination))
        };
        let destinations = relay.destinations().map(shown).collect();
        Self { counters, destinations, hot }
    }

    /// About how many bytes of memory the report takes: without the overhead of each entry.
    pub(crate) fn len_bytes(&self) -> usize {
        let names = self.counters.iter().map(|(name, _)| name.len());
        let addresses = self.destinations.iter().map(|(name, _)| name.len() + size_of::<DestinationStats>());
        let keys = self.hot.iter().map(|hot| hot.key.len() + size_of::<HotKeyReport>());
        names.chain(addresses).chain(keys).sum()
    }
}

/// The reports of all shards, added up.
#[derive(Debug, Default)]
pub struct Totals {
    /// Counters, by their names in `stats`.
    pub counters: BTreeMap<String, u64>,
    /// Destinations, by their names in `stats`.
    pub destinations: BTreeMap<String, DestinationStats>,
    /// The hot keys of all shards, those that are asked for most first.
    pub hot: Vec<HotKeyReport>,
}

impl Totals {
    /// Adds up the reports of all shards.
    pub fn new<'a>(reports: impl IntoIterator<Item = &'a ShardReport>) -> Self {
        let mut totals = Self::default();
        for report in reports {
            for (name, number) in &report.counters {
                *totals.counters.entry(name.clone()).or_default() += number;
            }
            for (name, stats) in &report.destinations {
                totals.destinations.entry(name.clone()).or_default().add(stats);
            }
            totals.hot.extend(report.hot.iter().cloned());
        }
        totals.hot.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        totals
    }
}

/// Appends the reply to `stats` for `group`.
pub(crate) fn render(
    totals: &Totals,
    group: StatsGroup,
    config_failures: u64,
    server: &ServerContext,
    out: &mut Vec<u8>,
) {
    let Totals { counters, destinations, hot } = totals;
    let mut put = |name: &str, value: &dyn std::fmt::Display| {
        text::encode_stat(out, name.as_bytes(), value.to_string().as_bytes());
    };
    match group {
        StatsGroup::General => general(counters, destinations, config_failures, server, &mut put),
        StatsGroup::Servers => {
            for (address, stats) in destinations {
                let state = match stats {
                    DestinationStats { hard: 1.., .. } => "hard_tko; ",
                    DestinationStats { soft: 1.., .. } => "soft_tko; ",
                    _ => "",
                };
                let DestinationStats { up, pending, inflight, found, not_found, stored, .. } = stats;
                put(
                    address,
                    &format!(
                        "avg_latency_us:{} pending_reqs:{pending} inflight_reqs:{inflight} {state}up:{up}; \
                         found:{found} notfound:{not_found} stored:{stored}",
                        stats.latency_us()
                    ),
                );
            }
        }
        StatsGroup::Suspects => {
            for (address, stats) in destinations.iter().filter(|(_, stats)| stats.is_ejected()) {
                put(address, &format!("status:tko num_failures:{}", stats.failures));
            }
        }
        StatsGroup::Hot => {
            for HotKeyReport { count, error, hits, kept_bytes, key } in hot {
                let kept = kept_bytes.map_or_else(|| "no".to_owned(), |bytes| bytes.to_string());
                put(key, &format!("count:{count} error:{error} hits:{hits} kept_bytes:{kept}"));
            }
        }
    }
    out.extend_from_slice(line::END);
}

fn general(
    counters: &BTreeMap<String, u64>,
    destinations: &BTreeMap<String, DestinationStats>,
    config_failures: u64,
    server: &ServerContext,
    put: &mut dyn FnMut(&str, &dyn std::fmt::Display),
) {
    let count = |is: fn(&DestinationStats) -> bool| destinations.values().filter(|stats| is(stats)).count();
    let sum = |of: fn(&DestinationStats) -> u64| destinations.values().map(of).sum::<u64>();
    let (requests, failures, replies) = (sum(|s| s.requests), sum(|s| s.failures), sum(|s| s.replies));
    put("version", &format_args!("corecached {}", VERSION));
    put("pid", &std::process::id());
    put("time", &server.clock.now_s());
    put("uptime", &server.clock.uptime_s());
    put("io_backend", &server.network.backend);
    put("num_servers", &destinations.len());
    put("num_servers_new", &count(DestinationStats::is_new));
    put("num_servers_up", &count(DestinationStats::is_up));
    put("num_servers_down", &count(DestinationStats::is_ejected));
    put("num_servers_closed", &count(DestinationStats::is_closed));
    put("num_suspect_servers", &count(DestinationStats::is_ejected));
    put("num_client_connections", &server.network.admission.open());
    put("num_connections_opened", &sum(|s| s.connects));
    put("num_connections_closed", &sum(|s| s.closes));
    put("destination_pending_reqs", &sum(|s| s.pending));
    put("destination_inflight_reqs", &sum(|s| s.inflight));
    put("duration_us", &(sum(|s| s.reply_ms).saturating_mul(1000) / replies.max(1)));
    put("request_sent_count", &requests);
    put("request_replied_count", &replies);
    put("request_error_count", &failures);
    put("request_success_count", &replies.saturating_sub(failures));
    put("config_failures", &config_failures);
    for (name, number) in counters {
        put(name, number);
    }
    // As clients of a memcached expect them.
    let command = |name: &str| counters.get(&format!("cmd_{name}_count")).copied().unwrap_or_default();
    put("cmd_get", &(command("get") + command("gets") + command("gat") + command("gats")));
    put("cmd_set", &["set", "add", "replace", "append", "prepend", "cas"].map(command).iter().sum::<u64>());
    put("get_hits", &sum(|s| s.found));
    put("get_misses", &sum(|s| s.not_found));
    put("curr_connections", &server.network.admission.open());
    put("total_connections", &server.network.admission.accepted());
    put("threads", &server.cells.len());
}
