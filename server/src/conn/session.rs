//! One client: its parser, what it sent that could not be worked on yet, and replies that wait for earlier ones.
//!
//! A session does no I/O and knows no store. It keeps the order: a reply goes out at once when nothing before it is
//! outstanding, and is held otherwise. Idle, it owns no heap memory beyond itself.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use corecached_protocol::{Exptime, Parser, binary::Envelope};

use crate::admin::crawler::ItemList;
use crate::net::{ConnId, Pinned};
use crate::proxy::stats::Group;
use crate::shard::message::Broadcast;

/// Requests of one connection that may be unanswered at once; past it, it stops being parsed.
pub const SLOTS_MAX: usize = 256;

/// Bytes of replies held behind one that is outstanding; past it, the connection stops being parsed.
pub const HELD_BYTES_MAX: usize = 1 << 20;

/// Sequence numbers use these bits, so that none is [`crate::shard::message::GATHER`].
const SEQUENCE_MASK: u32 = 0x7fff_ffff;
/// Largest buffers worth keeping for the next connection that has to wait: slots, and bytes of held replies.
const SPARE_SLOTS: usize = 64;
const SPARE_HELD_BYTES: usize = 16 * 1024;
/// Spares kept by a shard.
const SPARES_MAX: usize = 64;

/// What the next bytes of a connection are.
#[derive(Debug, Default)]
pub enum State {
    /// A command.
    #[default]
    Command,
    /// Who it is, before anything else.
    Unauthenticated,
    /// So many bytes of a value nobody wants.
    Swallow(u64),
    /// A value stored piece by piece.
    Upload(Box<Upload>),
    /// Nothing, until all earlier replies have gone out and then this has been done.
    Barrier(Box<Barrier>),
    /// Nothing, until every shard has answered.
    Gather(Box<Gather>),
    /// Nothing, until every item has been listed.
    Dump(Box<Dump>),
    /// Of no interest: it is told what happens, and says nothing.
    Watching,
    /// Of no interest: the connection closes once its replies have gone out.
    Closing,
}

/// A value on its way into a store.
#[derive(Debug)]
pub struct Upload {
    /// What announced it, parsed again when the value is complete.
    pub line: Vec<u8>,
    /// The key's hash.
    pub hash: u64,
    /// The shard that stores it.
    pub owner: usize,
    /// Bytes of the value still to come.
    pub left: usize,
    /// Bytes of the CRLF that came already; both from the start where none follows the value.
    pub terminator: usize,
    /// Something else than CRLF followed the value.
    pub bad_terminator: bool,
}

/// A command that touches every shard, or that must see all earlier ones done.
#[derive(Debug)]
pub enum Barrier {
    /// Ask every shard, then answer.
    Ask {
        /// What.
        what: Broadcast,
        /// What to answer with.
        then: Then,
    },
    /// `stats WORDS`
    Stats {
        /// What of.
        words: Vec<u8>,
        /// Asked for in the binary protocol.
        binary: Option<Envelope>,
    },
    /// `flush_all` of a proxy: every destination is told, and nothing follows before all have answered.
    FlushDestinations {
        /// Seconds from now, or unix time.
        delay: Option<Exptime>,
        /// No reply is wanted.
        noreply: bool,
    },
    /// Read the certificates again.
    RefreshCertificates,
    /// Nothing more: it was enough that all earlier replies have come.
    Answered,
}

/// What an answered broadcast is turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// One line.
    Line(&'static [u8]),
    /// Nothing: `noreply`.
    Silence,
    /// What whoever was asked answered.
    Told,
    /// Success, in the binary protocol.
    BinaryDone(Envelope),
    /// The list of prefixes, in the binary protocol.
    BinaryPrefixes(Envelope),
    /// A list of so many items.
    Items(u32),
    /// The list of connections.
    Conns,
    /// The list of prefixes.
    Prefixes,
    /// What the shards of a proxy count.
    ProxyStats(Group),
}

/// A list of all items, on its way to the client a piece at a time.
#[derive(Clone, Copy, Debug)]
pub struct Dump {
    /// How items are listed.
    pub list: ItemList,
    /// The shard whose items come next.
    pub shard: usize,
    /// Where among them.
    pub from: u64,
    /// That shard has been asked and has not answered.
    pub asked: bool,
}

/// Answers to a broadcast.
#[derive(Debug)]
pub struct Gather {
    /// Shards that have not answered.
    pub missing: usize,
    /// What the others said.
    pub answers: Vec<Vec<u8>>,
    /// What to make of them.
    pub then: Then,
}

