//! A shard on a plain thread of its own, pinned to its core: the host of the epoll driver.

use std::time::Duration;

use crate::net::Driver;
use crate::shard::{Progress, Shard};

/// Longest wait for the network: expiry wants a look at the clock once a second.
const WAIT: Duration = Duration::from_secs(1);

/// Take turns until the server has stopped.
///
/// # Errors
/// What made the driver unusable.
pub fn run<D: Driver>(mut shard: Shard<D>) -> std::io::Result<()> {
    while shard.turn(WAIT)? != Progress::Finished {}
    Ok(())
}
