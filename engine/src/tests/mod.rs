//! Tests of the store: of each operation, and of random operations against a model.

mod appends;
mod basics;
mod expiry;
mod graves;
mod large_values;
mod leases;
mod limits;
#[allow(clippy::duplicate_mod)] // `oracle` includes it again, for another kind of store
mod model;
mod oracle;
mod random;
mod save;
mod support;
mod uniques;
mod walks;

/// The kind of store that `model` tests.
use crate::Store;
