//! `stats` of the proxy, under the names that graphs of mcrouter read. Each shard describes what it counts as lines of
//! text; the shard that was asked adds them up.

use std::collections::BTreeMap;
use std::fmt::Write;

use corecached_protocol::{ErrorKind, line, text};

use super::hot::HotKey;
use super::relay::Relay;
use super::request::Operation;
use super::upstream::{Destination, Status};
use crate::server::Shared;

/// Errors by kind, as mcrouter names them.
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

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `stats`, `stats all`, `stats basic` and the like.
    General,
    /// `stats servers`
    Servers,
    /// `stats suspect_servers`
    Suspects,
    /// `stats hot`: the keys asked for most
    Hot,
}

impl Group {
    /// The group that `words` name; `None` when there is no such.
    #[must_use]
    pub fn of(words: &[u8]) -> Option<Self> {
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

/// One destination, over all shards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Server {
    /// Shards that have a connection, are making one, never needed one, have ejected it.
    pub(crate) up: u64,
    pub(crate) connecting: u64,
    idle: u64,
    soft: u64,
    hard: u64,
    pub(crate) pending: u64,
    pub(crate) inflight: u64,
    pub(crate) requests: u64,
    pub(crate) replies: u64,
    pub(crate) reply_ms: u64,
    pub(crate) found: u64,
    pub(crate) not_found: u64,
    stored: u64,
    pub(crate) failures: u64,
    pub(crate) connects: u64,
    closes: u64,
    pub(crate) ejections: u64,
    pub(crate) returns: u64,
    pub(crate) concurrency_limit: u64,
    /// As in [`ERRORS`].
    errors: [u64; ERRORS.len()],
}

impl Server {
    const fn numbers(&mut self) -> [&mut u64; 19 + ERRORS.len()] {
        let [e0, e1, e2, e3, e4, e5, e6, e7, e8] = &mut self.errors;
        [
            &mut self.up,
            &mut self.connecting,
            &mut self.idle,
            &mut self.soft,
            &mut self.hard,
            &mut self.pending,
            &mut self.inflight,
            &mut self.requests,
            &mut self.replies,
            &mut self.reply_ms,
            &mut self.found,
            &mut self.not_found,
            &mut self.stored,
            &mut self.failures,
            &mut self.connects,
            &mut self.closes,
            &mut self.ejections,
            &mut self.returns,
            &mut self.concurrency_limit,
            e0,
            e1,
            e2,
            e3,
            e4,
            e5,
            e6,
            e7,
            e8,
        ]
    }

    fn of(destination: &Destination) -> Self {
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
            Status::Up => server.up = 1,
            Status::Connecting => server.connecting = 1,
            Status::Idle => server.idle = 1,
            Status::Ejected(reason) if reason.is_hard() => server.hard = 1,
            Status::Ejected(_) => server.soft = 1,
        }
        server
    }

    /// Count another server, or another shard's part of this one, in.
    pub(crate) fn add(&mut self, mut other: Self) {
        self.numbers().into_iter().zip(other.numbers()).for_each(|(sum, number)| *sum += *number);
    }

    pub(crate) const fn is_ejected(&self) -> bool {
        self.soft + self.hard > 0
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.up > 0 && !self.is_ejected()
    }

    /// Nobody has needed it yet.
    pub(crate) const fn is_new(&self) -> bool {
        self.idle > 0 && self.up + self.connecting == 0 && self.connects == 0 && !self.is_ejected()
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.up == 0 && self.connects > 0 && !self.is_ejected()
    }

    /// What went wrong, by kind.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ERRORS.iter().zip(self.errors).map(|((name, _), count)| (*name, count))
    }

    /// Microseconds from request to reply, on average.
    pub(crate) const fn latency_us(&self) -> u64 {
        match self.replies {
            0 => 0,
            replies => self.reply_ms.saturating_mul(1000) / replies,
        }
    }
}

/// Hot keys that each shard tells of.
const HOT_KEYS_SHOWN: usize = 32;

