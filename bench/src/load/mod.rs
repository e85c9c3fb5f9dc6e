//! A run of load against one server.
//!
//! [`run`] carries out a [`Plan`] on one or more threads, each with a share of the connections, and returns a
//! [`Report`]. Nothing is allocated, formatted or logged per request: each turn of a thread processes all
//! data that has been received, and sends the next requests on connections that became free.

mod args;
mod connection;
mod progress;
mod report;
mod tally;
mod target;
mod versions;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use corecached_net::endpoints::IoBackend;
use corecached_net::tls::Trust;

pub use args::{LoadArgs, main};
pub use progress::Progress;
pub use report::{Faults, Interval, Latency, Report};
pub use target::Target;

use crate::Failure;
use crate::payload::{KEY_BYTES_MAX, KEY_BYTES_MIN, Keys, Values};
use crate::popularity::Popularity;
use crate::process;
use crate::sizes::{SIZE_BYTES_MAX, SizeTable, Sizes};
use crate::ttl::TtlMix;
use crate::wire::Protocol;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as the previous burst of the connection is answered.
    Closed,
    /// At the instants of a Poisson process, whether or not earlier requests are answered. Latency counts
    /// from the instant.
    Open {
        /// Requests a second; those of one burst are due together.
        rate_per_s: f64,
        /// Sleep until the next instant instead of polling: less exact, but leaves the core to others.
        sleep: bool,
    },
}

/// The requests that a run makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Gets and sets of keys drawn by popularity, until time is up.
    Mix,
    /// One set of each key, in order.
    Fill,
    /// One get of each key, in order.
    ReadBack,
}

/// The settings of a run. [`run`] checks them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Address of the server.
    pub target: Target,
    /// Commands to use.
    pub protocol: Protocol,
    /// Requests to make.
    pub work: Work,
    /// Number of connections of all threads.
    pub connections: usize,
    /// Number of requests in a burst: they are sent together on a connection, and the next burst follows when
    /// all are answered.
    pub depth: usize,
    /// Number of keys in one get.
    pub keys_per_get: usize,
    /// Share of requests that are sets, 0 to 1.
    pub set_share: f64,
    /// Number of keys.
    pub keys: u32,
    /// Number of the first key; runs with disjoint ranges of numbers have no key in common.
    pub first_key: u32,
    /// Popularity of keys.
    pub popularity: Popularity,
    /// Sizes of keys in bytes.
    pub key_sizes: Sizes,
    /// Sizes of values in bytes.
    pub value_sizes: Sizes,
    /// Whether each set of a key draws a new size.
    pub resize: bool,
    /// TTLs of items.
    pub ttl: TtlMix,
    /// When requests are sent.
    pub pace: Pace,
    /// Number of requests after which a connection is closed and opened again; `None`: never.
    pub requests_per_connection: Option<u64>,
    /// Whether every byte and the version of every value is verified, instead of only its key and length.
    pub verify: bool,
    /// Number of threads; connections are divided among them.
    pub threads: usize,
    /// Cores that threads are pinned to in turn; empty: not pinned.
    pub cores: Vec<usize>,
    /// Whether threads run before ordinary ones (SCHED_FIFO).
    pub fifo: bool,
    /// Network backend.
    pub io_backend: IoBackend,
    /// Trusted certificates for TLS; `None`: connections without TLS.
    pub tls: Option<Arc<Trust>>,
    /// Measured time, unless [`Plan::requests`] is set.
    pub duration: Duration,
    /// Time of the run before the measured time.
    pub warmup: Duration,
    /// Total number of requests, however long they take, without a warm-up. A run over keys in order makes
    /// one request for each key.
    pub requests: Option<u64>,
    /// Length of an interval of throughput in the report.
    pub interval: Duration,
    /// Seed of random numbers.
    pub seed: u64,
    /// Number of the run. It is written into every value, and tells values of this run from those of earlier
    /// ones.
    pub run: u32,
    /// Process id of the server, to read its CPU time and memory.
    pub server_pid: Option<u32>,
}

/// The keys and values of a run.
#[derive(Debug)]
struct Dataset {
    keys: Keys,
    values: Values,
}

