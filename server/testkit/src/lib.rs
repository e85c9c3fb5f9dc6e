//! For tests only: a simulated network with its driver, the shards of a server stepped on one thread by a
//! seed, and one memcached for all tests, which a seed makes fail.

#![forbid(unsafe_code)]

pub mod memcached;
pub mod network;
pub mod shards;
pub mod wire;
