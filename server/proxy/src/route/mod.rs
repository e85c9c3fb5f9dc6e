//! Routing: the tree of route handles, compiled, and the execution of requests on it without I/O.
//!
//! ```text
//! config::Config + resolved pools -> Tree        immutable, shared by all shards
//! Routes                             a shard's tree and what it keeps of the nodes: buckets, failures, queues
//! Routes::direct                     the destination, for a request that one destination alone decides; no allocation
//! Execution                          every other request: Action::Send goes out, replies come in, Action::Answer ends it
//! ```
//!
//! A request that waits holds its `Rc<Routes>`: a tree that was replaced ends with the last of its requests.
//!
//! Each route handle is one file in `handles/`; the list of them is `handles/mod.rs`. The files here know no
//! handle.

mod action;
mod bucket;
mod build;
mod compile;
mod counters;
mod delayed;
mod error_downgrade;
mod execution;
mod frame;
mod handle;
mod handles;
mod latencies;
mod node;
mod node_set;
mod outcome;
mod recorded;
mod refused;
mod rekey;
mod routing_prefix;
mod slab;
#[cfg(test)]
mod tests;
mod tree;
mod worst;

pub(crate) use action::{Action, CallId, ExecutionLimits};
pub use compile::CompileError;
pub(crate) use counters::{ResizeCounters, TailCounters};
pub(crate) use error_downgrade::ErrorDowngrade;
pub(crate) use execution::Execution;
pub use handles::handle_names;
pub use node_set::DestinationId;
pub(crate) use recorded::destinations_of;
pub(crate) use routing_prefix::without_prefix;
pub use tree::Tree;
pub(crate) use tree::{Destination, Routes};