impl Plan {
    /// Creates a plan of two seconds of gets on one connection. The caller sets everything else.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            protocol: Protocol::Text,
            work: Work::Mix,
            connections: 1,
            depth: 1,
            keys_per_get: 1,
            set_share: 0.0,
            keys: 1,
            first_key: 0,
            popularity: Popularity::Uniform,
            key_sizes: Sizes::Fixed(20),
            value_sizes: Sizes::Fixed(100),
            resize: false,
            ttl: TtlMix::default(),
            pace: Pace::Closed,
            requests_per_connection: None,
            verify: false,
            threads: 1,
            cores: Vec::new(),
            fifo: false,
            io_backend: IoBackend::Auto,
            tls: None,
            duration: Duration::from_secs(2),
            warmup: Duration::from_millis(400),
            requests: None,
            interval: Duration::from_secs(1),
            seed: 1,
            run: std::process::id(),
            server_pid: None,
        }
    }

    /// Returns a plan that sets each key of this plan once: four connections, 64 sets in a burst.
    #[must_use]
    pub fn filling(&self) -> Self {
        Self { work: Work::Fill, connections: 4, depth: 64, ..self.in_order() }
    }

    /// Returns a plan that reads each key of this plan once: eight connections, 16 gets in a burst.
    #[must_use]
    pub fn reading_back(&self) -> Self {
        Self { work: Work::ReadBack, connections: 8, depth: 16, keys_per_get: 1, ..self.in_order() }
    }

    fn in_order(&self) -> Self {
        Self {
            pace: Pace::Closed,
            threads: 1,
            requests: Some(u64::from(self.keys)),
            requests_per_connection: None,
            verify: false,
            ..self.clone()
        }
    }

    fn dataset(&self) -> Result<Dataset, Failure> {
        let (least, most) = (KEY_BYTES_MIN as u32, KEY_BYTES_MAX as u32);
        Ok(Dataset {
            keys: Keys::new(SizeTable::new(&self.key_sizes, least, most)?),
            values: Values::new(SizeTable::new(&self.value_sizes, 0, SIZE_BYTES_MAX)?, self.resize),
        })
    }

    fn check(&self) -> Result<(), Failure> {
        let bad = |words: &str| Err(Failure::new(words));
        if self.connections == 0 || self.depth == 0 || self.keys_per_get == 0 || self.keys == 0 {
            return bad(
                "the numbers of connections, pipelined requests, keys, and keys in a get must be at least 1",
            );
        }
        if self.threads == 0 || self.threads > self.connections {
            return bad("the number of threads must be at least 1 and at most the number of connections");
        }
        if self.verify && u64::from(self.keys) < self.threads as u64 {
            return bad("to verify values, there must be at least as many keys as threads");
        }
        if self.first_key.checked_add(self.keys).is_none() {
            return bad("the number of the last key must be below 2^32");
        }
        if !(0.0..=1.0).contains(&self.set_share) {
            return bad("the share of sets must lie between 0 and 1");
        }
        match self.pace {
            Pace::Open { rate_per_s, .. } if !(rate_per_s.is_finite() && rate_per_s > 0.0) => {
                bad("the rate must be above 0")
            }
            _ => Ok(()),
        }
    }
}

/// Carries out a plan.
///
/// # Errors
/// The plan is not valid, the server cannot be reached, or its replies make no sense. Wrong values are not
/// errors: the report counts them.
pub fn run(plan: &Plan, progress: &Progress) -> Result<Report, Failure> {
    plan.check()?;
    let dataset = plan.dataset()?;
    let outcomes: Vec<Result<worker::ThreadOutcome, Failure>> = std::thread::scope(|scope| {
        let spawn = |number| {
            let dataset = &dataset;
            std::thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn_scoped(scope, move || worker::run(plan, dataset, number, progress))
        };
        let started: Vec<_> = (0..plan.threads).map(spawn).collect();
        let wait = |handle: std::thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|_| Err(Failure::new("a load thread panicked")))
        };
        started.into_iter().map(|handle| handle.map_err(Failure::from).and_then(wait)).collect()
    });
    let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
    let rss_bytes = plan.server_pid.and_then(process::rss_bytes);
    Ok(Report::new(plan, &dataset, &outcomes, rss_bytes))
}
