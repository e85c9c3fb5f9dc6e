//! For tests only: a simulated network with its driver, and the shards of a server stepped on one thread by a seed.

pub mod network;
pub mod shards;
