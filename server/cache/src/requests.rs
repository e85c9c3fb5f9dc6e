//! From bytes to work: parse what a connection sent, carry out what is ours, hand the rest to its owner.

use corecached_protocol::{
    Command, MetaKey, MetaMode, MetaVerb, ParseError, Parsed, Parser, Rejected, StoreVerb, data_block, line,
};

use arrayvec::ArrayVec;

use super::core::Core;
use super::execute::{self, Context};
use super::message::{Broadcast, Piece, ReplyTo, Request};
use super::owner_of;
use super::uploads::TooLarge;
use crate::admin;
use crate::admin::prefixes::Prefixes;
use crate::conn::session::Part;
use crate::conn::{Session, State};
use crate::net::{Pinned, outbox};
use crate::proxy;

/// Commands of one connection carried out in one turn; then the others have theirs.
const COMMANDS_PER_TURN: usize = 512;

/// Commands parsed, hashed and prefetched before the first of them is carried out: enough for the memory to keep up,
/// few enough to stay in the first-level cache.
const BATCH: usize = 16;

/// A command on a key that is all there.
struct Ready<'a> {
    command: Command<'a>,
    hash: u64,
    data: &'a [u8],
    /// Bytes of line and data block.
    consumed: usize,
    /// The parser behind it.
    parser: Parser,
}

/// What became of a command.
pub(super) enum Step {
    /// It is done with, and so many bytes behind its line.
    Took(usize),
    /// Its data block has not come whole.
    NeedMore,
    /// There is no room on the way to its owner.
    Full,
}

impl Core {
    /// Work on `input`, which is what the session received and has not been parsed; returns the bytes done with.
    pub(super) fn consume(&mut self, session: &mut Session, input: &[u8]) -> usize {
        session.stalled = false;
        let mut at = 0;
        let mut commands = 0;
        loop {
            let rest = &input[at..];
            match &mut session.state {
                State::Closing | State::Watching => return input.len(),
                State::Barrier(_) => {
                    if !session.is_caught_up() {
                        session.stalled = true;
                        return at;
                    }
                    self.pass_barrier(session);
                }
                State::Gather(_) => {
                    session.stalled = true;
                    return at;
                }
                State::Dump(_) => {
                    if !self.dump(session) {
                        session.stalled = true;
                        return at;
                    }
                }
                _ if rest.is_empty() => return at,
                State::Unauthenticated => {
                    let taken = self.authenticate(session, rest);
                    at += taken;
                    if taken == 0 && matches!(session.state, State::Unauthenticated) {
                        return at;
                    }
                }
                State::Swallow(left) => {
                    let skipped = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= skipped as u64;
                    if *left == 0 {
                        session.state = State::Command;
                    }
                    at += skipped;
                }
                State::Upload(_) => match self.upload(session, rest) {
                    Some(taken) => at += taken,
                    None => {
                        session.stalled = true;
                        self.list(session);
                        return at;
                    }
                },
                State::Command => {
                    if !session.has_slot() {
                        session.stalled = true; // until a reply arrives
                        return at;
                    }
                    if commands >= COMMANDS_PER_TURN || self.output_len(session) >= outbox::HIGH_WATER_BYTES {
                        session.stalled = true;
                        self.counters.conn_yields += 1;
                        self.list(session);
                        return at;
                    }
                    let batch = self.look_ahead(session.parser, rest);
                    if !batch.is_empty() {
                        commands += batch.len();
                        match self.carry_out(session, &batch) {
                            Ok(taken) => at += taken,
                            Err(taken) => {
                                session.stalled = true;
                                self.list(session);
                                return at + taken;
                            }
                        }
                        continue;
                    }
                    commands += 1;
                    let before = session.parser;
                    match session.parser.parse(rest, &self.limits) {
                        Ok(Parsed::Complete { value, consumed }) => {
                            let (line, behind) = rest.split_at(consumed);
                            match self.command(session, &value, line, behind) {
                                Step::Took(data) => at += consumed + data,
                                Step::NeedMore => {
                                    session.parser = before;
                                    return at;
                                }
                                Step::Full => {
                                    session.parser = before;
                                    session.stalled = true;
                                    self.list(session);
                                    return at;
                                }
                            }
                        }
                        Ok(Parsed::NeedMore) => return at,
                        Err(rejected) => {
                            at += rejected.consumed;
                            self.reject(session, &rejected);
                        }
                    }
                }
            }
        }
    }

