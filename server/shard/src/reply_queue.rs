//! The replies of one connection, in the order of its requests.
//!
//! A reply is sent at once when nothing before it is outstanding, and is kept otherwise. A queue with nothing
//! outstanding owns no heap memory: what it needs is lent to it by its shard (`Spares`).

use std::collections::VecDeque;

use corecached_net::Pinned;
use corecached_protocol::line;

use crate::mesh::message::Piece;

/// Requests of one connection that may be unanswered at once. Past it, the connection is not parsed any
/// further.
const SLOTS_MAX: usize = 256;

/// Bytes of replies kept until earlier ones have been sent. Past it, the connection is not parsed any
/// further.
pub const HELD_BYTES_MAX: usize = 1 << 20;

/// Sequence numbers are counted modulo this mask plus one.
const SEQUENCE_MASK: u32 = 0x7fff_ffff;
/// Slots of the largest buffer that is kept for the next connection.
const SPARE_SLOTS: usize = 64;
/// Bytes of kept replies in the largest buffer that is kept for the next connection.
const SPARE_HELD_BYTES: usize = 16 * 1024;
/// Buffers that one shard keeps.
const SPARES_MAX: usize = 64;

/// The reply to one request that has not been sent yet.
#[derive(Debug, Default)]
struct Slot {
    /// The whole reply is here. False while it, or the rest of it, is still to come.
    ready: bool,
    part: Part,
    /// `Some` once the beginning of the reply has been handled: whether it was sent.
    begun: Option<bool>,
    /// Where the reply lies in [`Outstanding::held`], if it came in one piece.
    start: u32,
    len: u32,
    /// The bytes of a reply in several pieces that have come and have not been sent.
    #[expect(clippy::box_collection, reason = "few slots have one, and the slot stays small")]
    pieces: Option<Box<Vec<u8>>>,
    /// A value to send inside the reply, and how many bytes of the reply come before it.
    pinned: Option<(Box<Pinned>, u32)>,
}

impl Slot {
    /// The bytes that are kept of this reply.
    fn kept<'a>(&'a self, held: &'a [u8]) -> &'a [u8] {
        match &self.pieces {
            Some(pieces) => pieces,
            None => &held[self.start as usize..(self.start + self.len) as usize],
        }
    }
}

/// Which part of its command line's reply a reply is. The keys of one retrieval are answered one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The whole reply.
    #[default]
    Whole,
    /// The reply to one of several keys, and not to the last.
    Key,
    /// The reply to the last of several keys, with the end of the line's reply.
    LastKey,
}

/// Replies that are outstanding, or kept until earlier ones have been sent.
#[derive(Debug, Default)]
struct Outstanding {
    /// Oldest first.
    slots: VecDeque<Slot>,
    /// Bytes of the replies that came in one piece.
    held: Vec<u8>,
    /// Bytes of the replies that come in several pieces.
    pieces_bytes: usize,
    /// How many slots at the front are ready and belong to one line of keys that is not complete.
    keys_ready: usize,
    /// The line at the front is sent as it comes: it is complete, or too long to be kept until it is.
    line_goes: bool,
}

impl Outstanding {
    fn is_full(&self) -> bool {
        self.slots.len() >= SLOTS_MAX || self.held.len() + self.pieces_bytes >= HELD_BYTES_MAX
    }

    /// Whether the line whose first key is at the front may be sent. One error replaces the whole line, so
    /// the line waits until all of its keys are answered, or until there is no room for more of them.
    fn line_goes(&mut self) -> bool {
        if self.line_goes || self.is_full() {
            self.line_goes = true;
            return true;
        }
        while let Some(slot) = self.slots.get(self.keys_ready)
            && slot.ready
        {
            if slot.part == Part::LastKey {
                self.keep_only_the_error(self.keys_ready + 1);
                self.line_goes = true;
                return true;
            }
            self.keys_ready += 1;
        }
        false
    }

