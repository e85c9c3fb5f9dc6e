//! The trait through which a service answers the clients of all shards.

use corecached_net::Send;

use crate::mesh::message::{Piece, ReplyTo};

/// The clients of all shards, and the output of this shard's turn.
pub trait Clients {
    /// Delivers the next piece of the reply to request `to` of `shard`. `write` appends it to the buffer that
    /// it is given.
    fn answer(&mut self, shard: usize, to: ReplyTo, piece: Piece, write: impl FnOnce(&mut Vec<u8>));

    /// The bytes that are sent at the end of the turn, and the connections that they are sent on.
    fn output(&mut self) -> (&mut Vec<u8>, &mut Vec<Send>);
}
