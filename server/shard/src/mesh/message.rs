//! What shards send each other: requests with the bytes they name, and replies ready for the wire.
//!
//! A [`Batch`] keeps the bytes of all its messages in one buffer; a message knows how many of them are its
//! own.

use corecached_engine::PinnedValue;
use corecached_net::ConnId;

use crate::types::ServiceTypes;

/// Where a reply goes: the connection, and the request on it.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo {
    /// A connection of the shard that asks.
    pub conn: ConnId,
    /// Sequence number of the request on that connection. A request that is never answered carries 0, which
    /// is not read.
    pub sequence: u32,
}

impl ReplyTo {
    /// For a request of `conn` that is never answered.
    #[must_use]
    pub const fn unanswered(conn: ConnId) -> Self {
        Self { conn, sequence: 0 }
    }
}

/// Which piece of a reply some bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Piece {
    /// The whole reply, or the last piece of it.
    #[default]
    Last,
    /// A piece that others follow.
    More,
    /// An error in place of the rest. Where nothing of the reply has been sent, the error is the whole reply.
    Broken,
}

/// A request of one shard to another, with the bytes that belong to it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a, A> {
    /// What is asked.
    pub ask: A,
    /// Hash of the key, computed once; 0 where no key is named.
    pub hash: u64,
    /// The key as sent, or nothing.
    pub key: &'a [u8],
    /// Flags of a meta command as sent, or nothing.
    pub tokens: &'a [u8],
    /// The value or a piece of it, or nothing.
    pub data: &'a [u8],
}

/// One shard's reply to a request.
#[derive(Debug)]
pub struct Reply<'a> {
    /// Where the reply goes.
    pub to: ReplyTo,
    /// Which piece of the reply it is.
    pub piece: Piece,
    /// The bytes that the client gets.
    pub bytes: &'a [u8],
    /// How many of `bytes` come before the pinned value.
    pub split: usize,
    /// A value that is sent from where it is stored.
    pub pinned: Option<PinnedValue>,
}

/// A message as it is kept in a batch: lengths stand for its byte slices, which lie one after the other in
/// the buffer.
enum Packed<S: ServiceTypes> {
    Request { to: ReplyTo, hash: u64, ask: S::Ask, key: u32, tokens: u32, data: u32 },
    Reply { to: ReplyTo, piece: Piece, len: u32, split: u32, pinned: bool },
    Broadcast { conn: ConnId, what: S::Broadcast },
    Answer { conn: ConnId, answer: S::Answer },
}

/// A message taken from a batch.
pub enum Message<'a, S: ServiceTypes> {
    /// A request to this shard.
    Request {
        /// Where the reply goes.
        to: ReplyTo,
        /// What is asked.
        request: Request<'a, S::Ask>,
    },
    /// A reply to one of this shard's requests.
    Reply(Reply<'a>),
    /// This shard's part of a broadcast is asked for.
    Broadcast {
        /// The connection that asks.
        conn: ConnId,
        /// What is asked.
        what: S::Broadcast,
    },
    /// The sender's answer to a broadcast of this shard.
    Answer {
        /// The connection that asked.
        conn: ConnId,
        /// The answer.
        answer: S::Answer,
    },
}

/// Messages from one shard to another that are published together.
pub struct Batch<S: ServiceTypes> {
    messages: Vec<Packed<S>>,
    bytes: Vec<u8>,
    /// Bytes that the answers in `messages` hold.
    answers_bytes: usize,
    pinned: Vec<PinnedValue>,
    /// Pinned values that go back to the shard that lent them.
    pub(crate) returned: Vec<PinnedValue>,
}

impl<S: ServiceTypes> Default for Batch<S> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            bytes: Vec::new(),
            answers_bytes: 0,
            pinned: Vec::new(),
            returned: Vec::new(),
        }
    }
}

impl<S: ServiceTypes> Batch<S> {
    /// Whether nothing is in it.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.returned.is_empty()
    }

    /// Bytes of memory that its messages take.
    #[must_use]
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len() + self.answers_bytes + self.messages.len() * size_of::<Packed<S>>()
    }

    /// Bytes of memory that it keeps when it is empty.
    #[must_use]
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.bytes.capacity() + self.messages.capacity() * size_of::<Packed<S>>()
    }

    /// Appends a request.
    pub fn push_request(&mut self, to: ReplyTo, request: &Request<'_, S::Ask>) {
        let Request { ask, hash, key, tokens, data } = *request;
        for part in [key, tokens, data] {
            self.bytes.extend_from_slice(part);
        }
        let (key, tokens, data) = (key.len() as u32, tokens.len() as u32, data.len() as u32);
        self.messages.push(Packed::Request { to, hash, ask, key, tokens, data });
    }

    /// Appends a reply whose bytes `write` appends to the buffer it is given. `write` returns a value to pin
    /// into them, with the offset in that buffer where the value goes.
    pub fn push_reply(
        &mut self,
        to: ReplyTo,
        piece: Piece,
        write: impl FnOnce(&mut Vec<u8>) -> Option<(usize, PinnedValue)>,
    ) {
        let start = self.bytes.len();
        let large = write(&mut self.bytes);
        let len = (self.bytes.len() - start) as u32;
        let (split, pinned) = match large {
            Some((at, value)) => {
                self.pinned.push(value);
                ((at - start) as u32, true)
            }
            None => (0, false),
        };
        debug_assert!(split <= len, "the pinned value is inside the reply");
        self.messages.push(Packed::Reply { to, piece, len, split, pinned });
    }

    /// Appends a broadcast, which connection `conn` asks for.
    pub fn push_broadcast(&mut self, conn: ConnId, what: S::Broadcast) {
        self.messages.push(Packed::Broadcast { conn, what });
    }

    /// Appends an answer to a broadcast, which connection `conn` asked for.
    pub(crate) fn push_answer(&mut self, conn: ConnId, answer: S::Answer) {
        self.answers_bytes += S::answer_bytes(&answer);
        self.messages.push(Packed::Answer { conn, answer });
    }

    /// Hashes of the keys that its requests name, in order.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.messages.iter().filter_map(|message| match message {
            Packed::Request { hash, .. } if *hash != 0 => Some(*hash),
            _ => None,
        })
    }

    /// Gives every message to `each`, in order, and leaves the batch empty.
    pub fn drain(&mut self, mut each: impl FnMut(Message<'_, S>)) {
        let mut at = 0;
        let mut pinned = std::mem::take(&mut self.pinned).into_iter();
        let bytes = &self.bytes;
        let mut next = |len: u32| {
            at += len as usize;
            &bytes[at - len as usize..at]
        };
        for message in self.messages.drain(..) {
            each(match message {
                Packed::Request { to, hash, ask, key, tokens, data } => {
                    let (key, tokens, data) = (next(key), next(tokens), next(data));
                    Message::Request { to, request: Request { ask, hash, key, tokens, data } }
                }
                Packed::Reply { to, piece, len, split, pinned: has_pinned } => {
                    let bytes = next(len);
                    let pinned = if has_pinned { pinned.next() } else { None };
                    Message::Reply(Reply { to, piece, bytes, split: split as usize, pinned })
                }
                Packed::Broadcast { conn, what } => Message::Broadcast { conn, what },
                Packed::Answer { conn, answer } => Message::Answer { conn, answer },
            });
        }
        debug_assert_eq!(at, bytes.len(), "every byte belongs to a message");
        debug_assert!(pinned.next().is_none(), "every pinned value belongs to a reply");
        self.bytes.clear();
        self.answers_bytes = 0;
    }
}
