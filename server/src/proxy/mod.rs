//! The proxy's parts that need no network: which destination a key belongs to, what the configuration says, and
//! what becomes of a request.
//!
//! ```text
//! config    mcrouter's JSON, checked
//! route     the tree made of it: a request goes in, sends and an answer come out
//! hash      the destination of a pool that a key belongs to
//! request   a command that outlives the input it came in
//! ```

pub mod config;
pub mod hash;
pub mod request;
pub mod route;
