//! Handles that fail over to other children while the reply is an error.

pub(super) mod failover_route;
mod hashed_order;
pub(super) mod latest;
pub(super) mod node;
mod policy;
pub(super) mod salted;
mod salted_order;
