//! One client: its parser, what it sent that could not be worked on yet, and replies that wait for earlier ones.
//!
//! A session does no I/O and knows no store. It keeps the order: a reply goes out at once when nothing before it is
//! outstanding, and is held otherwise. Idle, it owns no heap memory beyond itself.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use corecached_protocol::{Exptime, Parser, binary::Envelope, line};

use crate::admin::crawler::ItemList;
use crate::net::{ConnId, Pinned};
use crate::proxy::stats::Group;
use crate::shard::message::{Broadcast, Piece};

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

/// Bytes of a value still to come below which another system call is not worth what it saves.
const DIRECT_MIN_BYTES: usize = 8 * 1024;

impl Upload {
    /// Whether shard `me` has the rest received straight to its place: its own, and enough of it. A value that no CRLF
    /// follows (the binary protocol) ends with its last piece, which goes the other way.
    #[must_use]
    pub fn is_received_directly(&self, me: usize) -> bool {
        self.owner == me && self.left >= DIRECT_MIN_BYTES && self.terminator == 0
    }
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
struct Slot {
    /// False while more of it is to come.
    ready: bool,
    /// What it is part of.
    part: Part,
    /// The beginning of it has been dealt with; whether by sending it.
    begun: Option<bool>,
    /// Where it lies in `held`, if it came whole.
    start: u32,
    len: u32,
    /// What came of it and was not sent, if it comes in pieces.
    #[expect(clippy::box_collection, reason = "hardly any slot has one")]
    pieces: Option<Box<Vec<u8>>>,
    /// A value to send between two parts of it.
    pinned: Option<(Box<Pinned>, u32)>,
}

impl Slot {
    /// What is kept of it; `held` is where replies lie that came whole.
    fn kept<'a>(&'a self, held: &'a [u8]) -> &'a [u8] {
        match &self.pieces {
            Some(pieces) => pieces,
            None => &held[self.start as usize..(self.start + self.len) as usize],
        }
    }
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
    /// Bytes of those that came whole and are ready.
    held: Vec<u8>,
    /// Bytes of those that come in pieces.
    pieces_bytes: usize,
    /// So many of the first are ready, and keys of one line that is not complete.
    keys_ready: usize,
    /// The line at the front is sent as it comes: it is complete, or too long to be kept until it is.
    line_goes: bool,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.slots.len() >= SLOTS_MAX || self.held.len() + self.pieces_bytes >= HELD_BYTES_MAX
    }

    /// Whether the line whose first key is at the front may be sent. One error is the reply to all of it: so not before
    /// all its keys are answered, or there is no room for more of them.
    fn line_goes(&mut self) -> bool {
        if self.line_goes || self.is_full() {
            self.line_goes = true;
            return true;
        }
        while let Some(slot) = self.slots.get(self.keys_ready)
            && slot.ready
        {
            if slot.part == Part::LastKey {
                self.leave_the_error(self.keys_ready + 1);
                self.line_goes = true;
                return true;
            }
            self.keys_ready += 1;
        }
        false
    }

