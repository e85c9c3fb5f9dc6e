//! corecached: a memcached-compatible cache in which every core owns a slice of the keys.
//!
//! ```text
//! net        the kernel: accept, receive, send; io_uring or epoll
//! conn       a connection's unparsed input and its replies in order
//! shard      parse, owner_of(key), then
//!              mine         shard::execute -> engine::Store -> the reply in the arena
//!              another's    shard::mesh carries the command there and the reply back
//! net        one send a connection for everything its batch came to
//! ```
//!
//! [`server::start`] puts it together; [`runtime`] is what it runs on; [`admin`] answers operators; [`warm`] carries
//! contents over a restart.

pub mod admin;
pub mod config;
pub mod conn;
pub mod discovery;
pub mod healthcheck;
pub mod metrics;
pub mod net;
pub mod proxy;
pub mod runtime;
pub mod seccomp;
pub mod server;
pub mod shard;
#[cfg(test)]
mod sim;
pub mod tls;
pub mod udp;
pub mod warm;

/// This server's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The memcached whose protocol this server speaks: what `version` answers.
pub const MEMCACHED_VERSION: &str = "1.6.45";
