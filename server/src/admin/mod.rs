//! What operators and monitoring ask for: the `stats` family and the commands that tune.

pub mod cachedump;
pub mod conns;
pub mod prefixes;
pub mod stats;
pub mod tunables;
