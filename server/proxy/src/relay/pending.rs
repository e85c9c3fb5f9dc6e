//! The pending requests of one shard: those of clients, of routes and of flushes, each under the number that
//! its request bears upstream. Replies to clients are delivered as they come; routes and flushes get theirs
//! when they are whole.

use std::collections::HashMap;

use bytes::Bytes;
use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{Command, Reply};
use corecached_shard::clients::Clients;
use corecached_shard::mesh::message::{Piece, ReplyTo};

use crate::hot::KeptValue;
use crate::merge::{Merge, MergeDecision, MergeRole};
use crate::reply_format::ReplyFormat;
use crate::route::{CallId, ErrorDowngrade};

/// Buffers of keys that are kept for use again; those of more pending requests are freed.
const KEY_BUFFERS_MAX: usize = 1024;

/// A request without a reply.
#[derive(Debug)]
pub(super) enum PendingRequest {
    /// A client sent it.
    Client(ClientRequest),
    /// A route sent it.
    Call(CallId),
    /// It is one destination's part of the `flush_all` with this number.
    Flush(u64),
}

/// A request of a client.
#[derive(Debug)]
pub(super) struct ClientRequest {
    /// The shard of the client's connection.
    pub(super) shard: usize,
    pub(super) to: ReplyTo,
    pub(super) format: ReplyFormat,
    pub(super) downgrade: ErrorDowngrade,
    /// The key as the client sent it, which replies name.
    pub(super) key: Vec<u8>,
    /// The client has got the beginning of a value: an error can only break the reply off.
    pub(super) begun: bool,
    /// What the request means to gets of the same key.
    pub(super) role: MergeRole,
    /// The gets that joined this one: they get the same reply.
    pub(super) followers: Vec<ClientRequest>,
}

/// The value of a reply to a route, while it comes in pieces.
#[derive(Debug)]
struct PartialValue {
    head: ValueHead,
    value: Vec<u8>,
}

#[derive(Debug)]
enum ValueHead {
    Classic { client_flags: u32, cas_unique: Option<u64> },
    Meta { line: Bytes },
}

/// The table of pending requests. The number of a request is the index of its slot, which is used again once
/// the request has been answered.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    slots: Vec<Option<PendingRequest>>,
    /// The empty slots.
    free: Vec<u32>,
    /// Empty buffers, for the keys of later requests.
    key_buffers: Vec<Vec<u8>>,
    /// Values of replies to routes that have not come whole, by the number of the request.
    partial_values: HashMap<u64, PartialValue>,
    /// Whole replies that have not been delivered, in the order in which they came.
    finished: Vec<(u64, Reply)>,
    /// Present if gets are merged or values of hot keys are kept.
    merge: Option<Box<Merge>>,
    /// Unix milliseconds of this turn.
    now_ms: u64,
}

impl PendingRequests {
    /// An empty table.
    pub(super) fn new(merge: Option<Merge>) -> Self {
        Self { merge: merge.map(Box::new), ..Self::default() }
    }

    /// Sets the time of the turn, unix milliseconds.
    pub(super) fn begin_turn(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        if let Some(merge) = &mut self.merge {
            merge.begin_turn();
        }
    }

    /// What of the requests can be answered without being sent, if that is switched on.
    pub(super) fn merge(&self) -> Option<&Merge> {
        self.merge.as_deref()
    }

    /// The number of pending requests.
    pub(super) fn len(&self) -> usize {
        debug_assert!(self.free.len() <= self.slots.len());
        self.slots.len() - self.free.len()
    }