/// What a shard says of itself: `C name number` for counters, `D number.. address` for destinations, `H count error hits
/// bytes key` for hot keys.
#[must_use]
pub fn describe(relay: &Relay) -> Vec<u8> {
    let mut lines = String::new();
    for (name, operation) in Operation::NAMES {
        let _ = writeln!(lines, "C cmd_{name}_count {}", relay.asked(operation));
    }
    let _ = writeln!(lines, "C proxy_reqs_processing {}", relay.under_way());
    let _ = writeln!(lines, "C asynclog_requests {}", relay.kept());
    if let Some(merge) = relay.merge() {
        for (name, number) in merge.counters() {
            let _ = writeln!(lines, "C {name} {number}");
        }
        for hot in merge.hot_keys().map(|hot| hot.top(HOT_KEYS_SHOWN)).unwrap_or_default() {
            let HotKey { key, count, error, hits, kept_bytes } = hot;
            let kept_bytes = kept_bytes.map_or_else(|| "no".to_owned(), |bytes| bytes.to_string());
            let _ = writeln!(
                lines,
                "H {count} {error} {hits} {kept_bytes} {}",
                String::from_utf8_lossy(key).replace(char::is_control, "?")
            );
        }
    }
    for (name, number) in relay.resize_counters().named() {
        let _ = writeln!(lines, "C {name} {number}");
    }
    for (name, number) in relay.tail_counters().named() {
        let _ = writeln!(lines, "C {name} {number}");
    }
    let refused: u64 = relay.destinations().map(|destination| destination.counters().refused).sum();
    let _ = writeln!(lines, "C adaptive_concurrency_refused {refused}");
    let mut errors = [0; ERRORS.len()];
    for destination in relay.destinations() {
        for (sum, (_, kind)) in errors.iter_mut().zip(ERRORS) {
            *sum += destination.counters().errors_of(kind);
        }
        lines.push('D');
        for number in Server::of(destination).numbers() {
            let _ = write!(lines, " {number}");
        }
        let timeout_ms = destination.options().server_timeout_ms;
        let _ = writeln!(lines, " {}:ascii:plain:notcompressed-{timeout_ms}", destination.address());
    }
    for (sum, (name, _)) in errors.iter().zip(ERRORS) {
        let _ = writeln!(lines, "C result_{name}_count {sum}");
    }
    lines.into_bytes()
}

/// What all shards said, added up.
pub(crate) struct Totals<'a> {
    /// By name.
    pub(crate) counters: BTreeMap<&'a str, u64>,
    /// By address.
    pub(crate) servers: BTreeMap<&'a str, Server>,
    /// Those asked for most first.
    pub(crate) hot: Vec<HotLine<'a>>,
}

/// A hot key, as its shard told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HotLine<'a> {
    /// Gets, lately; too large by at most `error`.
    pub(crate) count: u64,
    /// See `count`.
    pub(crate) error: u64,
    /// Gets answered from here.
    pub(crate) hits: u64,
    /// Bytes of its value, or `no` where it is not kept.
    pub(crate) kept: &'a str,
    /// The key.
    pub(crate) key: &'a str,
}

impl<'a> HotLine<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next();
        Some(Self {
            count: word()?.parse().ok()?,
            error: word()?.parse().ok()?,
            hits: word()?.parse().ok()?,
            kept: word()?,
            key: word()?,
        })
    }
}

