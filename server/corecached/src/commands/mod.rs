//! Commands of the binary that end by themselves.

pub mod drain;
pub mod healthcheck;
pub mod seccomp;
