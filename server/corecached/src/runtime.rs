//! What a shard runs on: cores, the clock, and the two hosts that take its turns.
//!
//! Everything that differs between the hosts is here; shards and sessions never see it.

pub mod budget;
pub mod clock;
pub mod container;
pub mod cores;
pub mod files;
pub mod host_glommio;
pub mod host_thread;
pub mod paging;
pub mod process;
