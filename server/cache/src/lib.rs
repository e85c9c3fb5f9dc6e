//! The service of a cache: commands carried out on the store of the shard that owns their key.
//!
//! ```text
//! cache       the service of one shard; requests: own, borrowed or forwarded
//! execute     a command on a key, carried out on a store
//! uploads     values that have not come whole; auth, binary, control, dump: what else a client may ask
//! observe     what is told to those that watch
//! commands    stats, crawler, watch and what else operators ask; task: what sessions and shards do for them
//! context     what shards share with other threads; memory, budget, paging: the memory limit
//! warm        contents that outlive a restart; users: passwords
//! config      memcached's command line
//! ```
//!
//! Nothing here names a route or a destination; the proxy and this crate never see each other.

mod auth;
mod binary;
pub mod budget;
mod cache;
mod commands;
pub mod config;
mod context;
mod control;
mod dump;
mod execute;
mod memory;
mod observe;
mod paging;
mod requests;
mod task;
mod uploads;
mod users;
mod warm;

pub use cache::Cache;
pub use commands::conns::listen_address_text;
pub use context::CacheContext;
pub use memory::Memory;
pub use paging::Paging;
pub use users::{Users, UsersError};
pub use warm::Warm;
