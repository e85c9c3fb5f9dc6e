//! What a shard does with requests: the cache and the proxy are one [`Service`] each, chosen by type when a
//! shard is made.
//!
//! The chassis ([`Core`]) owns connections, replies, the mesh, counters and the turn. It calls the service
//! with itself as an argument, so that the service can answer; the two own nothing of each other.

use corecached_engine::PinnedValue;
use corecached_net::Event;
use corecached_net::tls::SecureDriver;
use corecached_protocol::{Command, Rejected};

use crate::batch::Ready;
use crate::core::Core;
use crate::mesh::message::{ReplyTo, Request};
use crate::session::{Gather, Session};
use crate::types::ServiceTypes;

/// The result of handling some of a session's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes have been handled.
    Took(usize),
    /// Nothing can be done before more input has been received.
    NeedMore,
    /// Nothing can be done before another shard has answered, or the client has taken its output.
    Stalled,
    /// There is no room in the mesh: to be tried again in the next turn.
    Full,
}

/// What one shard does with requests. The chassis calls these hooks.
///
/// Hooks with an empty default are those that only one of the services needs.
pub trait Service: ServiceTypes {
    // --- the turn ---

    /// When the service next has something to do without being asked, in unix milliseconds.
    fn deadline_ms(&self) -> Option<u64> {
        None
    }

    /// Whether the service has more to do at once.
    fn has_work(&self) -> bool {
        false
    }

    /// The shard is about to sleep.
    fn park(&mut self) {}

    /// The shard is awake again.
    fn unpark(&mut self) {}

    /// A turn begins; `is_new_second` when the clock's second has changed since the last one.
    fn begin_turn(&mut self, core: &mut Core<Self>, is_new_second: bool);

    /// Something happened on a connection. Returns the event unless it was one of the service's own
    /// connections.
    fn event(
        &mut self,
        core: &mut Core<Self>,
        driver: &mut impl SecureDriver,
        event: Event,
    ) -> Option<Event> {
        let _ = (core, driver);
        Some(event)
    }

    /// Work that comes before the mesh's messages. True when there was any.
    fn take_news(&mut self, core: &mut Core<Self>) -> bool {
        let _ = core;
        false
    }

    /// Work that comes after all requests of the turn. True when more is left.
    fn upkeep(&mut self, core: &mut Core<Self>, driver: &mut impl SecureDriver) -> bool {
        let _ = (core, driver);
        false
    }

    /// The turn's output is about to be sent: the last chance to add to it.
    fn finish_turn(&mut self, core: &mut Core<Self>, driver: &mut impl SecureDriver);

    /// Shows the service's numbers to other threads, beside the chassis' counters.
    fn publish(&self, core: &Core<Self>) {
        let _ = core;
    }

    /// The server stops, and no shard has a connection any more.
    fn stopped(&mut self, core: &mut Core<Self>) {
        let _ = core;
    }

    // --- connections ---

    /// A client has connected.
    fn accepted(&mut self, core: &mut Core<Self>, session: &mut Session<Self>) {
        let _ = (core, session);
    }

    /// A client's connection is gone, for `reason`.
    fn closed(&mut self, core: &mut Core<Self>, session: &Session<Self>, reason: &str) {
        let _ = (core, session, reason);
    }

    // --- requests ---

    /// The hash of `key`, which decides which shard owns it.
    fn hash_of(&self, core: &Core<Self>, key: &[u8]) -> u64 {
        core.hasher.hash(key)
    }

    /// The longest value, in bytes, that may be stored under a key of this length with these client flags.
    fn value_bytes_max(&self, key_len: usize, client_flags: u32) -> usize;

    /// Whether [`Service::prefetch`] and [`Service::prefetch_item`] do anything.
    const PREFETCHES: bool = false;

    /// Brings the first thing that a request for this hash will read on its way into the cache of the CPU.
    fn prefetch(&self, hash: u64) {
        let _ = hash;
    }

    /// Brings the second thing that the request will read, once the first has arrived.
    fn prefetch_item(&self, hash: u64) {
        let _ = hash;
    }

    /// Carries out a complete command on a key, or sends it to another shard. False when there is no room in
    /// the mesh.
    fn execute(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, ready: &Ready<'_>) -> bool;

    /// Carries out a command that [`Service::execute`] is not given: it has no key, or its value is not
    /// complete or too large. `line` is the command line, and `after` the input after it.
    fn command(
        &mut self,
        core: &mut Core<Self>,
        session: &mut Session<Self>,
        command: &Command<'_>,
        line: &[u8],
        after: &[u8],
    ) -> Step;

    /// Answers a line that is no command.
    fn reject(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, rejected: &Rejected);

    /// Continues the session's task with `input`, which may be empty.
    fn resume(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, input: &[u8]) -> Step;

    /// All replies before this barrier have been sent.
    fn pass_barrier(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, barrier: Self::Barrier);

    /// All shards have answered a broadcast.
    fn gathered(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, gather: Gather<Self>);

    /// A shard has answered a session that gathers nothing.
    fn answered(&mut self, core: &mut Core<Self>, session: &mut Session<Self>, answer: Self::Answer) {
        let _ = (core, session, answer);
    }

    /// The commands of one session have been worked on for now.
    fn end_batch(&mut self, core: &mut Core<Self>) {
        let _ = core;
    }

    /// Does what shard `from` asks.
    fn serve(&mut self, core: &mut Core<Self>, from: usize, to: ReplyTo, request: &Request<'_, Self::Ask>);

    /// Does this shard's part of a broadcast. `asking` is the session that asks, if it is one of this
    /// shard's.
    fn obey(
        &mut self,
        core: &mut Core<Self>,
        what: Self::Broadcast,
        asking: Option<&Session<Self>>,
    ) -> Self::Answer;

    /// A value that this shard lent has been sent.
    fn take_back(&mut self, value: PinnedValue) {
        drop(value);
    }
}
