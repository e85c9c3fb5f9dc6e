//! A run of load against one server.
//!
//! [`Plan`] says what to do, [`run`] does it on one thread a share of the connections, [`Report`] says what came of it.
//! Nothing is allocated, formatted or logged per request: a turn takes in whatever has come, and sends what that frees.

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

use corecached::config::IoBackend;
use corecached::tls::Trust;

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
    /// As soon as the connection's last burst is answered.
    Closed,
    /// At the instants of a Poisson process of this many requests a second, whether or not earlier ones are answered.
    /// Latency counts from the instant.
    Open {
        /// Requests a second; those of one burst arrive together.
        rate_per_s: f64,
        /// Sleep until the next instant instead of polling for it: less exact, and leaves the core to others.
        sleep: bool,
    },
}

/// Which requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Gets and sets of keys drawn by popularity, until time is up.
    Mix,
    /// One set of each key, in order.
    Fill,
    /// One get of each key, in order.
    ReadBack,
}

/// A run, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server is.
    pub target: Target,
    /// Which commands to speak.
    pub protocol: Protocol,
    /// Which requests to make.
    pub work: Work,
    /// Connections, over all threads.
    pub connections: usize,
    /// Requests sent together on a connection; the next ones follow when all are answered.
    pub depth: usize,
    /// Keys in one get.
    pub keys_per_get: usize,
    /// Share of requests that are sets, 0 to 1.
    pub set_share: f64,
    /// Keys there are.
    pub keys: u32,
    /// Number of the first of them: runs with other numbers do not meet.
    pub first_key: u32,
    /// How requests spread over them.
    pub popularity: Popularity,
    /// Bytes of keys.
    pub key_sizes: Sizes,
    /// Bytes of values.
    pub value_sizes: Sizes,
    /// Whether each set of a key has another size.
    pub resize: bool,
    /// Lifetimes.
    pub ttl: TtlMix,
    /// When to send.
    pub pace: Pace,
    /// Requests after which a connection is closed and opened anew.
    pub requests_per_connection: Option<u64>,
    /// Compare every byte of every value, and its version with those written, instead of only its owner and length.
    pub verify: bool,
    /// Threads, each with its share of connections.
    pub threads: usize,
    /// Cores of the threads in turn; empty: not pinned.
    pub cores: Vec<usize>,
    /// Run them before ordinary threads (SCHED_FIFO).
    pub fifo: bool,
    /// How to reach the network.
    pub io_backend: IoBackend,
    /// What secured connections begin with; `None` is plain.
    pub tls: Option<Arc<Trust>>,
    /// Time measured, unless [`Plan::requests`] bounds the run.
    pub duration: Duration,
    /// Time before that.
    pub warmup: Duration,
    /// Requests made in all, however long that takes, without a warm-up; a run over keys in order makes as many as
    /// there are keys.
    pub requests: Option<u64>,
    /// One figure of throughput is kept for each of these.
    pub interval: Duration,
    /// Where random numbers begin.
    pub seed: u64,
    /// Written into every value; tells this run's values from earlier ones.
    pub run: u32,
    /// The server's process, for its CPU time and memory.
    pub server_pid: Option<u32>,
}

/// What a run's keys and values are.
#[derive(Debug)]
struct Dataset {
    keys: Keys,
    values: Values,
}

impl Plan {
    /// A run of two seconds of gets on one connection; everything else is for the caller to set.
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

    /// The same keys and values, each set once: four connections, sets sent by 64.
    #[must_use]
    pub fn filling(&self) -> Self {
        Self { work: Work::Fill, connections: 4, depth: 64, ..self.in_order() }
    }

    /// The same keys and values, each read once, eight connections, gets sent by 16.
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
            return bad("connections, depth, keys and keys per get are at least 1");
        }
        if self.threads == 0 || self.threads > self.connections {
            return bad("threads are at least 1 and at most as many as connections");
        }
        if self.verify && u64::from(self.keys) < self.threads as u64 {
            return bad("to verify, each thread needs a key of its own");
        }
        if self.first_key.checked_add(self.keys).is_none() {
            return bad("keys are numbered below 2^32");
        }
        if !(0.0..=1.0).contains(&self.set_share) {
            return bad("the share of sets lies between 0 and 1");
        }
        match self.pace {
            Pace::Open { rate_per_s, .. } if !(rate_per_s.is_finite() && rate_per_s > 0.0) => {
                bad("the rate is above 0")
            }
            _ => Ok(()),
        }
    }
}

/// Do it.
///
/// # Errors
/// A plan that cannot be carried out, and a server that cannot be reached or whose replies make no sense. Wrong values
/// are no error here: they are counted in the report.
pub fn run(plan: &Plan, progress: &Progress) -> Result<Report, Failure> {
    plan.check()?;
    let dataset = plan.dataset()?;
    let outcomes: Vec<Result<worker::Outcome, Failure>> = std::thread::scope(|scope| {
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