    /// The first `count` replies are one line. If one of them is an error, empties all others.
    fn keep_only_the_error(&mut self, count: usize) {
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

/// Buffers that a shard lends to connections with outstanding replies. Most connections have none most of the
/// time.
#[expect(clippy::vec_box, reason = "the boxes move between here and the queues")]
#[derive(Debug, Default)]
pub(crate) struct Spares(Vec<Box<Outstanding>>);

impl Spares {
    fn take(&mut self) -> Box<Outstanding> {
        self.0.pop().unwrap_or_default()
    }

    fn put(&mut self, mut outstanding: Box<Outstanding>) {
        debug_assert!(outstanding.slots.is_empty());
        outstanding.held.clear();
        (outstanding.pieces_bytes, outstanding.keys_ready, outstanding.line_goes) = (0, 0, false);
        let modest =
            outstanding.slots.capacity() <= SPARE_SLOTS && outstanding.held.capacity() <= SPARE_HELD_BYTES;
        if modest && self.0.len() < SPARES_MAX {
            self.0.push(outstanding);
        }
    }
}

/// The replies of one connection that have not been sent.
#[derive(Debug, Default)]
pub struct ReplyQueue {
    /// `None` when every reply has been sent.
    outstanding: Option<Box<Outstanding>>,
    /// Sequence number of the oldest outstanding request.
    first_sequence: u32,
    /// A key of the retrieval at the front failed, and its error was the reply: nothing is sent for the other
    /// keys.
    line_failed: bool,
    /// See [`ReplyQueue::is_broken`].
    broken: bool,
}

impl ReplyQueue {
    /// Whether every request so far has been answered.
    #[inline]
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.outstanding.is_none()
    }

    /// Whether a reply broke off after some of it had been sent. Nothing may be sent on the connection any
    /// more: the client could not tell it from the rest of that reply.
    #[inline]
    #[must_use]
    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether one more request may be outstanding.
    #[inline]
    #[must_use]
    pub fn has_slot(&self) -> bool {
        self.outstanding.as_ref().is_none_or(|outstanding| !outstanding.is_full())
    }

    /// Reserves the next slot, for a request whose reply will come later. Returns its sequence number.
    pub(crate) fn reserve(&mut self, part: Part, spares: &mut Spares) -> u32 {
        let slots = &mut self.outstanding.get_or_insert_with(|| spares.take()).slots;
        debug_assert!(slots.len() < SEQUENCE_MASK as usize, "sequence numbers of one queue differ");
        let sequence = self.first_sequence.wrapping_add(slots.len() as u32) & SEQUENCE_MASK;
        slots.push_back(Slot { part, ..Slot::default() });
        sequence
    }

    /// Keeps a reply that is known now until those before it have been sent. `write` appends it to the buffer
    /// it is given, and returns the value to pin into it with the offset in that buffer where the value goes.
    ///
    /// # Panics
    /// When nothing is outstanding: then the reply is to be sent at once.
    pub fn enqueue(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Option<(usize, Pinned)>) {
        let Outstanding { slots, held, .. } =
            &mut **self.outstanding.as_mut().expect("something is outstanding");
        let start = held.len();
        let pinned = write(held).map(|(at, pinned)| (Box::new(pinned), (at - start) as u32));
        let len = (held.len() - start) as u32;
        if len > 0 || pinned.is_some() {
            slots.push_back(Slot { ready: true, start: start as u32, len, pinned, ..Slot::default() });
        }
    }

    /// How many outstanding requests are older than request `sequence`.
    fn index_of(&self, sequence: u32) -> usize {
        (sequence.wrapping_sub(self.first_sequence) & SEQUENCE_MASK) as usize
    }

    /// Whether the reply to request `sequence` is due now, and to be passed to [`ReplyQueue::deliver_due`].
    /// Otherwise it is to be passed to [`ReplyQueue::keep`].
    ///
    /// # Panics
    /// When no such request is outstanding.
    #[inline]
    #[must_use]
    pub(crate) fn is_due(&mut self, sequence: u32) -> bool {
        let index = self.index_of(sequence);
        let outstanding = self.outstanding.as_mut().expect("the request is outstanding");
        assert!(index < outstanding.slots.len() && !outstanding.slots[index].ready, "it is unanswered");
        let slot = &outstanding.slots[0];
        index == 0 && slot.pieces.is_none() && (slot.part != Part::Key || outstanding.line_goes())
    }

    /// `bytes` is the reply that is due, or a piece of it. Returns whether the bytes are to be sent.
    #[inline]
    pub(crate) fn deliver_due(&mut self, bytes: &[u8], piece: Piece, spares: &mut Spares) -> bool {
        let outstanding = self.outstanding.as_mut().expect("a reply is due");
        let slot = &mut outstanding.slots[0];
        debug_assert!(slot.pieces.is_none(), "kept pieces are sent first");
        let is_sent = match (slot.begun, piece) {
            (Some(began), Piece::Broken) => {
                self.broken |= began;
                false
            }
            (Some(is_sent), _) => is_sent,
            (None, _) => is_sent(&mut self.line_failed, slot.part, bytes),
        };
        if piece == Piece::More {
            slot.begun = Some(is_sent);
        } else {
            self.pop(spares);
        }
        is_sent
    }

    /// The reply at the front has been handled.
    fn pop(&mut self, spares: &mut Spares) {
        let Some(outstanding) = self.outstanding.as_mut() else { return };
        let Some(slot) = outstanding.slots.pop_front() else { return };
        self.first_sequence = self.first_sequence.wrapping_add(1);
        outstanding.keys_ready = outstanding.keys_ready.saturating_sub(1);
        if slot.part != Part::Key {
            outstanding.line_goes = false;
        }
        if outstanding.slots.is_empty()
            && let Some(outstanding) = self.outstanding.take()
        {
            spares.put(outstanding);
        }
    }

    /// Keeps the reply to request `sequence`, or a piece of it, which has come before earlier replies.
    /// `write` appends it to the buffer that it is given. `pinned` is a value to send inside the reply, and
    /// how many bytes of the reply come before it.
    pub(crate) fn keep(
        &mut self,
        sequence: u32,
        piece: Piece,
        pinned: Option<(Pinned, usize)>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let index = self.index_of(sequence);
        let Outstanding { slots, held, pieces_bytes, .. } =
            &mut **self.outstanding.as_mut().expect("the request is outstanding");
        debug_assert!(!slots[index].ready, "a reply comes once");
        let slot = &mut slots[index];
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
            pieces.clear(); // nothing of it was sent, so the error is the whole reply
        }
        write(pieces);
        *pieces_bytes += pieces.len();
    }

