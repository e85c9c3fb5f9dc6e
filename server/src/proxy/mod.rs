//! The proxy: what a client asked for goes to the destinations that the configuration names.

pub mod upstream;
