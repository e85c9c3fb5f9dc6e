//! Commands of operators on the port of the clients: `stats` and its groups, `lru_crawler`, `watch`, and the
//! commands that tune memcached.

pub(crate) mod cachedump;
pub(crate) mod conns;
pub(crate) mod crawler;
pub(crate) mod prefixes;
pub(crate) mod stats;
pub(crate) mod tunables;
pub(crate) mod watch;
