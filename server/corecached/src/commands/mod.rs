//! The commands of the binary that end by themselves.

pub mod drain;
pub mod error;
pub mod healthcheck;
pub mod seccomp;
