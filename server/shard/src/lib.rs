//! The chassis of a server: everything that a cache and a proxy have in common. A server has one [`Shard`]
//! for each core.
//!
//! ```text
//! host_glommio, host_thread    what a shard runs on
//! turn                         the shard: a driver, the chassis and a service that take turns
//! requests                     from a session's input to the service, batch by batch
//! service                      the hooks of cache and proxy that the chassis calls
//! core                         the chassis: sessions, output, counters, and this shard's ends of the mesh
//! batch                        commands that are parsed ahead
//! clients                      the trait through which a service answers the clients of all shards
//! session, reply_queue         one client connection, and its replies in order
//! lifecycle                    starting, draining and stopping
//! mesh                         channels between shards, slices that they borrow, and owner_of
//! types                        the types that differ between cache and proxy
//! counters, clock, network     what shards share with other threads
//! config, operation, error     the options that every server has
//! process                      CPU time and memory of the process
//! ```
//!
//! A file imports only files below it in this list. Nothing here knows an operation of a store, a route or a
//! system call of the network.

pub mod batch;
pub mod clients;
pub mod clock;
pub mod config;
pub mod core;
pub mod counters;
pub mod error;
pub mod host_glommio;
pub mod host_thread;
pub mod lifecycle;
pub mod mesh;
pub mod network;
pub mod operation;
pub mod process;
pub mod reply_queue;
mod requests;
pub mod service;
pub mod session;
pub mod turn;
pub mod types;

pub use self::core::{Core, CoreSetup, ServerContext};
pub use self::error::ConfigError;
pub use self::mesh::owner::owner_of;
pub use self::service::{Service, Step};
pub use self::session::{Session, State};
pub use self::turn::{Progress, Shard};
pub use self::types::{ServiceTypes, Task};

/// The version of corecached.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of memcached whose protocol is spoken. The command `version` answers with it.
pub const MEMCACHED_VERSION: &str = "1.6.45";
