//! The chassis of one shard, apart from its driver and its service: sessions, replies, its ends of the mesh,
//! counters, the clock, and the output of the turn.
//!
//! Nothing here calls the service; what does is in `requests` and `turn`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use corecached_engine::{KeyHasher, Seconds};
use corecached_net::{ConnId, Pinned, Send};
use corecached_protocol::{Limits, Parser};

use crate::clients::Clients;
use crate::clock::Clock;
use crate::counters::{Cells, Counters};
use crate::lifecycle::Lifecycle;
use crate::mesh::Mesh;
use crate::mesh::message::{Piece, ReplyTo};
use crate::network::Network;
use crate::reply_queue::{Part, Spares};
use crate::session::{Gather, Session, State};
use crate::types::ServiceTypes;

/// What the shards of a server and its other threads share. Nothing in it is written on the data path but
/// [`Cells`], each by its own shard.
#[derive(Clone, Debug)]
pub struct ServerContext {
    /// The time.
    pub clock: Arc<Clock>,
    /// Whether the server runs, drains or stops.
    pub lifecycle: Arc<Lifecycle>,
    /// Listening sockets, and limits of connections.
    pub network: Arc<Network>,
    /// The published numbers of each shard.
    pub cells: Arc<[Cells]>,
}

/// What the chassis of a shard is made from.
pub struct CoreSetup<S: ServiceTypes> {
    /// Its ends of the mesh.
    pub mesh: Mesh<S>,
    /// Hashes keys, the same way on all shards.
    pub hasher: KeyHasher,
    /// What all shards share.
    pub context: ServerContext,
}

/// The connections of one shard.
struct Sessions<S: ServiceTypes> {
    /// By the index of their [`ConnId`]. A session is taken out of its slot while something happens to it.
    slots: Vec<Option<Box<Session<S>>>>,
    open: usize,
    /// Sessions to continue in the next turn, oldest first.
    run_list: VecDeque<ConnId>,
    /// Indices of the sessions that something happened to in this turn.
    touched: Vec<u32>,
}

/// The output of one turn.
#[derive(Default)]
struct Output {
    /// Every byte that is sent at the end of the turn.
    arena: Vec<u8>,
    /// Which of them go where.
    sends: Vec<Send>,
    /// Number of the turn.
    turn: u64,
}

/// The chassis of one shard: its sessions, its output of the turn, and its ends of the mesh.
pub struct Core<S: ServiceTypes> {
    /// Index of this shard.
    pub me: usize,
    /// The second at which the turn began.
    pub now: Seconds,
    /// Hashes every key, once.
    pub hasher: KeyHasher,
    /// Bounds of the parser.
    pub limits: Limits,
    /// What this shard counts.
    pub counters: Counters,
    /// The channels to the other shards.
    pub mesh: Mesh<S>,
    /// What all shards share.
    pub context: ServerContext,
    /// Buffers for replies that have to wait.
    pub(crate) spares: Spares,
    sessions: Sessions<S>,
    output: Output,
    /// Index of the session from which idle connections are still to be looked for in this second.
    pub(crate) idle_at: usize,
    /// This shard has said that it has no connection left while the server stops.
    drained: bool,
}

impl<S: ServiceTypes> Core<S> {
    pub(crate) fn new(setup: CoreSetup<S>) -> Self {
        let CoreSetup { mesh, hasher, context } = setup;
        Self {
            me: mesh.me(),
            now: Seconds(context.clock.now_s()),
            hasher,
            limits: Limits::default(),
            counters: Counters::default(),
            mesh,
            context,
            spares: Spares::default(),
            sessions: Sessions { slots: Vec::new(), open: 0, run_list: VecDeque::new(), touched: Vec::new() },
            output: Output::default(),
            idle_at: usize::MAX,
            drained: false,
        }
    }

    // --- the turn ---

    /// Whether a session or the stop of the server leaves something to do at once.
    pub(crate) fn has_work(&self) -> bool {
        !self.sessions.run_list.is_empty()
            || self.idle_at < self.sessions.slots.len()
            || self.context.lifecycle.is_stopping()
    }

