//! What becomes of a request: the routing tree, compiled, and its execution without I/O.
//!
//! ```text
//! config::Config + resolved pools -> Tree        immutable, shared by all shards
//! Routes                             a shard's tree and the state of its nodes: buckets, failures, queues
//! Routes::direct                     the destination, for a request that one destination alone decides; no allocation
//! Execution                          every other request: Action::Send goes out, replies come in, Action::Answer ends it
//! ```
//!
//! A request that waits holds its `Rc<Routes>`: a tree that was replaced ends with the last of its requests.

mod all;
mod big_value;
mod bounded_load;
mod bucket;
mod compile;
mod delay;
mod execution;
mod failover;
mod frame;
mod hedge;
mod key_split;
mod latencies;
mod load_balancer;
mod logging;
mod lookaside;
mod migrate;
mod miss_failover;
mod modify;
mod outcome;
mod outstanding;
mod rate_limit;
mod refused;
mod replicated;
mod resize;
mod salted;
mod selector;
mod shadow;
mod shard_split;
mod slab;
mod slow_warm_up;
mod spool;
mod tail_counters;
#[cfg(test)]
mod tests;
mod tree;

pub use compile::CompileError;
pub use execution::{Action, CallId, Execution, Limits};
pub use resize::ResizeCounters;
pub use tail_counters::TailCounters;
pub use tree::{Destination, DestinationId, Routes, Softening, Tree, without_prefix};
