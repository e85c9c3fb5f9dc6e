//! Load generator, trace replay and comparisons for corecached and its peers.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`load`] | a run of load against one server, closed or open loop, and its report |
//! | [`replay`] | a recorded trace played look-aside against a server or the engine alone |
//! | [`compare`] | servers against each other: CPU, throughput and latency under several workloads |
//! | [`memory`] | items held and memory used at a limit, and the size-shift test |
//! | [`resize`] | a pool that grows and shrinks under look-aside load with a simulated database |
//! | [`tails`] | latency when one of three servers becomes slow |
//! | [`generators`] | CPU that this load generator uses, compared with memcaslap |
//! | [`peer`], [`pool`], [`machine`] | a server that is measured; the caches of a proxy; the machine |
//! | [`wire`], [`payload`] | requests and replies as bytes; keys and values that can be verified |
//! | [`popularity`], [`sizes`], [`ttl`], [`rng`] | the distributions that a workload draws from |
//! | [`trace`], [`input`] | input files: CTR1 traces, JSON histograms, xz |
//! | [`process`], [`scheduling`] | CPU and memory of a server, from /proc; cores and priorities of threads |
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
pub mod pool;
pub mod popularity;
pub mod process;
pub mod replay;
pub mod resize;
pub mod rng;
pub mod scheduling;
pub mod sizes;
pub mod tails;
pub mod trace;
pub mod ttl;
pub mod wire;

use std::fmt;

/// Why a subcommand failed, as a message for the person who ran it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// Creates a failure with this message.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// Puts what was being done before the message.
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