    /// A turn begins, with an empty `arena` to write its output into. True when the second has changed since
    /// the last turn.
    pub(crate) fn begin_turn(&mut self, arena: Vec<u8>, waited: bool) -> bool {
        debug_assert!(arena.is_empty() && self.output.sends.is_empty());
        self.output.arena = arena;
        self.output.turn += 1;
        self.counters.waits += u64::from(waited);
        let now = Seconds(self.context.clock.now_s());
        let is_new_second = now > self.now;
        if is_new_second {
            self.now = now;
            if self.context.network.idle_timeout_s > 0 {
                self.idle_at = 0;
            }
        }
        is_new_second
    }

    /// The output of the turn: every byte, and which of them go where.
    pub(crate) fn end_turn(&mut self) -> (Vec<u8>, &mut Vec<Send>) {
        (std::mem::take(&mut self.output.arena), &mut self.output.sends)
    }

    pub(crate) const fn output_bytes(&self) -> usize {
        self.output.arena.len()
    }

    /// Shows the counters to other threads.
    pub fn publish_counters(&self) {
        self.context.cells[self.me].publish(&self.counters);
    }

    /// Whether all shards are without connections. Until then one of them may still need the keys of another.
    pub(crate) fn others_drained(&mut self) -> bool {
        if !std::mem::replace(&mut self.drained, true) {
            self.context.lifecycle.count_drained();
        }
        self.context.lifecycle.drained() == self.mesh.shards()
    }

    // --- connections ---

    /// Adds a session for a new connection, and takes it out: [`Core::put`] puts it in its slot.
    pub(crate) fn add(&mut self, conn: ConnId, listener: u16, peer: Option<SocketAddr>) -> Box<Session<S>> {
        let index = conn.index as usize;
        if index >= self.sessions.slots.len() {
            self.sessions.slots.resize_with(index + 1, || None);
        }
        assert!(self.sessions.slots[index].is_none(), "the driver gave out an index that is in use");
        let parser = Parser::speaking(self.context.network.listeners[usize::from(listener)].wire);
        self.sessions.open += 1;
        Box::new(Session::new(conn, peer.into(), parser, listener, self.now.0))
    }