    /// Whether a reply that was kept is due now: [`ReplyQueue::deliver_kept`].
    #[inline]
    #[must_use]
    pub(crate) fn has_kept(&mut self) -> bool {
        let Some(outstanding) = self.outstanding.as_deref_mut().filter(|_| !self.broken) else {
            return false;
        };
        outstanding.slots.front().is_some_and(|slot| slot.ready || slot.pieces.is_some())
            && (outstanding.slots[0].part != Part::Key || outstanding.line_goes())
    }

    /// Gives the bytes that were kept and are due to `send`.
    pub(crate) fn deliver_kept(
        &mut self,
        spares: &mut Spares,
        send: impl FnOnce(&[u8], Option<(Pinned, usize)>),
    ) {
        let outstanding = self.outstanding.as_mut().expect("a reply is kept");
        let slot = &mut outstanding.slots[0];
        let pinned = slot.pinned.take().map(|(pinned, split)| (*pinned, split as usize));
        let bytes = slot.kept(&outstanding.held);
        let is_sent = slot.begun.unwrap_or_else(|| is_sent(&mut self.line_failed, slot.part, bytes));
        send(if is_sent { bytes } else { &[] }, pinned);
        outstanding.pieces_bytes -= slot.pieces.take().map_or(0, |pieces| pieces.len());
        if slot.ready {
            self.pop(spares);
        } else {
            slot.begun = Some(is_sent);
        }
    }

    /// The connection is gone. Gives the values that are pinned into its replies to `released`.
    pub(crate) fn abandon(&mut self, mut released: impl FnMut(Pinned)) {
        for slot in self.outstanding.take().into_iter().flat_map(|outstanding| outstanding.slots) {
            if let Some((pinned, _)) = slot.pinned {
                released(*pinned);
            }
        }
    }
}

