//! The proxy: what a client asked for goes to the destinations that the configuration names.
//!
//! ```text
//! config    mcrouter's JSON, checked
//! route     the tree made of it: a request goes in, sends and an answer come out
//! hash      the destination of a pool that a key belongs to
//! request   a command that outlives the input it came in
//! merge     gets that need not be sent: single flight, and values of hot keys
//! hot       the keys asked for most, and for a moment their values
//! upstream  destinations: their connections, deadlines and health
//! relay     one shard's part: all of the above at work
//! shape     the form in which a client gets a reply
//! spool     deletes that no destination took, on disk
//! stats     what all shards count, under mcrouter's names
//! awaited   what a proxy that starts waits for before it is ready
//! chronicle what the control thread did, for those who ask
//! control   the configuration and the names in it, watched; every change goes to all shards
//! args      mcrouter's command line
//! ```

pub mod args;
mod awaited;
pub mod chronicle;
pub mod config;
pub mod control;
pub mod discovery;
mod forwarding;
pub mod hash;
pub mod hot;
pub mod merge;
pub mod relay;
mod reports;
pub mod request;
pub mod route;
mod service;
pub mod shape;
pub mod spool;
pub mod stats;
pub mod upstream;
mod view;

/// The target of the log lines that a `LoggingRoute` writes, which are shown without `-v`.
pub const LOGGING_ROUTE_TARGET: &str = "corecached_proxy::route::logging";

pub use forwarding::Forwarding;
pub use service::{FrontOptions, Proxy};
pub use view::ProxyView;
