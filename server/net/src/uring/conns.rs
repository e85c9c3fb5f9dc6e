//! The table of a driver's connections over io_uring: one slot a connection, used anew with another
//! generation.

use std::os::fd::OwnedFd;

use super::queued_output::QueuedOutput;
use crate::driver::{Close, ConnId};

/// A slot of the table of connections; it keeps its generation while it is empty.
#[derive(Debug)]
pub(super) struct UringSlot {
    pub(super) generation: u32,
    pub(super) conn: Option<UringConn>,
}

#[derive(Debug)]
pub(super) struct UringConn {
    pub(super) socket: OwnedFd,
    pub(super) output: Option<Box<QueuedOutput>>,
    /// A receive is under way.
    pub(super) receiving: bool,
    /// A send of the queued output is under way.
    pub(super) sending: bool,
    pub(super) paused: bool,
    /// Among those whose queued output is sent next.
    pub(super) dirty: bool,
    /// The shard has closed it, or knows that it broke: nothing is reported any more.
    pub(super) closing: Option<Close>,
    /// The peer will send nothing more.
    pub(super) ended: bool,
    /// A cancellation of the receive is under way.
    pub(super) cancelling: bool,
    /// Among those that are examined for resets.
    pub(super) heard: bool,
    /// Nothing has been sent to it since it last sent something.
    pub(super) unanswered: bool,
    /// Accepted from a client, and counted as such; false for a connection to a server.
    pub(super) client: bool,
    /// The address of a connection that is not established yet: the kernel reads it until then.
    pub(super) connecting: Option<Box<socket2::SockAddr>>,
}

/// The connection with this name, closing or not.
pub(super) fn conn_at(conns: &mut [UringSlot], id: ConnId) -> Option<&mut UringConn> {
    let slot = conns.get_mut(id.index as usize)?;
    if slot.generation != id.generation {
        return None;
    }
    slot.conn.as_mut()
}

/// The connection with this name, unless it is closing.
pub(super) fn open_conn_at(conns: &mut [UringSlot], id: ConnId) -> Option<&mut UringConn> {
    conn_at(conns, id).filter(|conn| conn.closing.is_none())
}