impl<'a> Totals<'a> {
    /// Of what [`describe`] came to on each shard.
    pub(crate) fn of(answers: &'a [Vec<u8>]) -> Self {
        let mut counters: BTreeMap<&str, u64> = BTreeMap::new();
        let mut servers: BTreeMap<&str, Server> = BTreeMap::new();
        let mut hot = Vec::new();
        for line in answers.iter().filter_map(|answer| std::str::from_utf8(answer).ok()).flat_map(str::lines)
        {
            if let Some((name, number)) = line.strip_prefix("C ").and_then(|line| line.split_once(' ')) {
                *counters.entry(name).or_default() += number.parse().unwrap_or(0);
            } else if let Some((numbers, address)) =
                line.strip_prefix("D ").and_then(|line| line.rsplit_once(' '))
            {
                let sums = servers.entry(address).or_default().numbers();
                for (sum, number) in sums.into_iter().zip(numbers.split(' ')) {
                    *sum += number.parse().unwrap_or(0);
                }
            } else {
                hot.extend(line.strip_prefix("H ").and_then(HotLine::of));
            }
        }
        hot.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(b.key)));
        Self { counters, servers, hot }
    }
}

/// Append the answer to `stats`, of what every shard said.
pub fn render(answers: &[Vec<u8>], group: Group, shared: &Shared, out: &mut Vec<u8>) {
    let Totals { counters, servers, hot } = Totals::of(answers);
    let mut put = |name: &str, value: &dyn std::fmt::Display| {
        text::encode_stat(out, name.as_bytes(), value.to_string().as_bytes());
    };
    match group {
        Group::General => general(&counters, &servers, shared, &mut put),
        Group::Servers => {
            for (address, server) in &servers {
                let state = match server {
                    Server { hard: 1.., .. } => "hard_tko; ",
                    Server { soft: 1.., .. } => "soft_tko; ",
                    _ => "",
                };
                let Server { up, pending, inflight, found, not_found, stored, .. } = server;
                put(
                    address,
                    &format!(
                        "avg_latency_us:{} pending_reqs:{pending} inflight_reqs:{inflight} {state}up:{up}; \
                         found:{found} notfound:{not_found} stored:{stored}",
                        server.latency_us()
                    ),
                );
            }
        }
        Group::Suspects => {
            for (address, server) in servers.iter().filter(|(_, server)| server.is_ejected()) {
                put(address, &format!("status:tko num_failures:{}", server.failures));
            }
        }
        Group::Hot => {
            for HotLine { count, error, hits, kept, key } in hot {
                put(key, &format!("count:{count} error:{error} hits:{hits} kept_bytes:{kept}"));
            }
        }
    }
    out.extend_from_slice(line::END);
}

fn general(
    counters: &BTreeMap<&str, u64>,
    servers: &BTreeMap<&str, Server>,
    shared: &Shared,
    put: &mut dyn FnMut(&str, &dyn std::fmt::Display),
) {
    let count = |is: fn(&Server) -> bool| servers.values().filter(|server| is(server)).count();
    let sum = |of: fn(&Server) -> u64| servers.values().map(of).sum::<u64>();
    let (requests, failures, replies) = (sum(|s| s.requests), sum(|s| s.failures), sum(|s| s.replies));
    put("version", &format_args!("corecached {}", crate::VERSION));
    put("pid", &std::process::id());
    put("time", &shared.clock.now_s());
    put("uptime", &shared.clock.uptime_s());
    put("io_backend", &shared.backend);
    put("num_servers", &servers.len());
    put("num_servers_new", &count(Server::is_new));
    put("num_servers_up", &count(Server::is_up));
    put("num_servers_down", &count(Server::is_ejected));
    put("num_servers_closed", &count(Server::is_closed));
    put("num_suspect_servers", &count(Server::is_ejected));
    put("num_client_connections", &shared.admission.open());
    put("num_connections_opened", &sum(|s| s.connects));
    put("num_connections_closed", &sum(|s| s.closes));
    put("destination_pending_reqs", &sum(|s| s.pending));
    put("destination_inflight_reqs", &sum(|s| s.inflight));
    put("duration_us", &(sum(|s| s.reply_ms).saturating_mul(1000) / replies.max(1)));
    put("request_sent_count", &requests);
    put("request_replied_count", &replies);
    put("request_error_count", &failures);
    put("request_success_count", &replies.saturating_sub(failures));
    put("config_failures", &shared.config_failures.load(std::sync::atomic::Ordering::Relaxed));
    for (name, number) in counters {
        put(name, number);
    }
}
