//! Bytes to commands and replies, both directions. No I/O, no storage, no unsafe.
#![forbid(unsafe_code)]
mod command;
mod exptime;
pub use command::*;
pub use exptime::*;
