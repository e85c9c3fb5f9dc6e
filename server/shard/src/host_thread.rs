//! A shard on a plain thread. It hosts the epoll driver. The caller has pinned the thread to its core.

use std::time::Duration;

use corecached_net::tls::SecureDriver;

use crate::service::Service;
use crate::turn::{Progress, Shard};

/// The longest wait for the network. Items expire by the second, so the shard looks at the clock once a
/// second.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Takes turns until the server has stopped.
///
/// # Errors
/// When the driver can no longer be used.
pub fn run<D: SecureDriver, S: Service>(mut shard: Shard<D, S>) -> std::io::Result<()> {
    while shard.turn(WAIT_MAX)? != Progress::Finished {}
    Ok(())
}
