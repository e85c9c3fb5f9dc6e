//! The proxy's configuration: mcrouter's JSON, read, expanded and checked. Nothing in [`Config`] is left to
//! be parsed or to be wrong; it is immutable, and what names resolve to later is kept beside it.
//!
//! ```text
//! json, macros   text -> JSON without macros; the calls that macros can make are in calls and loops
//! build          JSON -> pools, names and the forms of a handle; each kind of handle is parsed in its own file, see
//!                `route/handles`
//! checked        the result
//! show           the result as JSON again, for check-config
//! ```

mod build;
mod calls;
mod checked;
mod concurrency;
mod error;
mod handle;
mod hash;
mod json;
mod loops;
mod macros;
mod options;
mod pool;
mod read;
mod rings;
mod server;
mod show;
#[cfg(test)]
mod tests;
mod warm_resize;
mod zone;

#[cfg(test)]
pub(crate) use build::REFUSED;
pub(crate) use build::{Builder, Checked, WrittenHandle};
pub use checked::Config;
pub(crate) use concurrency::AdaptiveConcurrency;

pub(crate) use handle::{Child, ErrorSet, FailoverErrors, Handle, HandleSet, Handles, PoolUse};
pub(crate) use handle::{HandleId, Hash, Limit, PoolId};
pub(crate) use hash::WrittenHash;
pub(crate) use json::{Json, JsonNode};
pub(crate) use macros::{Import, ImportError};
pub(crate) use options::normal_prefix;
pub(crate) use options::{DistanceTimeouts, Options};
pub(crate) use pool::{EjectedLimit, Member, Pool, ResolvedPools, Service};
#[cfg(test)]
pub(crate) use rings::EARLIER_MAX;
pub(crate) use rings::{Ring, Rings};
pub(crate) use server::{Address, Server};
pub(crate) use warm_resize::WarmResize;
