//! Who waits for a reply: clients, routes and flushes, each under the number that its request bears upstream. Clients are
//! told at once; others when their reply is whole.

use std::collections::HashMap;

use bytes::Bytes;
use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{Command, Reply, text};

use crate::hot::Kept;
use crate::merge::{Fate, Merge, Role};
use crate::route::{CallId, ErrorDowngrade};
use crate::shape::Shape;
use corecached_shard::clients::Clients;
use corecached_shard::mesh::message::{Piece, ReplyTo};

/// Who waits for a reply.
#[derive(Debug)]
pub(super) enum Waiter {
    Client(Asked),
    Call(CallId),
    /// One destination's part of a `flush_all`; the number is in `flushes`.
    Flush(u64),
}

/// A request of a client.
#[derive(Debug)]
pub(super) struct Asked {
    /// The shard of its connection.
    pub(super) from: usize,
    pub(super) to: ReplyTo,
    pub(super) shape: Shape,
    pub(super) downgrade: ErrorDowngrade,
    pub(super) key: Vec<u8>,
    /// The beginning of a value has been sent.
    pub(super) begun: bool,
    /// What it means to gets for its key.
    pub(super) role: Role,
    /// Gets that are answered with it.
    pub(super) followers: Vec<Asked>,
}

/// A value for a route, that comes in pieces.
#[derive(Debug)]
struct Pieces {
    head: Head,
    value: Vec<u8>,
}

#[derive(Debug)]
enum Head {
    Value { client_flags: u32, cas_unique: Option<u64> },
    Meta { line: Bytes },
}

/// Everyone who waits, each with a number.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) places: Vec<Option<Waiter>>,
    pub(super) free: Vec<u32>,
    /// Buffers of keys, for use again.
    keys: Vec<Vec<u8>>,
    /// Of routes' calls whose values come in pieces.
    pieces: HashMap<u64, Pieces>,
    /// Replies whose waiters have not been told.
    pub(super) done: Vec<(u64, Reply)>,
    /// Gets that need not be sent, if anything is to be spared.
    pub(super) merge: Option<Box<Merge>>,
    pub(super) now_ms: u64,
}

/// Key buffers kept.
const KEYS_MAX: usize = 1024;

impl Waiting {
    /// Nobody waits. `merge` is what to spare, if anything.
    pub(super) fn new(merge: Option<Merge>) -> Self {
        Self { merge: merge.map(Box::new), ..Self::default() }
    }