/// A reply whose turn has not come.
#[derive(Debug, Default)]
pub struct Slot {
    /// False while its shard works on it.
    pub ready: bool,
    /// What it is part of.
    part: Part,
    /// Where it lies in `held`.
    start: u32,
    len: u32,
    /// A value to send between two parts of it.
    pinned: Option<(Box<Pinned>, u32)>,
}

/// What part of its line's reply a reply is, when keys of a retrieval may fail one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// One of several keys, and not the last.
    Key,
    /// The last of several keys, with the end of the reply.
    LastKey,
}

/// Replies of one connection that are outstanding or held behind such.
#[derive(Debug, Default)]
struct Waiting {
    /// Oldest first.
    slots: VecDeque<Slot>,
    /// Bytes of those that are ready.
    held: Vec<u8>,
}

/// Buffers for connections that wait, lent to them by their shard: most connections idle most of the time.
#[expect(clippy::vec_box, reason = "the boxes move between here and the sessions")]
#[derive(Debug, Default)]
pub struct Spares(Vec<Box<Waiting>>);

impl Spares {
    fn take(&mut self) -> Box<Waiting> {
        self.0.pop().unwrap_or_default()
    }

    fn put(&mut self, mut waiting: Box<Waiting>) {
        debug_assert!(waiting.slots.is_empty());
        waiting.held.clear();
        let modest = waiting.slots.capacity() <= SPARE_SLOTS && waiting.held.capacity() <= SPARE_HELD_BYTES;
        if modest && self.0.len() < SPARES_MAX {
            self.0.push(waiting);
        }
    }
}

/// Where a client connects from, in few bytes.
#[derive(Debug)]
pub enum Peer {
    /// A file system socket.
    Unix,
    /// IPv4
    V4(SocketAddrV4),
    /// IPv6
    V6(Box<SocketAddrV6>),
}

impl From<Option<SocketAddr>> for Peer {
    fn from(address: Option<SocketAddr>) -> Self {
        match address {
            None => Self::Unix,
            Some(SocketAddr::V4(address)) => Self::V4(address),
            Some(SocketAddr::V6(address)) => Self::V6(Box::new(address)),
        }
    }
}

/// One connection, as the shard that accepted it sees it.
#[derive(Debug)]
pub struct Session {
    /// Its name in the driver.
    pub conn: ConnId,
    /// Where it stands between two commands.
    pub parser: Parser,
    /// What the next bytes are.
    pub state: State,
    /// A key of the retrieval being answered failed, which ended the reply: nothing is sent for its other keys.
    failed_line: bool,
    /// Received and not parsed, from `input_at` on.
    pub input: Vec<u8>,
    /// Bytes of `input` that are done with.
    pub input_at: usize,
    /// Replies outstanding; `None` when all have gone out.
    waiting: Option<Box<Waiting>>,
    /// Number of the oldest of them.
    first_sequence: u32,
    /// The shard turn and the place in its list of sends where this connection's last output is.
    pub output: (u64, usize),
    /// Bytes of output in that turn.
    pub output_bytes: usize,
    /// The driver has been told not to receive.
    pub paused: bool,
    /// The socket is behind: no parsing until the driver says it caught up.
    pub behind: bool,
    /// Stopped with input left: others go first, a reply is due first, or there is no room.
    pub stalled: bool,
    /// On the shard's list of sessions to settle at the end of the turn.
    pub touched: bool,
    /// On the shard's list of sessions to go on with.
    pub listed: bool,
    /// The client will send nothing more.
    pub ended: bool,
    /// Number of the listening socket it came by.
    pub listener: u16,
    /// Second its last bytes came.
    pub last_s: u32,
    /// Where it connects from.
    pub peer: Peer,
}

impl Session {
    /// A session for a new connection.
    #[must_use]
    pub fn new(conn: ConnId, peer: Peer, parser: Parser, state: State, now_s: u32) -> Self {
        Self {
            conn,
            parser,
            state,
            failed_line: false,
            input: Vec::new(),
            input_at: 0,
            waiting: None,
            first_sequence: 0,
            output: (0, 0),
            output_bytes: 0,
            paused: false,
            behind: false,
            stalled: false,
            touched: false,
            listed: false,
            ended: false,
            listener: 0,
            last_s: now_s,
            peer,
        }
    }

