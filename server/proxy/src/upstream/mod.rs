//! The way to a destination and back: requests out, replies in, and whether there is any use in asking. No I/O and no
//! clock: a driver owns the socket, and shows the time once a turn.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`destination`] | one host:port: its connection, deadlines and health; the face to the driver |
//! | [`connection`] | requests on one connection, and replies matched to them in order |
//! | [`health`] | ejection after failures, and the probes that end it |
//! | [`counters`] | what a destination counts |
//! | [`mod@failure`] | the replies that are made here, for want of one |
//!
//! Once a turn, for each destination that was touched, a driver does what [`Destination::next_action`] says until it
//! says nothing; it sleeps no longer than to [`Destination::next_deadline`], and then calls [`Destination::tick`].

pub mod concurrency;
pub mod connection;
pub mod counters;
pub mod destination;
pub mod failure;
pub mod health;
#[cfg(test)]
mod real;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use connection::{Answer, Broken, Connection, Limits};
pub use counters::Counters;
pub use destination::{Action, Destination, Options, PROBE, Status};
pub use failure::{Reason, failure};
pub use health::{Health, HealthOptions, PoolHealth, Thresholds};
