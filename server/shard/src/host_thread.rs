//! A shard on a plain thread of its own, pinned to its core: the host of the epoll driver.

use std::time::Duration;

use corecached_net::tls::SecureDriver;

use crate::service::Service;
use crate::turn::{Progress, Shard};

/// Longest wait for the network: expiry wants a look at the clock once a second.
const WAIT: Duration = Duration::from_secs(1);

/// Take turns until the server has stopped.
///
/// # Errors
/// What made the driver unusable.
pub fn run<D: SecureDriver, S: Service>(mut shard: Shard<D, S>) -> std::io::Result<()> {
    while shard.turn(WAIT)? != Progress::Finished {}
    Ok(())
}
