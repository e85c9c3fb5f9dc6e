//! Load generator, trace replay and comparisons for corecached and its peers.
//!
//! | module | noun |
//! | --- | --- |
//! | [`load`] | a run of load against one server, closed or open loop, and its report |
//! | [`replay`] | a recorded trace played look-aside against a server or the engine alone |
//! | [`compare`] | servers against each other: CPU, throughput and latency of the README's workloads |
//! | [`memory`] | items held and memory taken at a limit, and the size-shift test |
//! | [`resize`] | a pool that grows and shrinks under look-aside load with a simulated database |
//! | [`generators`] | this load generator's own CPU beside memcaslap's |
//! | [`peer`], [`pool`], [`machine`] | a server started to be measured; the caches behind it, if it is a proxy; what it was measured on |
//! | [`wire`], [`payload`] | requests and replies as bytes; keys and values that say whose they are |
//! | [`popularity`], [`sizes`], [`ttl`], [`rng`] | what a workload draws from |
//! | [`trace`], [`input`] | files: CTR1 traces, JSON histograms, xz |
//! | [`process`], [`place`] | what /proc says of a server; where threads run |
//!
//! Method and caveats are in the crate's README.

pub mod compare;
pub mod generators;
pub mod input;
pub mod load;
pub mod machine;
pub mod memory;
pub mod payload;
pub mod peer;
pub mod place;
pub mod pool;
pub mod popularity;
pub mod process;
pub mod replay;
pub mod resize;
pub mod rng;
pub mod sizes;
pub mod tails;
pub mod trace;
pub mod ttl;
pub mod wire;

use std::fmt;

/// Why a command could not do what it was asked, for the person who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// In words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// The reason, with what was being done put before it.
    #[must_use]
    pub fn during(self, what: impl fmt::Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}