    /// Whether every request so far has been answered.
    #[inline]
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.waiting.is_none()
    }

    /// Whether one more request may be outstanding.
    #[inline]
    #[must_use]
    pub fn has_slot(&self) -> bool {
        self.waiting
            .as_ref()
            .is_none_or(|waiting| waiting.slots.len() < SLOTS_MAX && waiting.held.len() < HELD_BYTES_MAX)
    }

    /// Number of the next request, whose reply will come from another shard, or later.
    pub fn await_reply(&mut self, part: Part, spares: &mut Spares) -> u32 {
        let slots = &mut self.waiting.get_or_insert_with(|| spares.take()).slots;
        let sequence = self.first_sequence.wrapping_add(slots.len() as u32) & SEQUENCE_MASK;
        slots.push_back(Slot { part, ..Slot::default() });
        sequence
    }

    /// Hold a reply that is known already behind those that are not. `write` appends it to the buffer it is given and
    /// returns the value to pin into it and where.
    pub fn hold(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Option<(usize, Pinned)>) {
        let Waiting { slots, held } = &mut **self.waiting.as_mut().expect("something is outstanding");
        let start = held.len();
        let pinned = write(held).map(|(at, pinned)| (Box::new(pinned), (at - start) as u32));
        let len = (held.len() - start) as u32;
        if len > 0 || pinned.is_some() {
            slots.push_back(Slot { ready: true, part: Part::Whole, start: start as u32, len, pinned });
        }
    }

    /// The reply to request `sequence` has come. When it is the oldest the caller sends it, and then what
    /// [`Session::next_ready`] yields. Otherwise it is held here.
    pub fn arrived(
        &mut self,
        sequence: u32,
        bytes: &[u8],
        pinned: Option<(Pinned, usize)>,
        spares: &mut Spares,
    ) -> Arrived {
        let Waiting { slots, held } = &mut **self.waiting.as_mut().expect("a reply nobody waits for");
        let at = (sequence.wrapping_sub(self.first_sequence) & SEQUENCE_MASK) as usize;
        assert!(at < slots.len() && !slots[at].ready, "a reply nobody waits for");
        let part = slots[at].part;
        if at == 0 {
            slots.pop_front();
            self.first_sequence = self.first_sequence.wrapping_add(1);
            self.settle(spares);
            return if goes_out(&mut self.failed_line, part, bytes) {
                Arrived::Due(pinned)
            } else {
                Arrived::Dropped
            };
        }
        let start = held.len() as u32;
        held.extend_from_slice(bytes);
        let pinned = pinned.map(|(pinned, split)| (Box::new(pinned), split as u32));
        slots[at] = Slot { ready: true, part, start, len: bytes.len() as u32, pinned };
        Arrived::Held
    }

    /// The oldest reply, when it is ready: give its parts to `send`. False when there is none.
    pub fn next_ready(
        &mut self,
        spares: &mut Spares,
        send: impl FnOnce(&[u8], Option<(Pinned, usize)>),
    ) -> bool {
        let Some(Waiting { slots, held }) = self.waiting.as_deref_mut() else { return false };
        if !slots.front().is_some_and(|slot| slot.ready) {
            return false;
        }
        let slot = slots.pop_front().expect("looked at it");
        self.first_sequence = self.first_sequence.wrapping_add(1);
        let bytes = &held[slot.start as usize..(slot.start + slot.len) as usize];
        let bytes = if goes_out(&mut self.failed_line, slot.part, bytes) { bytes } else { &[] };
        send(bytes, slot.pinned.map(|(pinned, split)| (*pinned, split as usize)));
        self.settle(spares);
        true
    }

    /// Once caught up, give the buffers back.
    fn settle(&mut self, spares: &mut Spares) {
        if self.waiting.as_ref().is_some_and(|waiting| waiting.slots.is_empty())
            && let Some(waiting) = self.waiting.take()
        {
            spares.put(waiting);
        }
    }

    /// The connection is gone: values lent to its replies go back.
    pub fn abandon(&mut self, mut released: impl FnMut(Pinned)) {
        for slot in self.waiting.take().into_iter().flat_map(|waiting| waiting.slots) {
            if let Some((pinned, _)) = slot.pinned {
                released(*pinned);
            }
        }
    }

    /// Bytes received and not parsed.
    #[must_use]
    pub fn unparsed(&self) -> usize {
        self.input.len() - self.input_at
    }
}

/// Whether the reply to a part of a line is sent: not behind a part that was an error. `failed` says that one was.
fn goes_out(failed: &mut bool, part: Part, bytes: &[u8]) -> bool {
    if part == Part::Whole {
        return true;
    }
    let goes = !*failed;
    *failed = part == Part::Key && (*failed || !(bytes.is_empty() || bytes.starts_with(b"VALUE ")));
    goes
}

/// What became of a reply.
#[derive(Debug)]
pub enum Arrived {
    /// It goes out now.
    Due(Option<(Pinned, usize)>),
    /// It waits for earlier ones.
    Held,
    /// Nothing is sent for it; those behind it may be ready.
    Dropped,
}