    /// What must be empty once no request is pending, each with its count.
    pub(super) fn left_behind(&self) -> [(&'static str, usize); 2] {
        [
            ("values that have not come whole", self.partial_values.len()),
            ("replies not told", self.finished.len()),
        ]
    }

    /// Adds a request. Returns its number, under which exactly one reply is to be delivered.
    pub(super) fn insert(&mut self, request: PendingRequest) -> u64 {
        match self.free.pop() {
            Some(slot) => {
                let before = self.slots[slot as usize].replace(request);
                debug_assert!(before.is_none(), "a free slot is empty");
                u64::from(slot)
            }
            None => {
                self.slots.push(Some(request));
                self.slots.len() as u64 - 1
            }
        }
    }

    /// Adds the request of a client that is sent upstream. Other gets may join it from now on if it leads.
    pub(super) fn insert_client(&mut self, request: ClientRequest) -> u64 {
        let role = request.role;
        let number = self.insert(PendingRequest::Client(request));
        if let (MergeRole::Leads { hash, .. }, Some(merge)) = (role, &mut self.merge) {
            merge.begin_flight(hash, number);
        }
        number
    }

    /// Takes the request `number` out of the table. `None` if there is none, which is a bug of the caller.
    pub(super) fn remove(&mut self, number: u64) -> Option<PendingRequest> {
        let request = self.slots.get_mut(number as usize)?.take();
        debug_assert!(request.is_some(), "request {number} is answered twice");
        let request = request?;
        self.free.push(number as u32);
        debug_assert!(self.free.len() <= self.slots.len());
        Some(request)
    }

    /// A buffer that holds `key`.
    pub(super) fn key_buffer(&mut self, key: &[u8]) -> Vec<u8> {
        let mut buffer = self.key_buffers.pop().unwrap_or_default();
        debug_assert!(buffer.is_empty());
        buffer.extend_from_slice(key);
        buffer
    }

    fn recycle(&mut self, mut key: Vec<u8>) {
        if self.key_buffers.len() < KEY_BUFFERS_MAX {
            key.clear();
            self.key_buffers.push(key);
        }
    }

    /// Takes back the buffers of a request that was answered.
    pub(super) fn release(&mut self, request: ClientRequest) {
        self.recycle(request.key);
        for follower in request.followers {
            self.recycle(follower.key);
        }
    }

    /// Decides with [`Merge`] whether `request` is to be sent, and gives it back if so. Otherwise it joined
    /// another request, or its reply is among the finished ones.
    pub(super) fn merge_request(
        &mut self,
        mut request: ClientRequest,
        command: &Command<'_>,
        hash: u64,
    ) -> Option<ClientRequest> {
        let Self { merge, slots, now_ms, .. } = self;
        let Some(merge) = merge else { return Some(request) };
        let has_same_key = |number: u64| match slots.get(number as usize) {
            Some(Some(PendingRequest::Client(leader))) => leader.key == request.key,
            _ => false,
        };
        match merge.decide(command, hash, *now_ms, has_same_key) {
            MergeDecision::Send(role) => {
                request.role = role;
                Some(request)
            }
            MergeDecision::Join(number) => {
                match slots.get_mut(number as usize) {
                    Some(Some(PendingRequest::Client(leader))) => leader.followers.push(request),
                    _ => debug_assert!(false, "get {number} cannot be joined: it is not pending"),
                }
                None
            }
            MergeDecision::Answer(KeptValue { client_flags, value }) => {
                let number = self.insert(PendingRequest::Client(request));
                self.finish(number, Reply::Value { client_flags, cas_unique: None, value });
                None
            }
        }
    }

    // --- replies ---

    /// Enqueues the whole reply to request `number`, which is delivered later in this turn.
    pub(super) fn finish(&mut self, number: u64, reply: Reply) {
        self.finished.push((number, reply));
    }

    /// Takes the replies that are to be delivered now. The empty vector goes to
    /// [`PendingRequests::give_back`].
    pub(super) fn take_finished(&mut self) -> Vec<(u64, Reply)> {
        std::mem::take(&mut self.finished)
    }

    /// Whether replies are to be delivered.
    pub(super) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Takes back the memory of [`PendingRequests::take_finished`], unless there are new replies already.
    pub(super) fn give_back(&mut self, finished: Vec<(u64, Reply)>) {
        debug_assert!(finished.is_empty(), "a reply was not delivered");
        if self.finished.is_empty() {
            self.finished = finished;
        }
    }

    /// Whether request `number` is one of a client, which gets its reply by [`PendingRequests::deliver`].
    pub(super) fn is_of_client(&self, number: u64) -> bool {
        matches!(self.slots.get(number as usize), Some(Some(PendingRequest::Client(_))))
    }

    /// Delivers one event of the reply to request `number`. A client gets it at once; whole replies to others
    /// are enqueued as by [`PendingRequests::finish`].
    #[inline]
    pub(super) fn deliver(&mut self, clients: &mut impl Clients, number: u64, event: ReplyEvent<'_>) {
        let Some(Some(PendingRequest::Client(request))) = self.slots.get_mut(number as usize) else {
            return self.collect(number, event);
        };
        if request.role != MergeRole::Plain
            && let Some(merge) = &mut self.merge
        {
            request.update_merge(merge, number, &event, self.now_ms);
        }
        let is_last = event.is_last();
        request.deliver(&event, clients);
        for follower in &mut request.followers {
            follower.deliver(&event, clients);
        }
        if is_last && let Some(PendingRequest::Client(request)) = self.remove(number) {
            self.release(request);
        }
    }

    /// Puts the events of a reply to a route or a flush together, and enqueues the reply when it is whole.
    fn collect(&mut self, number: u64, event: ReplyEvent<'_>) {
        debug_assert!(
            self.slots.get(number as usize).is_some_and(Option::is_some),
            "a reply to request {number}, which is not pending"
        );
        match event {
            ReplyEvent::Reply(_) | ReplyEvent::Value { .. } | ReplyEvent::Meta { .. } => {
                if !self.partial_values.is_empty() {
                    self.partial_values.remove(&number); // the rest of its value will not come
                }
                self.finished.extend(event.whole().map(|reply| (number, reply)));
            }
            ReplyEvent::ValueHead { client_flags, cas_unique, value_len } => {
                let value = Vec::with_capacity(value_len as usize);
                let head = ValueHead::Classic { client_flags, cas_unique };
                self.partial_values.insert(number, PartialValue { head, value });
            }
            ReplyEvent::MetaHead { line, value_len } => {
                let value = Vec::with_capacity(value_len as usize);
                self.partial_values.insert(number, PartialValue { head: ValueHead::Meta { line }, value });
            }
            ReplyEvent::ValuePiece(bytes) => {
                if let Some(partial) = self.partial_values.get_mut(&number) {
                    partial.value.extend_from_slice(bytes);
                }
            }
            ReplyEvent::ValueEnd => {
                if let Some(PartialValue { head, value }) = self.partial_values.remove(&number) {
                    let value = Bytes::from(value);
                    let reply = match head {
                        ValueHead::Classic { client_flags, cas_unique } => {
                            Reply::Value { client_flags, cas_unique, value }
                        }
                        ValueHead::Meta { line } => Reply::Meta { line, value: Some(value) },
                    };
                    self.finish(number, reply);
                }
            }
            ReplyEvent::End => {}
        }
    }
}

impl ClientRequest {
    /// A request that nothing of the reply has been delivered to. Nobody has joined it.
    pub(super) fn new(
        shard: usize,
        to: ReplyTo,
        format: ReplyFormat,
        downgrade: ErrorDowngrade,
        key: Vec<u8>,
    ) -> Self {
        Self {
            shard,
            to,
            format,
            downgrade,
            key,
            begun: false,
            role: MergeRole::Plain,
            followers: Vec::new(),
        }
    }

