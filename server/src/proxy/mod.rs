//! The proxy: what a client asked for goes to the destinations that the configuration names.
//!
//! ```text
//! config    mcrouter's JSON, checked
//! route     the tree made of it: a request goes in, sends and an answer come out
//! hash      the destination of a pool that a key belongs to
//! request   a command that outlives the input it came in
//! upstream  destinations: their connections, deadlines and health
//! ```

pub mod config;
pub mod hash;
pub mod request;
pub mod route;
pub mod upstream;
