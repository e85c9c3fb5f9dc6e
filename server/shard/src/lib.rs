//! The chassis of one core, for a cache and a proxy alike.
//!
//! ```text
//! types, service   what differs between the two: the types, and the hooks that the chassis calls
//! turn             one shard: a driver, the chassis and a service; the turn
//! core             the chassis: sessions, output, counters, its ends of the mesh
//! requests, batch  from a session's input to the service, batch by batch
//! session          one client; reply_queue: its replies in order
//! mesh             the channels between shards, the slices they lend each other, and owner_of
//! clients          what a service answers through
//! counters, clock, lifecycle, network   what shards share with other threads
//! config, operation, error              what every server is configured with
//! host_glommio, host_thread             what a shard runs on
//! ```
//!
//! Arrows go down only: nothing here names a store's operation, a route or a socket.

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
/// The memcached whose protocol is spoken: what `version` answers.
pub const MEMCACHED_VERSION: &str = "1.6.45";