    /// The commands on keys at the front of `input`, as far as they are all there; what they will read is on its way
    /// into the cache.
    #[inline]
    fn look_ahead<'a>(&self, mut parser: Parser, input: &'a [u8]) -> ArrayVec<Ready<'a>, BATCH> {
        let mut batch = ArrayVec::new();
        let mut at = 0;
        while !batch.is_full() && at < input.len() {
            let Some(ready) = self.ready(&mut parser, &input[at..]) else { break };
            at += ready.consumed;
            if self.relay.is_none() && owner_of(ready.hash, self.mesh.shards()) == self.me {
                self.store.prefetch(ready.hash);
            }
            batch.push(ready);
        }
        // Their index lines have had the time of the parsing to arrive. One command alone would only wait twice.
        if batch.len() > 1 && self.relay.is_none() {
            for ready in &batch {
                if owner_of(ready.hash, self.mesh.shards()) == self.me {
                    self.store.prefetch_item(ready.hash);
                }
            }
        }
        batch
    }

    /// The hash that decides who owns `key`. Of a proxy, a key is the same with a routing prefix and without.
    #[inline]
    fn hash_of(&self, key: &[u8]) -> u64 {
        if key.first() == Some(&b'/') && self.relay.is_some() {
            return self.shared.hasher.hash(proxy::route::without_prefix(key));
        }
        self.shared.hasher.hash(key)
    }

    #[inline]
    fn ready<'a>(&self, parser: &mut Parser, input: &'a [u8]) -> Option<Ready<'a>> {
        let Ok(Parsed::Complete { value: command, mut consumed }) = parser.parse(input, &self.limits) else {
            return None;
        };
        let mut value = None;
        let mut data: &[u8] = &[];
        let hash = match &command {
            Command::Retrieve(retrieve) => self.hash_of(retrieve.key),
            Command::Delete(delete) => self.hash_of(delete.key),
            Command::Arithmetic(arithmetic) => self.hash_of(arithmetic.key),
            Command::Touch(touch) => self.hash_of(touch.key),
            Command::Store(store) => {
                value = Some((store.key.len(), store.client_flags, store.value_len));
                self.hash_of(store.key)
            }
            Command::Meta(meta) => {
                if meta.verb == MetaVerb::Set {
                    value = Some((meta.key.len(), meta.flags.client_flags, meta.value_len));
                }
                self.hash_of(MetaKey::decode(meta, &mut [0; _]))
            }
            Command::Binary(binary) => {
                // No CRLF follows its value.
                let value_len = binary.value_len as usize;
                if value_len > 0 {
                    data = input.get(consumed..consumed + value_len)?;
                    if value_len > self.value_bytes_max(binary) {
                        return None;
                    }
                    consumed += value_len;
                }
                self.hash_of(binary.key)
            }
            _ => return None,
        };
        if let Some((key_len, client_flags, value_len)) = value {
            let block = data_block(&input[consumed..], value_len);
            let Parsed::Complete { value: Ok(value), consumed: block_len } = block else { return None };
            if value_len as usize > self.shared.config.value_bytes_max(key_len, client_flags) {
                return None;
            }
            data = value;
            consumed += block_len;
        }
        Some(Ready { command, hash, data, consumed, parser: *parser })
    }

    /// Carry out a batch; the bytes it took, or, as an error, those of the commands there was room for.
    #[inline]
    fn carry_out(&mut self, session: &mut Session, batch: &[Ready<'_>]) -> Result<usize, usize> {
        let mut taken = 0;
        for ready in batch {
            if !session.has_slot() || !self.keyed(session, &ready.command, ready.hash, ready.data) {
                return Err(taken);
            }
            session.parser = ready.parser;
            taken += ready.consumed;
        }
        Ok(taken)
    }

    fn reject(&mut self, session: &mut Session, rejected: &Rejected) {
        if self.relay.is_some() {
            // As mcrouter: what comes next might be taken for something it is not.
            self.say(session, line::MALFORMED_REQUEST);
            session.state = State::Closing;
            return;
        }
        let answer = match rejected.error {
            ParseError::BadShutdownMode if !self.shared.config.allow_shutdown => line::SHUTDOWN_NOT_ENABLED,
            error => error.line(),
        };
        if !rejected.noreply && !answer.is_empty() {
            self.say(session, answer);
        }
        if rejected.close {
            session.state = State::Closing;
        } else if rejected.swallow > 0 {
            session.state = State::Swallow(rejected.swallow);
        }
    }

    /// A command that [`Core::look_ahead`] leaves alone, its `line`, and the input `behind` it.
    fn command(&mut self, session: &mut Session, command: &Command<'_>, line: &[u8], behind: &[u8]) -> Step {
        match command {
            Command::Store(store) => {
                let hash = self.hash_of(store.key);
                let most = self.shared.config.value_bytes_max(store.key.len(), store.client_flags);
                if store.value_len as usize > most {
                    let unlink = matches!(store.verb, StoreVerb::Set).then_some((store.key, false));
                    let answer = if store.noreply { &[] } else { line::TOO_LARGE };
                    let swallow = u64::from(store.value_len) + 2;
                    return self.too_large(session, &TooLarge { hash, swallow, unlink, answer });
                }
                self.with_data(session, hash, store.value_len, store.noreply, line, behind)
            }
            Command::Meta(meta) if meta.verb == MetaVerb::Set => {
                let hash = self.hash_of(MetaKey::decode(meta, &mut [0; _]));
                let most = self.shared.config.value_bytes_max(meta.key.len(), meta.flags.client_flags);
                if meta.value_len as usize > most {
                    let unlink =
                        (meta.flags.mode == MetaMode::Set).then_some((meta.key, meta.flags.has(b'b')));
                    let swallow = u64::from(meta.value_len) + 2;
                    let answer = line::TOO_LARGE;
                    return self.too_large(session, &TooLarge { hash, swallow, unlink, answer });
                }
                self.with_data(session, hash, meta.value_len, false, line, behind)
            }
            Command::Binary(binary) => self.binary_value(session, binary, line, behind),
            _ => {
                self.keyless(session, command);
                Step::Took(0)
            }
        }
    }

    /// Carry out a command on a key, here or through the mesh. False when there is no room on the way.
    #[inline]
    fn keyed(&mut self, session: &mut Session, command: &Command<'_>, hash: u64, data: &[u8]) -> bool {
        let owner = owner_of(hash, self.mesh.shards());
        if self.relay.is_some() {
            return self.relayed(session, command, hash, data, owner);
        }
        if owner == self.me || self.borrow(owner) {
            let number = admin::conns::number(self.me, session.conn);
            if session.is_caught_up() {
                self.open_range(session);
                let mut out = std::mem::take(&mut self.out);
                let large = self.execute(owner, command, hash, data, execute::COPY_MAX, number, &mut out);
                self.out = out;
                let large = large.map(|(at, value)| (at, Pinned { value, owner }));
                self.close_range(session, large);
            } else {
                session.hold(|held| {
                    let large =
                        self.execute(owner, command, hash, data, execute::COPY_ACROSS_MAX, number, held);
                    large.map(|(at, value)| (at, Pinned { value, owner }))
                });
            }
            return true;
        }
        if !self.mesh.has_room(owner) {
            return false;
        }
        self.forward(session, owner, &Request::Execute { command: *command, hash, data });
        true
    }

    /// Of a proxy: bring a command to the shard that holds its key's upstream connections. False when there is no room
    /// on the way.
    fn relayed(
        &mut self,
        session: &mut Session,
        command: &Command<'_>,
        hash: u64,
        data: &[u8],
        owner: usize,
    ) -> bool {
        let part = match command {
            Command::Retrieve(retrieve) if !retrieve.last => Part::Key,
            Command::Retrieve(_) => Part::LastKey,
            _ => Part::Whole,
        };
        let is_ours = owner == self.me;
        if !is_ours && !self.mesh.has_room(owner) {
            return false;
        }
        let to = ReplyTo { conn: session.conn, sequence: session.await_reply(part, &mut self.spares) };
        if let Some(relay) = self.relay.as_mut().filter(|_| is_ours) {
            relay.submit(self.me, to, command, hash, data);
        } else {
            self.counters.forwarded += 1;
            self.mesh.requests(owner).push_request(to, &Request::Execute { command: *command, hash, data });
        }
        true
    }

    /// Whether we may work on the slice of `owner` ourselves: it sleeps, and has done all we asked of it before.
    #[inline]
    pub(super) fn borrow(&mut self, owner: usize) -> bool {
        let other = &mut self.others[owner];
        if !other.held() {
            // The lock first: what was taken from the channel before it was free has been done.
            if !other.try_take() {
                return false;
            }
            if !self.mesh.is_quiet(owner) {
                other.give_up();
                return false;
            }
            self.borrowing = true;
        }
        self.counters.borrowed += 1;
        true
    }

    pub(super) fn forward(&mut self, session: &mut Session, owner: usize, request: &Request<'_>) {
        // What follows would overtake it.
        debug_assert!(!self.others[owner].held());
        let to = ReplyTo { conn: session.conn, sequence: session.await_reply(Part::Whole, &mut self.spares) };
        self.counters.forwarded += 1;
        self.mesh.requests(owner).push_request(to, request);
    }

    /// Carry out a command of connection `conn` on the slice of `owner`, which is ours or borrowed.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "what a command needs, on the way of every one")]
    fn execute(
        &mut self,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        data: &[u8],
        copy_max: usize,
        conn: usize,
        out: &mut Vec<u8>,
    ) -> execute::Large {
        // One branch for both, since hardly anybody wants either.
        if self.observed {
            return self.execute_observed(owner, command, hash, data, copy_max, conn, out);
        }
        self.execute_plain(owner, command, hash, data, copy_max, out)
    }

    #[cold]
    #[expect(clippy::too_many_arguments, reason = "as `execute`")]
    fn execute_observed(
        &mut self,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        data: &[u8],
        copy_max: usize,
        conn: usize,
        out: &mut Vec<u8>,
    ) -> execute::Large {
        let watched = (self.watched != 0).then(|| self.look_before(owner, command, hash, conn));
        let before = self.counters;
        let large = self.execute_plain(owner, command, hash, data, copy_max, out);
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.count(command, &before, &self.counters);
        }
        if let Some(before) = watched {
            self.look_behind(owner, command, hash, data.len(), conn, &before);
        }
        large
    }

    #[inline]
    fn execute_plain(
        &mut self,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        data: &[u8],
        copy_max: usize,
        out: &mut Vec<u8>,
    ) -> execute::Large {
        let Self { me, store, others, counters, now, shared, .. } = self;
        let store = if owner == *me { &mut **store } else { &mut *others[owner] };
        Context { store, counters, config: &shared.config, now: *now, copy_max }
            .execute(command, hash, data, out)
    }

    // --- requests of other shards ---

    /// Do what another shard asks.
    pub(super) fn serve(&mut self, from: usize, to: ReplyTo, request: &Request<'_>) {
        match *request {
            Request::Execute { command, hash, data } => {
                if let Some(relay) = &mut self.relay {
                    return relay.submit(from, to, &command, hash, data);
                }
                // The batch is taken out to write into it while the store is at work.
                let mut batch = std::mem::take(self.mesh.replies(from));
                batch.push_reply(to, Piece::Last, |out| {
                    let number = admin::conns::number(from, to.conn);
                    self.execute(self.me, &command, hash, data, execute::COPY_ACROSS_MAX, number, out)
                });
                *self.mesh.replies(from) = batch;
            }
            Request::Unlink { key, hash, base64 } => {
                self.unlink(self.me, key, hash, base64);
                self.mesh.replies(from).push_reply(to, Piece::Last, |_| None);
            }
            Request::UploadBegin { value_len } => self.upload_begin((from, to.conn), value_len),
            Request::UploadPiece { data } => self.upload_piece((from, to.conn), data),
            Request::UploadAbort => self.upload_abort((from, to.conn)),
            Request::UploadCommit { command, hash } => {
                let mut answer = Vec::new();
                self.upload_commit((from, to.conn), &command, hash, &mut answer);
                self.mesh.replies(from).push_reply(to, Piece::Last, |out| {
                    out.extend_from_slice(&answer);
                    None
                });
            }
            Request::Broadcast(what) => {
                let answer = self.obey(what, None);
                self.mesh.replies(from).push_reply(to, Piece::Last, |out| {
                    out.extend_from_slice(&answer);
                    None
                });
            }
        }
    }

    /// This shard's part of a broadcast. The session that asks, if it is one of ours, is out of its place meanwhile.
    pub(super) fn obey(&mut self, what: Broadcast, asking: Option<&Session>) -> Vec<u8> {
        match what {
            Broadcast::Flush { at_s } => self.store.flush(corecached_engine::Seconds(at_s), self.now),
            Broadcast::MemoryLimit { bytes } => {
                // Checked before it was sent out.
                let _ = self.store.set_memory_bytes(bytes, self.now);
            }
            Broadcast::ResetCounters => self.reset_counters(),
            Broadcast::CountPrefixes { on } => {
                let delimiter = self.shared.config.prefix_delimiter;
                self.prefixes = on.then(|| Box::new(Prefixes::new(delimiter)));
                self.observed = on || self.watched != 0;
            }
            Broadcast::DescribeItems { limit } => {
                return admin::cachedump::describe(&self.store, limit, self.now);
            }
            Broadcast::ListItems { from, list } => {
                return admin::crawler::list(&self.store, from, list, self.now);
            }
            Broadcast::DescribeRelay => {
                return self.relay.as_deref().map_or_else(Vec::new, proxy::stats::describe);
            }
            Broadcast::DescribePrefixes => {
                return self.prefixes.as_ref().map_or_else(Vec::new, |prefixes| prefixes.encode());
            }
            Broadcast::DescribeConns => {
                let all = self.sessions().chain(asking);
                return admin::conns::describe(self.me, all, &self.shared.listens, self.now.0);
            }
        }
        Vec::new()
    }
}
