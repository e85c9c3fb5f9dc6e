//! Behaviour of the store, operation by operation and against a model.

mod appends;
mod basics;
mod expiry;
mod graves;
mod large_values;
mod leases;
mod limits;
#[allow(clippy::duplicate_mod)] // once more in `oracle`, of another kind of store
mod model;
mod oracle;
mod random;
mod save;
mod support;
mod uniques;
mod walks;

/// What the model drives.
use crate::Store;
