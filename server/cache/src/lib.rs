//! The service of a cache: commands are carried out on the store of the shard that owns their key.
//!
//! ```text
//! cache                         the service of one shard: the hooks that the chassis calls
//! requests                      commands on keys: on the own slice, on a borrowed one, or sent to the owner
//! uploads                       values that have not been received completely, or are too large
//! auth, binary, control, dump   authentication, requests without a key, lists of all items
//! observe                       events for clients that watch
//! execute                       one command on one store
//! task                          tasks of sessions, and what shards ask each other
//! context                       what shards share with other threads
//! commands                      stats, lru_crawler, watch and other commands of operators
//! budget, memory, paging        the memory limit, and memory that the kernel provides ahead
//! warm                          contents that outlive a restart; users: passwords
//! config                        memcached's command line
//! ```
//!
//! Nothing here knows a route or a destination. This crate and the proxy do not know each other.
//!
//! # Who calls the store
//!
//! A shard works on a store only while its handle holds the slice ([`corecached_shard::mesh::slice`]). These
//! files call methods of [`corecached_engine::Store`]:
//!
//! - `execute` carries out commands. Only here do commands read or change items.
//! - `uploads` writes the bytes of a value before its command is carried out, and drops them when the client
//!   breaks off. The upload becomes an item only through `execute`.
//! - `observe` reads the item of a command before and after it, while somebody watches, and takes the list of
//!   evicted items. It changes no item.
//! - `cache` does what belongs to no command: upkeep, prefetching, memory limits, statistics, pinned values
//!   that come back, and `flush_all`, which every shard carries out for itself.
//! - `commands::cachedump` and `commands::crawler` walk over all items, and `warm` saves and restores them.
//!
//! So `execute`, `uploads` and `observe` know both commands and stores. `requests` only chooses the store.

#![forbid(unsafe_code)]

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
