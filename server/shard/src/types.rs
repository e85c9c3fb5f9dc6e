//! The types that differ between services: what their sessions do, and what their shards send each other.

use std::marker::Send;

/// What a service has a session do instead of reading commands.
pub trait Task {
    /// Whether the session waits for input of the client, so that the idle timeout applies.
    fn awaits_client(&self) -> bool;

    /// Whether the connection may be closed. `ended`: the client will send nothing more. `stalled`: input is
    /// left.
    fn may_close(&self, ended: bool, stalled: bool) -> bool;
}

/// The task of a service whose sessions only read commands. It has no value.
#[derive(Clone, Copy, Debug)]
pub enum NoTask {}

impl Task for NoTask {
    fn awaits_client(&self) -> bool {
        match *self {}
    }

    fn may_close(&self, _: bool, _: bool) -> bool {
        match *self {}
    }
}

/// The types of a service. Its behaviour is [`crate::service::Service`].
pub trait ServiceTypes: Sized + 'static {
    /// What a session may be doing instead of reading commands.
    type Task: Task;
    /// Something that a session does once all of its earlier replies have been sent.
    type Barrier;
    /// How to reply once all shards have answered a broadcast.
    type Then;
    /// One request of a shard to another, without the bytes that it names
    /// ([`crate::mesh::message::Request`]).
    type Ask: Copy + Send;
    /// A request to every shard. It is carried out between two commands of the connection that asks.
    type Broadcast: Copy + Send;
    /// One shard's answer to a broadcast.
    type Answer: Send;

    /// Bytes of memory that `answer` holds. They count against the bound of the mesh.
    fn answer_bytes(answer: &Self::Answer) -> usize;
}