/// Whether the reply to a part of a line is sent. Nothing is sent after a part that was an error; `failed` is
/// whether there was one.
fn is_sent(failed: &mut bool, part: Part, bytes: &[u8]) -> bool {
    if part == Part::Whole {
        return true;
    }
    let is_sent = !*failed;
    *failed = part == Part::Key && (*failed || !(bytes.is_empty() || bytes.starts_with(b"VALUE ")));
    is_sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Bench {
        queue: ReplyQueue,
        spares: Spares,
        sent: String,
    }

    impl Bench {
        /// A queue with a request for each of `parts`.
        fn new(parts: &[Part]) -> Self {
            let mut bench = Self::default();
            for &part in parts {
                bench.queue.reserve(part, &mut bench.spares);
            }
            bench
        }

        /// Delivers a reply, or a piece of it. Returns what is sent then.
        fn comes(&mut self, sequence: u32, piece: Piece, bytes: &str) -> String {
            if self.queue.is_due(sequence) {
                if self.queue.deliver_due(bytes.as_bytes(), piece, &mut self.spares) {
                    self.sent.push_str(bytes);
                }
            } else {
                self.queue.keep(sequence, piece, None, |kept| kept.extend_from_slice(bytes.as_bytes()));
            }
            while self.queue.has_kept() {
                let sent = &mut self.sent;
                self.queue.deliver_kept(&mut self.spares, |bytes, _| {
                    sent.push_str(&String::from_utf8_lossy(bytes))
                });
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
        assert!(bench.queue.is_caught_up());
    }

    #[test]
    fn a_line_of_keys_goes_out_when_all_are_answered() {
        let mut bench = Bench::new(&[Part::Key, Part::Key, Part::LastKey, Part::Whole]);
        assert_eq!(bench.comes(0, Piece::Last, "VALUE a"), "");
        assert_eq!(bench.comes(3, Piece::Last, "w"), "");
        assert_eq!(bench.comes(2, Piece::Last, "VALUE c END"), "");
        assert_eq!(bench.comes(1, Piece::Last, ""), "VALUE aVALUE c ENDw");
        assert!(bench.queue.is_caught_up());
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
        assert!(!bench.queue.has_slot());
        assert_eq!(bench.comes(1, Piece::Last, "VALUE b"), "");
        assert_eq!(bench.comes(0, Piece::Last, "VALUE a"), "VALUE aVALUE b");
        assert_eq!(bench.comes(2, Piece::Last, "SERVER_ERROR"), "SERVER_ERROR");
        bench.queue.reserve(Part::Key, &mut bench.spares);
        bench.queue.reserve(Part::LastKey, &mut bench.spares);
        let last = SLOTS_MAX as u32 + 1;
        let sent: String = (3..last).map(|at| bench.comes(at, Piece::Last, "VALUE x")).collect();
        assert_eq!(sent, "");
        assert_eq!(bench.comes(last, Piece::Last, "VALUE zEND"), "");
        assert!(bench.queue.is_caught_up());

        let mut bench = Bench::new(&[Part::Key, Part::Key]);
        let large = "v".repeat(HELD_BYTES_MAX);
        assert_eq!(bench.comes(1, Piece::Last, &large), "");
        assert!(!bench.queue.has_slot());
        assert_eq!(bench.comes(0, Piece::Last, "VALUE a"), format!("VALUE a{large}"));
        assert!(bench.queue.is_caught_up());
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
        assert!(bench.queue.is_caught_up() && !bench.queue.is_broken());
    }

    #[test]
    fn a_reply_that_breaks_off_is_an_error_or_the_end_of_the_connection() {
        let mut bench = Bench::new(&[Part::Whole, Part::Whole]);
        assert_eq!(bench.comes(1, Piece::More, "VALUE "), "");
        assert_eq!(bench.comes(1, Piece::Broken, "SERVER_ERROR"), "");
        assert_eq!(bench.comes(0, Piece::Last, "a"), "aSERVER_ERROR");
        assert!(!bench.queue.is_broken());
        // Nothing follows what it broke off in: neither what was kept, nor what comes or is asked for.
        let mut bench = Bench::new(&[Part::Whole, Part::Whole, Part::Whole]);
        assert_eq!(bench.comes(1, Piece::Last, "MN"), "");
        assert_eq!(bench.comes(0, Piece::More, "VALUE "), "VALUE ");
        assert_eq!(bench.comes(0, Piece::Broken, "SERVER_ERROR"), "");
        assert!(bench.queue.is_broken() && !bench.queue.has_kept());
    }

    #[test]
    fn pieces_count_as_bytes_that_are_kept() {
        let mut bench = Bench::new(&[Part::Whole, Part::Whole]);
        assert_eq!(bench.comes(1, Piece::More, &"v".repeat(HELD_BYTES_MAX)), "");
        assert!(!bench.queue.has_slot());
        assert_eq!(bench.comes(0, Piece::Last, "").len(), HELD_BYTES_MAX);
        assert!(bench.queue.has_slot());
    }
}