    pub(super) fn insert(&mut self, waiter: Waiter) -> u64 {
        match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = Some(waiter);
                u64::from(place)
            }
            None => {
                self.places.push(Some(waiter));
                self.places.len() as u64 - 1
            }
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.places.get_mut(number as usize)?.take()?;
        self.free.push(number as u32);
        Some(waiter)
    }

    /// See [`super::Relay::left_behind`].
    pub(super) fn left_behind(&self) -> [(&'static str, usize); 2] {
        [("values that have not come whole", self.pieces.len()), ("replies not told", self.done.len())]
    }

    pub(super) fn key(&mut self, key: &[u8]) -> Vec<u8> {
        let mut buffer = self.keys.pop().unwrap_or_default();
        buffer.extend_from_slice(key);
        buffer
    }

    pub(super) fn recycle(&mut self, mut key: Vec<u8>) {
        if self.keys.len() < KEYS_MAX {
            key.clear();
            self.keys.push(key);
        }
    }

    /// A step of the reply to `waiter`. Clients are told at once; whole replies to others go to `done`.
    #[inline]
    pub(super) fn step(&mut self, clients: &mut impl Clients, waiter: u64, event: ReplyEvent<'_>) {
        let Some(Some(Waiter::Client(asked))) = self.places.get_mut(waiter as usize) else {
            return self.collect(waiter, event);
        };
        if asked.role != Role::Plain
            && let Some(merge) = &mut self.merge
        {
            asked.spare(merge, waiter, &event, self.now_ms);
        }
        let is_last = event.is_last();
        asked.told(&event, clients);
        for follower in &mut asked.followers {
            follower.told(&event, clients);
        }
        if is_last && let Some(Waiter::Client(asked)) = self.remove(waiter) {
            self.forget(asked);
        }
    }

    /// Whether the request is to be sent: then it comes back. Otherwise it has been taken care of.
    pub(super) fn merged(&mut self, mut asked: Asked, command: &Command<'_>, hash: u64) -> Option<Asked> {
        let Self { merge, places, now_ms, .. } = self;
        let merge = merge.as_mut()?;
        let leader = |number: u64| match places.get(number as usize) {
            Some(Some(Waiter::Client(leader))) => Some(leader),
            _ => None,
        };
        match merge
            .take(command, hash, *now_ms, |number| leader(number).is_some_and(|it| it.key == asked.key))
        {
            Fate::Sent(role) => {
                asked.role = role;
                Some(asked)
            }
            Fate::Joins(number) => {
                if let Some(Some(Waiter::Client(leader))) = places.get_mut(number as usize) {
                    leader.followers.push(asked);
                }
                None
            }
            Fate::Kept(Kept { client_flags, value }) => {
                let number = self.insert(Waiter::Client(asked));
                self.done.push((number, Reply::Value { client_flags, cas_unique: None, value }));
                None
            }
        }
    }

    /// A request of a client that has been answered.
    pub(super) fn forget(&mut self, asked: Asked) {
        self.recycle(asked.key);
        for follower in asked.followers {
            self.recycle(follower.key);
        }
    }

    /// A step of the reply to a `waiter` that wants it whole.
    fn collect(&mut self, waiter: u64, event: ReplyEvent<'_>) {
        match event {
            ReplyEvent::Reply(_) | ReplyEvent::Value { .. } | ReplyEvent::Meta { .. } => {
                if !self.pieces.is_empty() {
                    self.pieces.remove(&waiter); // the rest of its value will not come
                }
                self.done.extend(event.whole().map(|reply| (waiter, reply)));
            }
            ReplyEvent::ValueHead { client_flags, cas_unique, value_len } => {
                let value = Vec::with_capacity(value_len as usize);
                let head = Head::Value { client_flags, cas_unique };
                self.pieces.insert(waiter, Pieces { head, value });
            }
            ReplyEvent::MetaHead { line, value_len } => {
                let value = Vec::with_capacity(value_len as usize);
                self.pieces.insert(waiter, Pieces { head: Head::Meta { line }, value });
            }
            ReplyEvent::ValuePiece(bytes) => {
                if let Some(pieces) = self.pieces.get_mut(&waiter) {
                    pieces.value.extend_from_slice(bytes);
                }
            }
            ReplyEvent::ValueEnd => {
                if let Some(Pieces { head, value }) = self.pieces.remove(&waiter) {
                    let value = Bytes::from(value);
                    self.done.push(match head {
                        Head::Value { client_flags, cas_unique } => {
                            (waiter, Reply::Value { client_flags, cas_unique, value })
                        }
                        Head::Meta { line } => (waiter, Reply::Meta { line, value: Some(value) }),
                    });
                }
            }
            ReplyEvent::End => {}
        }
    }
}

impl Asked {
    /// What the reply means to gets for its key.
    fn spare(&self, merge: &mut Merge, number: u64, event: &ReplyEvent<'_>, now_ms: u64) {
        match self.role {
            Role::Leads { hash, asked_ms } if !self.begun => {
                let is_current = merge.lands(hash, number);
                if let ReplyEvent::Value { client_flags, cas_unique: None, value } = *event
                    && let Some(hot) = merge.hot().filter(|_| is_current)
                {
                    hot.keep(hash, &self.key, client_flags, value, asked_ms, now_ms);
                }
            }
            Role::Writes { hash } if event.is_last() => merge.forget(hash),
            _ => {}
        }
    }

    /// A step of the reply.
    #[inline]
    pub(super) fn told(&mut self, event: &ReplyEvent<'_>, clients: &mut impl Clients) {
        let Self { from, to, shape, downgrade, ref key, .. } = *self;
        match *event {
            ReplyEvent::Value { client_flags, cas_unique, value } => {
                clients.answer(from, to, Piece::Last, |out| {
                    shape.render_value(key, client_flags, cas_unique, value, out);
                });
            }
            ReplyEvent::Meta { line, value } => {
                clients.answer(from, to, Piece::Last, |out| shape.render_meta(line, value, out));
            }
            ReplyEvent::Reply(ref reply) => {
                let piece = if self.begun { Piece::Broken } else { Piece::Last };
                clients
                    .answer(from, to, piece, |out| shape.render(key, &downgrade.apply(reply.clone()), out));
            }
            ReplyEvent::ValueHead { client_flags, cas_unique, value_len } => {
                self.begun = true;
                clients.answer(from, to, Piece::More, |out| {
                    text::encode_value_header(out, &self.key, client_flags, value_len, cas_unique);
                });
            }
            ReplyEvent::MetaHead { ref line, .. } => {
                self.begun = true;
                clients.answer(from, to, Piece::More, |out| {
                    out.extend_from_slice(line);
                    out.extend_from_slice(b"\r\n");
                });
            }
            ReplyEvent::ValuePiece(bytes) => {
                clients.answer(from, to, Piece::More, |out| out.extend_from_slice(bytes));
            }
            ReplyEvent::ValueEnd => clients.answer(from, to, Piece::Last, |out| shape.end_value(out)),
            ReplyEvent::End => {}
        }
    }
}
