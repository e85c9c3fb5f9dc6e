//! The service of a proxy: the requests of its clients go to the destinations that its configuration names.
//!
//! ```text
//! args         mcrouter's command line, parsed and checked
//! config       mcrouter's JSON configuration, parsed and checked
//! route        the tree of routes: a request goes in, requests to destinations and a reply come out
//! hash         which destination of a pool a key belongs to
//! request      a command on a key that outlives the input it was parsed from
//! binary       clients of the binary protocol: their requests as commands, and the replies to them
//! reply_format the format in which a client gets its reply
//! merge, hot   gets that are answered without being sent: single flight, and the values of hot keys
//! upstream     destinations: their connections, deadlines and health
//! relay        one shard's part: all of the above at work
//! service      what a shard does with the commands of clients; calls the relay
//! spool        deletes that no destination took, kept on disk
//! discovery    the addresses of servers: DNS and Kubernetes
//! source       where the configuration comes from, and whether it has changed
//! service_info mcrouter's admin commands, which clients ask as keys
//! control      the thread that watches configuration and addresses, and sends every change to all shards
//! forwarding   what shards are built from, and how changes reach them
//! ready_wait   what a proxy that starts waits for before it reports that it is ready
//! stats        what all shards count, under mcrouter's names
//! view         what other threads may read: the reports of shards, and the log of the control thread
//! ```

#![forbid(unsafe_code)]

mod args;
mod binary;
mod config;
mod control;
mod control_log;
mod discovery;
mod forwarding;
pub mod hash;
mod hot;
mod merge;
mod ready_wait;
mod relay;
mod reply_format;
mod reports;
mod request;
mod route;
mod service;
mod service_info;
mod source;
mod spool;
pub mod stats;
mod upstream;
mod view;

/// The target of the log lines that a `LoggingRoute` writes, which are shown without `-v`.
pub const LOGGING_ROUTE_TARGET: &str = "corecached_proxy::route::logging";

pub use args::{CheckedProxy, ConfigSource, ProxyArgs};
pub use config::Config;
pub use control::Control;
pub use control_log::{ControlEvent, ControlLog, PoolLayout, RingView};
pub use discovery::Found;
pub use forwarding::Forwarding;
pub use relay::{Relay, RelaySetup, Snapshot, UpstreamOptions};
pub use reports::Reports;
pub use route::{CompileError, DestinationId, Tree, handle_names};
pub use service::{FrontOptions, Proxy};
pub use spool::{ReplayArgs, ReplayError, Spool, SpoolOptions, Spooler, replay_once};
pub use view::ProxyView;
