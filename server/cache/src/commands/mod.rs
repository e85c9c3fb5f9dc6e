//! What operators ask a cache on its own port: `stats` and its groups, `lru_crawler`, `watch`, and what tunes memcached.

pub(crate) mod cachedump;
pub mod conns;
pub(crate) mod crawler;
pub(crate) mod prefixes;
pub mod stats;
pub(crate) mod tunables;
pub mod watch;
