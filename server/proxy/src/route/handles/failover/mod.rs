//! Handles that fail over to other children while the reply is an error.

pub(in crate::route) mod failover_route;
pub(in crate::route) mod latest;
pub(in crate::route) mod node;
pub(in crate::route) mod policy;
pub(in crate::route) mod salted;
pub(in crate::route) mod salted_order;
