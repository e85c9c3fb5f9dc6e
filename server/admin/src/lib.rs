//! What operators and monitoring ask for: the `stats` family, the commands that tune, and pages over HTTP.

pub mod cachedump;
pub mod conns;
pub mod crawler;
pub mod drain;
pub mod heartbeats;
pub mod html;
pub mod http;
pub mod page;
pub mod prefixes;
pub mod stats;
pub mod tunables;
pub mod watch;
