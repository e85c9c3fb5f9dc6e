//! Behaviour of the store, operation by operation and against a model.

mod basics;
mod model;
mod random;
mod support;
