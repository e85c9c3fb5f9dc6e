//! Handles that fail over to other children while the reply is an error.

pub(in crate::route) mod node;
pub(in crate::route) mod salted_order;