    /// Tells `merge` what `event`, of the reply to this request, means to gets of the same key.
    fn update_merge(&self, merge: &mut Merge, number: u64, event: &ReplyEvent<'_>, now_ms: u64) {
        match self.role {
            MergeRole::Leads { hash, asked_ms } if !self.begun => {
                let is_current = merge.end_flight(hash, number);
                if let ReplyEvent::Value { client_flags, cas_unique: None, value } = *event
                    && let Some(hot) = merge.hot_mut().filter(|_| is_current)
                {
                    hot.keep(hash, &self.key, client_flags, value, asked_ms, now_ms);
                }
            }
            MergeRole::Writes { hash } if event.is_last() => merge.forget(hash),
            _ => {}
        }
    }

    /// Delivers one event of the reply to the client.
    #[inline]
    pub(super) fn deliver(&mut self, event: &ReplyEvent<'_>, clients: &mut impl Clients) {
        let Self { shard, to, format, downgrade, ref key, .. } = *self;
        match *event {
            ReplyEvent::Value { client_flags, cas_unique, value } => {
                clients.answer(shard, to, Piece::Last, |out| {
                    format.render_value(key, client_flags, cas_unique, value, out);
                });
            }
            ReplyEvent::Meta { line, value } => {
                clients.answer(shard, to, Piece::Last, |out| format.render_meta(key, line, value, out));
            }
            ReplyEvent::Reply(ref reply) => {
                let piece = if self.begun { Piece::Broken } else { Piece::Last };
                clients.answer(shard, to, piece, |out| {
                    format.render(key, &downgrade.apply(reply.clone()), out);
                });
            }
            ReplyEvent::ValueHead { client_flags, cas_unique, value_len } => {
                self.begun = true;
                clients.answer(shard, to, Piece::More, |out| {
                    format.render_value_head(&self.key, client_flags, cas_unique, value_len, out);
                });
            }
            ReplyEvent::MetaHead { ref line, value_len } => {
                self.begun = true;
                clients.answer(shard, to, Piece::More, |out| {
                    format.render_meta_head(&self.key, line, value_len, out);
                });
            }
            ReplyEvent::ValuePiece(bytes) => {
                clients.answer(shard, to, Piece::More, |out| out.extend_from_slice(bytes));
            }
            ReplyEvent::ValueEnd => clients.answer(shard, to, Piece::Last, |out| format.end_value(out)),
            ReplyEvent::End => {}
        }
    }
}