    /// Of the line that is the first `count` replies, nothing is sent but its first error, if there is one.
    fn leave_the_error(&mut self, count: usize) {
        let is_error = |slot: &Slot| {
            let bytes = slot.kept(&self.held);
            !(bytes.is_empty() || bytes.starts_with(b"VALUE ") || bytes == line::END)
        };
        let Some(error) = self.slots.iter().take(count).position(is_error) else { return };
        for (at, slot) in self.slots.iter_mut().take(count).enumerate() {
            if at != error {
                slot.len = 0;
                self.pieces_bytes -= slot.pieces.take().map_or(0, |pieces| pieces.len());
            }
        }
    }
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
        (waiting.pieces_bytes, waiting.keys_ready, waiting.line_goes) = (0, 0, false);
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
    /// A reply of which some was sent will not be completed: nothing that followed could be told from it.
    pub broken: bool,
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
            broken: false,
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
        self.waiting.as_ref().is_none_or(|waiting| !waiting.is_full())
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
        let Waiting { slots, held, .. } = &mut **self.waiting.as_mut().expect("something is outstanding");
        let start = held.len();
        let pinned = write(held).map(|(at, pinned)| (Box::new(pinned), (at - start) as u32));
        let len = (held.len() - start) as u32;
        if len > 0 || pinned.is_some() {
            slots.push_back(Slot { ready: true, start: start as u32, len, pinned, ..Slot::default() });
        }
    }

    fn place(&self, sequence: u32) -> usize {
        (sequence.wrapping_sub(self.first_sequence) & SEQUENCE_MASK) as usize
    }

    /// Whether what comes of the reply to request `sequence` is to be sent, and told by [`Session::passes`]; otherwise it
    /// is for [`Session::keep`].
    #[inline]
    #[must_use]
    pub fn is_due(&mut self, sequence: u32) -> bool {
        let at = self.place(sequence);
        let waiting = self.waiting.as_mut().expect("a reply nobody waits for");
        assert!(at < waiting.slots.len() && !waiting.slots[at].ready, "a reply nobody waits for");
        let slot = &waiting.slots[0];
        at == 0 && slot.pieces.is_none() && (slot.part != Part::Key || waiting.line_goes())
    }

    /// The reply that is due, or a piece of it, is `bytes`. Returns whether they are to be sent.
    #[inline]
    pub fn passes(&mut self, bytes: &[u8], piece: Piece, spares: &mut Spares) -> bool {
        let waiting = self.waiting.as_mut().expect("it is due");
        let slot = &mut waiting.slots[0];
        let goes = match (slot.begun, piece) {
            (Some(began), Piece::Broken) => {
                if began {
                    self.broken = true;
                    self.state = State::Closing; // what follows would be taken for the rest of it
                }
                false
            }
            (Some(goes), _) => goes,
            (None, _) => goes_out(&mut self.failed_line, slot.part, bytes),
        };
        if piece == Piece::More {
            slot.begun = Some(goes);
        } else {
            self.pop(spares);
        }
        goes
    }

    /// The reply at the front is done with.
    fn pop(&mut self, spares: &mut Spares) -> Option<Slot> {
        let waiting = self.waiting.as_mut()?;
        let slot = waiting.slots.pop_front()?;
        self.first_sequence = self.first_sequence.wrapping_add(1);
        waiting.keys_ready = waiting.keys_ready.saturating_sub(1);
        if slot.part != Part::Key {
            waiting.line_goes = false;
        }
        if waiting.slots.is_empty()
            && let Some(waiting) = self.waiting.take()
        {
            spares.put(waiting);
        }
        Some(slot)
    }

    /// The reply to request `sequence`, or a piece of it, has come before its turn. `write` appends it to the buffer it
    /// is given.
    pub fn keep(
        &mut self,
        sequence: u32,
        piece: Piece,
        pinned: Option<(Pinned, usize)>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let at = self.place(sequence);
        let Waiting { slots, held, pieces_bytes, .. } =
            &mut **self.waiting.as_mut().expect("a reply nobody waits for");
        let slot = &mut slots[at];
        slot.ready = piece != Piece::More;
        slot.pinned = pinned.map(|(pinned, split)| (Box::new(pinned), split as u32));
        if slot.pieces.is_none() && slot.ready {
            slot.start = held.len() as u32;
            write(held);
            slot.len = held.len() as u32 - slot.start;
            return;
        }
        let pieces = slot.pieces.get_or_insert_default();
        *pieces_bytes -= pieces.len();
        if piece == Piece::Broken {
            pieces.clear(); // nothing of it was sent: the error is the reply
        }
        write(pieces);
        *pieces_bytes += pieces.len();
    }

    /// Whether something that was kept is to be sent now: [`Session::next_kept`].
    #[inline]
    #[must_use]
    pub fn has_kept(&mut self) -> bool {
        let Some(waiting) = self.waiting.as_deref_mut().filter(|_| !self.broken) else { return false };
        waiting.slots.front().is_some_and(|slot| slot.ready || slot.pieces.is_some())
            && (waiting.slots[0].part != Part::Key || waiting.line_goes())
    }

    /// Give what was kept and is due to `send`.
    pub fn next_kept(&mut self, spares: &mut Spares, send: impl FnOnce(&[u8], Option<(Pinned, usize)>)) {
        let waiting = self.waiting.as_mut().expect("something is kept");
        let slot = &mut waiting.slots[0];
        let pinned = slot.pinned.take().map(|(pinned, split)| (*pinned, split as usize));
        let bytes = slot.kept(&waiting.held);
        let goes = slot.begun.unwrap_or_else(|| goes_out(&mut self.failed_line, slot.part, bytes));
        send(if goes { bytes } else { &[] }, pinned);
        waiting.pieces_bytes -= slot.pieces.take().map_or(0, |pieces| pieces.len());
        if slot.ready {
            self.pop(spares);
        } else {
            slot.begun = Some(goes);
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        session: Session,
        spares: Spares,
        sent: String,
    }

    impl Bench {
        /// Requests of which the parts are these.
        fn new(parts: &[Part]) -> Self {
            let conn = ConnId { index: 0, generation: 0 };
            let session = Session::new(conn, Peer::Unix, Parser::new(), State::Command, 0);
            let mut bench = Self { session, spares: Spares::default(), sent: String::new() };
            for &part in parts {
                bench.session.await_reply(part, &mut bench.spares);
            }
            bench
        }

        /// What is sent once this has come.
        fn comes(&mut self, sequence: u32, piece: Piece, bytes: &str) -> String {
            if self.session.is_due(sequence) {
                if self.session.passes(bytes.as_bytes(), piece, &mut self.spares) {
                    self.sent.push_str(bytes);
                }
            } else {
                self.session.keep(sequence, piece, None, |kept| kept.extend_from_slice(bytes.as_bytes()));
            }
            while self.session.has_kept() {
                let sent = &mut self.sent;
                self.session
                    .next_kept(&mut self.spares, |bytes, _| sent.push_str(&String::from_utf8_lossy(bytes)));
            }
            std::mem::take(&mut self.sent)
        }
    }

    #[test]
    fn replies_go_out_in_the_order_of_their_requests() {
        let mut bench = Bench::new(&[Part::Whole, Part::LastKey, Part::Whole]);
        assert_eq!(bench.comes(2, Piece::Last, "c"), "");
        assert_eq!(bench.comes(0, Piece::Last, "a"), "a");
        assert_eq!(bench.comes(1, Piece::Last, "END\r\n"), "END\r\nc");
        assert!(bench.session.is_caught_up());
    }

    #[test]
    fn a_line_of_keys_goes_out_when_all_are_answered() {
        let mut bench = Bench::new(&[Part::Key, Part::Key, Part::LastKey, Part::Whole]);
        assert_eq!(bench.comes(0, Piece::Last, "VALUE a"), "");
        assert_eq!(bench.comes(3, Piece::Last, "w"), "");
        assert_eq!(bench.comes(2, Piece::Last, "VALUE c END"), "");
        assert_eq!(bench.comes(1, Piece::Last, ""), "VALUE aVALUE c ENDw");
        assert!(bench.session.is_caught_up());
    }

    #[test]
    fn the_first_error_of_a_line_is_all_of_its_reply() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let mut bench =
                Bench::new(&[Part::Key, Part::Key, Part::Key, Part::LastKey, Part::Key, Part::LastKey]);
            let replies = ["VALUE a", "SERVER_ERROR b", "SERVER_ERROR c", "END\r\n"];
            let sent: String =
                order.iter().map(|&at| bench.comes(at, Piece::Last, replies[at as usize])).collect();
            assert_eq!(sent, "SERVER_ERROR b", "{order:?}");
            assert_eq!(bench.comes(4, Piece::Last, "VALUE e"), "");
            assert_eq!(bench.comes(5, Piece::Last, "END\r\n"), "VALUE eEND\r\n");
        }
    }

    #[test]
    fn a_line_longer_than_is_kept_goes_out_as_it_comes_and_an_error_ends_it() {
        let mut bench = Bench::new(&[Part::Key; SLOTS_MAX]);
        assert!(!bench.session.has_slot());
        assert_eq!(bench.comes(1, Piece::Last, "VALUE b"), "");
        assert_eq!(bench.comes(0, Piece::Last, "VALUE a"), "VALUE aVALUE b");
        assert_eq!(bench.comes(2, Piece::Last, "SERVER_ERROR"), "SERVER_ERROR");
        bench.session.await_reply(Part::Key, &mut bench.spares);
        bench.session.await_reply(Part::LastKey, &mut bench.spares);
        let last = SLOTS_MAX as u32 + 1;
        let sent: String = (3..last).map(|at| bench.comes(at, Piece::Last, "VALUE x")).collect();
        assert_eq!(sent, "");
        assert_eq!(bench.comes(last, Piece::Last, "VALUE zEND"), "");
        assert!(bench.session.is_caught_up());

        let mut bench = Bench::new(&[Part::Key, Part::Key]);
        let large = "v".repeat(HELD_BYTES_MAX);
        assert_eq!(bench.comes(1, Piece::Last, &large), "");
        assert!(!bench.session.has_slot());
        assert_eq!(bench.comes(0, Piece::Last, "VALUE a"), format!("VALUE a{large}"));
        assert!(bench.session.is_caught_up());
    }

    #[test]
    fn a_reply_in_pieces_goes_out_as_they_come_once_it_is_due() {
        let mut bench = Bench::new(&[Part::Whole, Part::LastKey, Part::Whole]);
        assert_eq!(bench.comes(1, Piece::More, "VALUE "), "");
        assert_eq!(bench.comes(1, Piece::More, "x"), "");
        assert_eq!(bench.comes(0, Piece::Last, "a"), "aVALUE x");
        assert_eq!(bench.comes(2, Piece::Last, "c"), "");
        assert_eq!(bench.comes(1, Piece::More, "y"), "y");
        assert_eq!(bench.comes(1, Piece::Last, "z"), "zc");
        assert!(bench.session.is_caught_up() && !bench.session.broken);
    }

    #[test]
    fn a_reply_that_breaks_off_is_an_error_or_the_end_of_the_connection() {
        let mut bench = Bench::new(&[Part::Whole, Part::Whole]);
        assert_eq!(bench.comes(1, Piece::More, "VALUE "), "");
        assert_eq!(bench.comes(1, Piece::Broken, "SERVER_ERROR"), "");
        assert_eq!(bench.comes(0, Piece::Last, "a"), "aSERVER_ERROR");
        assert!(!bench.session.broken);
        // Nothing follows what it broke off in: neither what was kept, nor what comes or is asked for.
        let mut bench = Bench::new(&[Part::Whole, Part::Whole, Part::Whole]);
        assert_eq!(bench.comes(1, Piece::Last, "MN"), "");
        assert_eq!(bench.comes(0, Piece::More, "VALUE "), "VALUE ");
        assert_eq!(bench.comes(0, Piece::Broken, "SERVER_ERROR"), "");
        assert!(bench.session.broken && !bench.session.has_kept());
        assert!(matches!(bench.session.state, State::Closing));
    }

    #[test]
    fn pieces_count_as_bytes_that_are_kept() {
        let mut bench = Bench::new(&[Part::Whole, Part::Whole]);
        assert_eq!(bench.comes(1, Piece::More, &"v".repeat(HELD_BYTES_MAX)), "");
        assert!(!bench.session.has_slot());
        assert_eq!(bench.comes(0, Piece::Last, "").len(), HELD_BYTES_MAX);
        assert!(bench.session.has_slot());
    }
}
