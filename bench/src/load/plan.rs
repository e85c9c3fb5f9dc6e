//! The settings of a run.

use std::sync::Arc;
use std::time::Duration;

use corecached_net::endpoints::IoBackend;
use corecached_net::tls::Trust;

use super::{Dataset, Target};
use crate::Failure;
use crate::payload::{KEY_BYTES_MAX, KEY_BYTES_MIN, Keys, Values};
use crate::popularity::Popularity;
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

/// The requests of a run, and the commands that they use.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Commands to use.
    pub protocol: Protocol,
    /// Requests to make.
    pub work: Work,
    /// Number of keys in one get.
    pub keys_per_get: usize,
    /// Share of requests that are sets, 0 to 1.
    pub set_share: f64,
}

impl Default for Traffic {
    /// Gets of one key.
    fn default() -> Self {
        Self { protocol: Protocol::Text, work: Work::Mix, keys_per_get: 1, set_share: 0.0 }
    }
}

/// The items that a run reads and writes.
#[derive(Clone, Debug)]
pub struct Items {
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
}

impl Default for Items {
    /// One key of 20 bytes with a value of 100 bytes.
    fn default() -> Self {
        Self {
            keys: 1,
            first_key: 0,
            popularity: Popularity::Uniform,
            key_sizes: Sizes::Fixed(20),
            value_sizes: Sizes::Fixed(100),
            resize: false,
            ttl: TtlMix::default(),
        }
    }
}

/// The connections of a run, and the number of requests that each carries.
#[derive(Clone, Debug)]
pub struct ConnectionPlan {
    /// Number of connections of all threads.
    pub count: usize,
    /// Number of requests in a burst: they are sent together on a connection, and the next burst follows when
    /// all are answered.
    pub depth: usize,
    /// Number of requests after which a connection is closed and opened again; `None`: never.
    pub requests_per_connection: Option<u64>,
    /// Trusted certificates for TLS; `None`: connections without TLS.
    pub tls: Option<Arc<Trust>>,
}

impl Default for ConnectionPlan {
    /// One connection without TLS and without pipelining.
    fn default() -> Self {
        Self { count: 1, depth: 1, requests_per_connection: None, tls: None }
    }
}

/// The time of a run, or its number of requests.
#[derive(Clone, Copy, Debug)]
pub struct RunLength {
    /// Measured time, unless [`RunLength::requests`] is set.
    pub duration: Duration,
    /// Time of the run before the measured time.
    pub warmup: Duration,
    /// Total number of requests, however long they take, without a warm-up. A run over keys in order makes
    /// one request for each key.
    pub requests: Option<u64>,
    /// Length of an interval of throughput in the report.
    pub interval: Duration,
}

impl Default for RunLength {
    /// Two seconds after a warm-up of 0.4 seconds.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(2),
            warmup: Duration::from_millis(400),
            requests: None,
            interval: Duration::from_secs(1),
        }
    }
}

/// The threads of the load generator.
#[derive(Clone, Debug)]
pub struct ThreadPlan {
    /// Number of threads; connections are divided among them.
    pub count: usize,
    /// Cores that threads are pinned to in turn; empty: not pinned.
    pub cores: Vec<usize>,
    /// Whether threads run before ordinary ones (SCHED_FIFO).
    pub fifo: bool,
    /// Network backend.
    pub io_backend: IoBackend,
}

impl Default for ThreadPlan {
    /// One thread that is not pinned.
    fn default() -> Self {
        Self { count: 1, cores: Vec::new(), fifo: false, io_backend: IoBackend::Auto }
    }
}

/// The settings of a run. [`run`](super::run) checks them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Address of the server.
    pub target: Target,
    /// Requests, and the commands that they use.
    pub traffic: Traffic,
    /// Items that are read and written.
    pub items: Items,
    /// Connections and their bursts.
    pub connections: ConnectionPlan,
    /// When requests are sent.
    pub pace: Pace,
    /// Time or number of requests.
    pub length: RunLength,
    /// Threads of the generator.
    pub threads: ThreadPlan,
    /// Whether every byte and the version of every value is verified, instead of only its key and length.
    pub verify: bool,
    /// Seed of random numbers.
    pub seed: u64,
    /// Number of the run. It is written into every value, and tells values of this run from those of earlier
    /// ones.
    pub run: u32,
    /// Process id of the server, to read its CPU time and memory.
    pub server_pid: Option<u32>,
}

impl Plan {
    /// Creates a plan of two seconds of gets on one connection. The caller sets everything else.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            traffic: Traffic::default(),
            items: Items::default(),
            connections: ConnectionPlan::default(),
            pace: Pace::Closed,
            length: RunLength::default(),
            threads: ThreadPlan::default(),
            verify: false,
            seed: 1,
            run: std::process::id(),
            server_pid: None,
        }
    }

    /// Returns a plan that sets each key of this plan once: four connections, 64 sets in a burst.
    #[must_use]
    pub fn filling(&self) -> Self {
        self.in_order(Traffic { work: Work::Fill, ..self.traffic }, 4, 64)
    }

    /// Returns a plan that reads each key of this plan once: eight connections, 16 gets in a burst.
    #[must_use]
    pub fn reading_back(&self) -> Self {
        self.in_order(Traffic { work: Work::ReadBack, keys_per_get: 1, ..self.traffic }, 8, 16)
    }

    /// Returns a plan that makes one request for each key of this plan.
    fn in_order(&self, traffic: Traffic, connections: usize, depth: usize) -> Self {
        Self {
            traffic,
            connections: ConnectionPlan {
                count: connections,
                depth,
                requests_per_connection: None,
                tls: self.connections.tls.clone(),
            },
            pace: Pace::Closed,
            length: RunLength { requests: Some(u64::from(self.items.keys)), ..self.length },
            threads: ThreadPlan { count: 1, ..self.threads.clone() },
            verify: false,
            ..self.clone()
        }
    }

    pub(super) fn dataset(&self) -> Result<Dataset, Failure> {
        let (least, most) = (KEY_BYTES_MIN as u32, KEY_BYTES_MAX as u32);
        Ok(Dataset {
            keys: Keys::new(SizeTable::new(&self.items.key_sizes, least, most)?),
            values: Values::new(
                SizeTable::new(&self.items.value_sizes, 0, SIZE_BYTES_MAX)?,
                self.items.resize,
            ),
        })
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        let bad = |words: &str| Err(Failure::new(words));
        if self.connections.count == 0
            || self.connections.depth == 0
            || self.traffic.keys_per_get == 0
            || self.items.keys == 0
        {
            return bad(
                "the numbers of connections, pipelined requests, keys, and keys in a get must be at least 1",
            );
        }
        if self.threads.count == 0 || self.threads.count > self.connections.count {
            return bad("the number of threads must be at least 1 and at most the number of connections");
        }
        if self.verify && u64::from(self.items.keys) < self.threads.count as u64 {
            return bad("to verify values, there must be at least as many keys as threads");
        }
        if self.items.first_key.checked_add(self.items.keys).is_none() {
            return bad("the number of the last key must be below 2^32");
        }
        if !(0.0..=1.0).contains(&self.traffic.set_share) {
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