    /// Removes a session for good.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<Box<Session<S>>> {
        let session = self.take(conn)?;
        self.sessions.open -= 1;
        Some(session)
    }

    pub(crate) const fn open(&self) -> usize {
        self.sessions.open
    }

    /// Every session that is in its slot.
    pub fn sessions(&self) -> impl Iterator<Item = &Session<S>> {
        self.sessions.slots.iter().flatten().map(|session| &**session)
    }

    pub(crate) fn slots(&self) -> usize {
        self.sessions.slots.len()
    }

    pub(crate) fn session_at(&mut self, index: usize) -> Option<&mut Session<S>> {
        self.sessions.slots[index].as_deref_mut()
    }

    /// Takes a session out of its slot to work on it. [`Core::put`] puts it back. `None` when the connection
    /// is gone.
    pub fn take(&mut self, conn: ConnId) -> Option<Box<Session<S>>> {
        let slot = self.sessions.slots.get_mut(conn.index as usize)?;
        if slot.as_ref()?.conn != conn {
            return None;
        }
        slot.take()
    }

    /// Puts a session back into its slot. The end of the turn looks at it.
    pub fn put(&mut self, mut session: Box<Session<S>>) {
        let index = session.conn.index;
        debug_assert!(self.sessions.slots[index as usize].is_none(), "a session is put back once");
        if !session.touched {
            session.touched = true;
            self.sessions.touched.push(index);
        }
        self.sessions.slots[index as usize] = Some(session);
    }

    /// Puts a new session into its slot. Nothing has happened to it yet.
    pub(crate) fn store(&mut self, session: Box<Session<S>>) {
        let index = session.conn.index as usize;
        self.sessions.slots[index] = Some(session);
    }

    /// The next session that something happened to in this turn, from the last one back.
    pub(crate) fn next_touched(&mut self) -> Option<u32> {
        self.sessions.touched.pop()
    }

    /// The `number`-th session that something happened to in this turn. `None` past the last one.
    pub fn touched(&self, number: usize) -> Option<Option<&Session<S>>> {
        let index = *self.sessions.touched.get(number)?;
        Some(self.sessions.slots[index as usize].as_deref())
    }

    /// Has this session continued in the next turn.
    pub fn list(&mut self, session: &mut Session<S>) {
        if !session.listed {
            session.listed = true;
            self.sessions.run_list.push_back(session.conn);
        }
    }

    pub(crate) fn run_list(&mut self) -> &mut VecDeque<ConnId> {
        &mut self.sessions.run_list
    }

    // --- output ---

    /// Bytes of output that this session had in this turn.
    pub fn output_len(&self, session: &Session<S>) -> usize {
        if session.output.0 == self.output.turn { session.output_bytes } else { 0 }
    }

    /// Lets `write` append to this session's output of the turn. It returns a value to pin into what it
    /// appends, with the offset in the buffer where the value goes. Only when all earlier replies have been
    /// sent.
    #[inline]
    pub fn write_now(
        &mut self,
        session: &mut Session<S>,
        write: impl FnOnce(&mut Self, &mut Vec<u8>) -> Option<(usize, Pinned)>,
    ) {
        debug_assert!(session.replies.is_caught_up());
        self.open_range(session);
        let mut arena = std::mem::take(&mut self.output.arena);
        let large = write(self, &mut arena);
        self.output.arena = arena;
        self.close_range(session, large);
    }

    /// Has this session's output go on at the end of the arena, with one send for each connection and turn.
    fn open_range(&mut self, session: &mut Session<S>) {
        let Output { arena, sends, turn: now } = &mut self.output;
        let (turn, at) = session.output;
        let mut queued = false;
        if turn == *now {
            match &mut sends[at] {
                Send::Bytes { end, .. } if *end == arena.len() => return,
                Send::Bytes { start, end, queued, .. } if !*queued => {
                    let moved = *start..*end;
                    *end = *start;
                    let start = arena.len();
                    arena.extend_from_within(moved);
                    let end = arena.len();
                    session.output.1 = sends.len();
                    sends.push(Send::Bytes { conn: session.conn, start, end, queued: false });
                    return;
                }
                Send::Bytes { .. } | Send::Pinned { .. } => queued = true,
            }
        } else {
            session.output_bytes = 0;
        }
        let (start, end) = (arena.len(), arena.len());
        session.output = (*now, sends.len());
        sends.push(Send::Bytes { conn: session.conn, start, end, queued });
    }

    /// The bytes written to the arena since [`Core::open_range`] are this session's, with a pinned value in
    /// them at the arena's byte `.0`, if any.
    fn close_range(&mut self, session: &mut Session<S>, large: Option<(usize, Pinned)>) {
        let Output { arena, sends, .. } = &mut self.output;
        let len = arena.len();
        let Send::Bytes { end, queued, .. } = &mut sends[session.output.1] else {
            unreachable!("a range is open")
        };
        debug_assert!(*end <= len);
        session.output_bytes += len - *end;
        let Some((split, pinned)) = large else {
            *end = len;
            return;
        };
        session.output_bytes += pinned.value.len();
        *end = split;
        *queued = true;
        self.counters.bytes_written += pinned.value.len() as u64;
        let conn = session.conn;
        sends.push(Send::Pinned { conn, pinned });
        session.output.1 = sends.len();
        sends.push(Send::Bytes { conn, start: split, end: len, queued: true });
    }

    /// Answers with what `write` appends: now, or after the replies that are outstanding.
    pub fn reply(&mut self, session: &mut Session<S>, write: impl FnOnce(&mut Vec<u8>)) {
        if session.replies.is_caught_up() {
            self.open_range(session);
            write(&mut self.output.arena);
            self.close_range(session, None);
        } else {
            session.replies.enqueue(|held| {
                write(held);
                None
            });
        }
    }

    /// Answers with a line.
    pub fn say(&mut self, session: &mut Session<S>, line: &[u8]) {
        self.reply(session, |out| out.extend_from_slice(line));
    }

    /// Answers with a line, unless the client sent `noreply`.
    pub fn say_unless(&mut self, session: &mut Session<S>, noreply: bool, line: &[u8]) {
        if !noreply {
            self.say(session, line);
        }
    }

    /// Delivers a reply to a request that had to wait, or a piece of it. `write` appends it to the buffer
    /// that it is given. `pinned` is a value to send inside the reply, and how many bytes of the reply come
    /// before it. Returns that value when the connection is gone.
    #[must_use]
    pub(crate) fn deliver(
        &mut self,
        to: ReplyTo,
        piece: Piece,
        pinned: Option<(Pinned, usize)>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Pinned> {
        let Some(mut session) = self.take(to.conn) else { return pinned.map(|(pinned, _)| pinned) };
        if session.replies.is_broken() {
            self.put(session); // until the end of the turn closes it
            return pinned.map(|(pinned, _)| pinned);
        }
        if session.replies.is_due(to.sequence) {
            self.open_range(&mut session);
            let arena = &mut self.output.arena;
            let start = arena.len();
            write(arena);
            debug_assert!(pinned.as_ref().is_none_or(|(_, split)| start + split <= arena.len()));
            if !session.replies.deliver_due(&arena[start..], piece, &mut self.spares) {
                arena.truncate(start);
            }
            if session.replies.is_broken() {
                session.state = State::Closing; // what follows would be taken for the rest of the reply
            }
            self.close_range(&mut session, pinned.map(|(pinned, split)| (start + split, pinned)));
        } else {
            session.replies.keep(to.sequence, piece, pinned, write);
        }
        while session.replies.has_kept() {
            self.open_range(&mut session);
            let (arena, mut large) = (&mut self.output.arena, None);
            session.replies.deliver_kept(&mut self.spares, |bytes, pinned| {
                large = pinned.map(|(pinned, split)| (arena.len() + split, pinned));
                arena.extend_from_slice(bytes);
            });
            self.close_range(&mut session, large);
        }
        if session.stalled || matches!(session.state, State::Barrier(_)) {
            self.list(&mut session);
        }
        self.put(session);
        None
    }

    // --- requests ---

    /// Reserves the next slot in the session's order for a reply that comes later.
    pub fn reserve(&mut self, session: &mut Session<S>, part: Part) -> ReplyTo {
        ReplyTo { conn: session.conn, sequence: session.replies.reserve(part, &mut self.spares) }
    }

    /// Parses no more of this session until all of its earlier replies have been sent and the barrier has
    /// been passed.
    pub fn wait_for_replies(&self, session: &mut Session<S>, barrier: S::Barrier) {
        session.state = State::Barrier(Box::new(barrier));
    }

    /// Asks every other shard to do its part of a broadcast, of which `own` is this shard's answer. Parses no
    /// more of this session until all have answered.
    pub fn broadcast(&mut self, session: &mut Session<S>, what: S::Broadcast, own: S::Answer, then: S::Then) {
        for shard in (0..self.mesh.shards()).filter(|&shard| shard != self.me) {
            // A few bytes past the bound of the mesh, once for each connection at most.
            self.mesh.requests(shard).push_broadcast(session.conn, what);
        }
        let missing = self.mesh.shards() - 1;
        session.state = State::Gather(Box::new(Gather { missing, answers: vec![own], then }));
    }
}

impl<S: ServiceTypes> Clients for Core<S> {
    fn answer(&mut self, shard: usize, to: ReplyTo, piece: Piece, write: impl FnOnce(&mut Vec<u8>)) {
        if shard == self.me {
            let undelivered = self.deliver(to, piece, None, write);
            debug_assert!(undelivered.is_none(), "nothing was pinned");
            return;
        }
        self.mesh.replies(shard).push_reply(to, piece, |out| {
            write(out);
            None
        });
    }

    fn output(&mut self) -> (&mut Vec<u8>, &mut Vec<Send>) {
        (&mut self.output.arena, &mut self.output.sends)
    }
}
