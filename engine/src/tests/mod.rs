//! Behaviour of the store, operation by operation and against a model.

mod basics;
mod expiry;
mod large_values;
mod leases;
mod limits;
mod model;
mod random;
mod support;
mod uniques;
