//! What a service answers through when it works for the clients of all shards.

use corecached_net::Send;

use crate::mesh::message::{Piece, ReplyTo};

/// The clients of all shards, and the output of this shard's turn.
pub trait Clients {
    /// What `write` appends to the buffer it is given is the next piece of the reply to `to` on `shard`.
    fn answer(&mut self, shard: usize, to: ReplyTo, piece: Piece, write: impl FnOnce(&mut Vec<u8>));

    /// The bytes that are sent at the end of the turn, and where to.
    fn output(&mut self) -> (&mut Vec<u8>, &mut Vec<Send>);
}
