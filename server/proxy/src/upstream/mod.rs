//! Destinations: the requests sent to them, their replies, and their health. No I/O and no clock: a driver
//! owns the sockets and gives the time once a turn.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`destination`] | one host:port: its connection, deadlines and health; the interface to the driver |
//! | [`connection`] | requests on one connection, and replies matched to them in order |
//! | [`health`] | ejection after failures, and the probes that end it |
//! | [`concurrency`] | how many gets a slow destination may have pending |
//! | [`counters`] | what a destination counts |
//! | [`mod@failure`] | the error replies that are made here |
//!
//! Once a turn, for each destination that something happened to, a driver carries out the actions that
//! [`Destination::next_action`] returns until there are none. It sleeps no longer than to
//! [`Destination::next_deadline`], and then calls [`Destination::tick`].

mod concurrency;
mod connection;
mod counters;
mod destination;
pub(crate) mod failure;
mod health;
#[cfg(test)]
mod real;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub(crate) use connection::ConnectionLimits;
pub(crate) use destination::{Destination, DestinationAction, DestinationOptions, DestinationStatus};
pub(crate) use failure::failure;
pub(crate) use health::HealthOptions;
pub(crate) use health::{EjectionThresholds, PoolHealth};
