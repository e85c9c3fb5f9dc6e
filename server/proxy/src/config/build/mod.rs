//! From expanded JSON to [`crate::Config`]: every form a handle or a pool can be written in.

mod builder;
mod errors;
mod handles;
mod hash;
mod pools;
mod routes;
mod value;

pub(crate) use builder::{Builder, Checked};
#[cfg(test)]
pub(crate) use handles::REFUSED;
pub(crate) use handles::WrittenHandle;
