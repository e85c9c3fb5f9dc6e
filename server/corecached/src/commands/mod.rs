//! The commands of the binary that end by themselves.

pub(crate) mod drain;
pub(crate) mod error;
pub(crate) mod healthcheck;
pub(crate) mod seccomp;
