//! From bytes to work: parse what a connection sent, carry out what is ours, hand the rest to its owner.

use corecached_engine::Key;
use corecached_protocol::{
    AdminVerb, BadDataChunk, Command, Meta, MetaKey, MetaMode, MetaVerb, ParseError, Parsed, Parser,
    Rejected, StoreVerb, data_block, line, text,
};

use arrayvec::ArrayVec;

use super::core::Core;
use super::execute::{self, Context};
use super::message::{Broadcast, GATHER, ReplyTo, Request};
use super::owner_of;
use crate::admin;
use crate::admin::prefixes::Prefixes;
use crate::conn::session::{Barrier, Gather, Part, Then, Upload};
use crate::conn::{Session, State};
use crate::net::{ConnId, Pinned, outbox};
use crate::proxy::{self, stats::Group};

/// Commands of one connection carried out in one turn; then the others have theirs.
const COMMANDS_PER_TURN: usize = 512;
/// A value up to this many bytes that has not come whole waits for the rest in the session's input; a larger one goes
/// to its store piece by piece.
const UPLOAD_MIN_BYTES: usize = 16 * 1024;
/// Largest piece of a value in one message.
const PIECE_BYTES: usize = 64 * 1024;
/// `-o verbosity` goes no higher, as in memcached.
const VERBOSITY_MAX: u32 = 2;

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
enum Step {
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
                State::Closing => return input.len(),
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
                _ if rest.is_empty() => return at,
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

    #[inline]
    fn ready<'a>(&self, parser: &mut Parser, input: &'a [u8]) -> Option<Ready<'a>> {
        let Ok(Parsed::Complete { value: command, mut consumed }) = parser.parse(input, &self.limits) else {
            return None;
        };
        let hasher = &self.shared.hasher;
        let mut value = None;
        let hash = match &command {
            Command::Retrieve(retrieve) => hasher.hash(retrieve.key),
            Command::Delete(delete) => hasher.hash(delete.key),
            Command::Arithmetic(arithmetic) => hasher.hash(arithmetic.key),
            Command::Touch(touch) => hasher.hash(touch.key),
            Command::Store(store) => {
                value = Some((store.key.len(), store.client_flags, store.value_len));
                hasher.hash(store.key)
            }
            Command::Meta(meta) => {
                if meta.verb == MetaVerb::Set {
                    value = Some((meta.key.len(), meta.flags.client_flags, meta.value_len));
                }
                hasher.hash(MetaKey::decode(meta, &mut [0; _]))
            }
            _ => return None,
        };
        let mut data: &[u8] = &[];
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
        let hasher = &self.shared.hasher;
        match command {
            Command::Store(store) => {
                let hash = hasher.hash(store.key);
                let most = self.shared.config.value_bytes_max(store.key.len(), store.client_flags);
                if store.value_len as usize > most {
                    let unlink = matches!(store.verb, StoreVerb::Set).then_some((store.key, false));
                    return self.too_large(session, hash, store.value_len, store.noreply, unlink);
                }
                self.with_data(session, hash, store.value_len, store.noreply, line, behind)
            }
            Command::Meta(meta) if meta.verb == MetaVerb::Set => {
                let hash = hasher.hash(MetaKey::decode(meta, &mut [0; _]));
                let most = self.shared.config.value_bytes_max(meta.key.len(), meta.flags.client_flags);
                if meta.value_len as usize > most {
                    let unlink =
                        (meta.flags.mode == MetaMode::Set).then_some((meta.key, meta.flags.has(b'b')));
                    return self.too_large(session, hash, meta.value_len, false, unlink);
                }
                self.with_data(session, hash, meta.value_len, false, line, behind)
            }
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
            if session.is_caught_up() {
                self.open_range(session);
                let mut out = std::mem::take(&mut self.out);
                let large = self.execute(owner, command, hash, data, execute::COPY_MAX, &mut out);
                self.out = out;
                let large = large.map(|(at, value)| (at, Pinned { value, owner }));
                self.close_range(session, large);
            } else {
                session.hold(|held| {
                    let large = self.execute(owner, command, hash, data, execute::COPY_ACROSS_MAX, held);
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
            relay.submit(self.me, to, command, data);
        } else {
            self.counters.forwarded += 1;
            self.mesh.requests(owner).push_request(to, &Request::Execute { command: *command, hash, data });
        }
        true
    }

    /// Whether we may work on the slice of `owner` ourselves: it sleeps, and has done all we asked of it before.
    #[inline]
    fn borrow(&mut self, owner: usize) -> bool {
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

    fn forward(&mut self, session: &mut Session, owner: usize, request: &Request<'_>) {
        // What follows would overtake it.
        debug_assert!(!self.others[owner].held());
        let to = ReplyTo { conn: session.conn, sequence: session.await_reply(Part::Whole, &mut self.spares) };
        self.counters.forwarded += 1;
        self.mesh.requests(owner).push_request(to, request);
    }

    /// Carry out a command on the slice of `owner`, which is ours or borrowed.
    fn execute(
        &mut self,
        owner: usize,
        command: &Command<'_>,
        hash: u64,
        data: &[u8],
        copy_max: usize,
        out: &mut Vec<u8>,
    ) -> execute::Large {
        let before = self.prefixes.is_some().then_some(self.counters);
        let Self { me, store, others, counters, now, shared, .. } = self;
        let store = if owner == *me { &mut **store } else { &mut *others[owner] };
        let large = Context { store, counters, config: &shared.config, now: *now, copy_max }
            .execute(command, hash, data, out);
        if let (Some(before), Some(prefixes)) = (before, &mut self.prefixes) {
            prefixes.count(command, &before, &self.counters);
        }
        large
    }

    // --- commands with a value ---

    fn with_data(
        &mut self,
        session: &mut Session,
        hash: u64,
        value_len: u32,
        noreply: bool,
        line: &[u8],
        behind: &[u8],
    ) -> Step {
        match data_block(behind, value_len) {
            Parsed::Complete { value: Ok(_), .. } => {
                unreachable!("a command that is all there was carried out")
            }
            Parsed::Complete { value: Err(BadDataChunk), consumed } => {
                if self.relay.is_some() {
                    self.say(session, line::MALFORMED_REQUEST);
                    session.state = State::Closing;
                } else if !noreply {
                    self.reply(session, |out| out.extend_from_slice(line::BAD_DATA_CHUNK));
                }
                Step::Took(consumed)
            }
            // A proxy sends it on when it is all there.
            Parsed::NeedMore if (value_len as usize) < UPLOAD_MIN_BYTES || self.relay.is_some() => {
                Step::NeedMore
            }
            Parsed::NeedMore => {
                let owner = owner_of(hash, self.mesh.shards());
                if owner == self.me {
                    self.upload_begin((self.me, session.conn), value_len);
                } else if self.mesh.has_room(owner) {
                    let to = ReplyTo { conn: session.conn, sequence: GATHER };
                    self.mesh.requests(owner).push_request(to, &Request::UploadBegin { value_len });
                } else {
                    return Step::Full;
                }
                session.state = State::Upload(Box::new(Upload {
                    line: line.to_vec(),
                    hash,
                    owner,
                    left: value_len as usize,
                    terminator: 0,
                    bad_terminator: false,
                }));
                Step::Took(0)
            }
        }
    }

    /// A value over the item size limit: skip it, and drop the value it was to replace.
    fn too_large(
        &mut self,
        session: &mut Session,
        hash: u64,
        value_len: u32,
        noreply: bool,
        unlink: Option<(&[u8], bool)>,
    ) -> Step {
        if let Some((key, base64)) = unlink.filter(|_| self.relay.is_none()) {
            let owner = owner_of(hash, self.mesh.shards());
            if owner == self.me || self.borrow(owner) {
                self.unlink(owner, key, hash, base64);
            } else if self.mesh.has_room(owner) {
                self.forward(session, owner, &Request::Unlink { key, hash, base64 });
            } else {
                return Step::Full;
            }
        }
        self.counters.cmd_set += 1;
        self.counters.store_too_large += 1;
        if !noreply {
            self.reply(session, |out| out.extend_from_slice(line::TOO_LARGE));
        }
        session.state = State::Swallow(u64::from(value_len) + 2);
        Step::Took(0)
    }

    fn unlink(&mut self, owner: usize, key: &[u8], hash: u64, base64: bool) {
        let mut scratch = [0; _];
        let present = if base64 { corecached_protocol::MetaFlags::bit(b'b') } else { 0 };
        let flags = corecached_protocol::MetaFlags { present, ..Default::default() };
        let meta = Meta { verb: MetaVerb::Delete, key, value_len: 0, flags };
        let key = Key { bytes: MetaKey::decode(&meta, &mut scratch), hash };
        let Self { me, store, others, counters, now, shared, .. } = self;
        let store = if owner == *me { &mut **store } else { &mut *others[owner] };
        Context { store, counters, config: &shared.config, now: *now, copy_max: 0 }.unlink(key);
    }

    /// More of a value that is stored piece by piece; returns the bytes taken, or `None` when there is no room.
    fn upload(&mut self, session: &mut Session, input: &[u8]) -> Option<usize> {
        let has_slot = session.has_slot();
        let State::Upload(upload) = &mut session.state else { unreachable!("the caller looked") };
        if upload.left > 0 {
            let piece = &input[..input.len().min(upload.left).min(PIECE_BYTES)];
            if upload.owner == self.me {
                let left = upload.left - piece.len();
                upload.left = left;
                self.upload_piece((self.me, session.conn), piece);
            } else {
                if !self.mesh.has_room(upload.owner) {
                    return None;
                }
                upload.left -= piece.len();
                let to = ReplyTo { conn: session.conn, sequence: GATHER };
                self.mesh.requests(upload.owner).push_request(to, &Request::UploadPiece { data: piece });
            }
            return Some(piece.len());
        }
        upload.bad_terminator |= input[0] != b"\r\n"[upload.terminator];
        upload.terminator += 1;
        if upload.terminator == 2 {
            if !has_slot || (upload.owner != self.me && !self.mesh.has_room(upload.owner)) {
                upload.terminator -= 1;
                return None;
            }
            self.upload_end(session);
        }
        Some(1)
    }

    fn upload_end(&mut self, session: &mut Session) {
        let State::Upload(upload) = std::mem::take(&mut session.state) else {
            unreachable!("the caller looked")
        };
        let parsed = corecached_protocol::Parser::new().parse(&upload.line, &self.limits);
        let Ok(Parsed::Complete { value: command, .. }) = parsed else { unreachable!("parsed before") };
        let (owner, hash) = (upload.owner, upload.hash);
        if upload.bad_terminator {
            self.abort_upload(session.conn, owner);
            if !matches!(command, Command::Store(store) if store.noreply) {
                self.reply(session, |out| out.extend_from_slice(line::BAD_DATA_CHUNK));
            }
        } else if owner == self.me {
            let mut answer = Vec::new();
            self.upload_commit((self.me, session.conn), &command, hash, &mut answer);
            self.reply(session, |out| out.extend_from_slice(&answer));
        } else {
            self.forward(session, owner, &Request::UploadCommit { command, hash });
        }
    }

    /// The connection is gone: a value on its way into a store is given up.
    pub(super) fn break_off(&mut self, session: &Session) {
        if let State::Upload(upload) = &session.state {
            self.abort_upload(session.conn, upload.owner);
        }
    }

    fn abort_upload(&mut self, conn: ConnId, owner: usize) {
        if owner == self.me {
            self.upload_abort((self.me, conn));
        } else {
            let to = ReplyTo { conn, sequence: GATHER };
            self.mesh.requests(owner).push_request(to, &Request::UploadAbort);
        }
    }

    fn upload_begin(&mut self, from: (usize, ConnId), value_len: u32) {
        let upload = self.store.upload_begin(value_len as usize, self.now).ok();
        let earlier = self.uploads.insert(from, upload);
        debug_assert!(earlier.is_none(), "one value at a time on a connection");
    }

    fn upload_piece(&mut self, from: (usize, ConnId), data: &[u8]) {
        let Some(place) = self.uploads.get_mut(&from) else { return };
        if let Some(upload) = place
            && self.store.upload_write(upload, data, self.now).is_err()
            && let Some(upload) = place.take()
        {
            self.store.upload_abort(upload);
        }
    }

    fn upload_commit(&mut self, from: (usize, ConnId), command: &Command<'_>, hash: u64, out: &mut Vec<u8>) {
        let upload = self.uploads.remove(&from).flatten();
        let Self { store, counters, now, shared, .. } = self;
        Context { store, counters, config: &shared.config, now: *now, copy_max: 0 }
            .commit(command, hash, upload, out);
    }

    fn upload_abort(&mut self, from: (usize, ConnId)) {
        if let Some(upload) = self.uploads.remove(&from).flatten() {
            self.store.upload_abort(upload);
        }
    }

    // --- requests of other shards ---

    /// Do what another shard asks.
    pub(super) fn serve(&mut self, from: usize, to: ReplyTo, request: &Request<'_>) {
        match *request {
            Request::Execute { command, hash, data } => {
                if let Some(relay) = &mut self.relay {
                    return relay.submit(from, to, &command, data);
                }
                // The batch is taken out to write into it while the store is at work.
                let mut batch = std::mem::take(self.mesh.replies(from));
                batch.push_reply(to, |out| {
                    self.execute(self.me, &command, hash, data, execute::COPY_ACROSS_MAX, out)
                });
                *self.mesh.replies(from) = batch;
            }
            Request::Unlink { key, hash, base64 } => {
                self.unlink(self.me, key, hash, base64);
                self.mesh.replies(from).push_reply(to, |_| None);
            }
            Request::UploadBegin { value_len } => self.upload_begin((from, to.conn), value_len),
            Request::UploadPiece { data } => self.upload_piece((from, to.conn), data),
            Request::UploadAbort => self.upload_abort((from, to.conn)),
            Request::UploadCommit { command, hash } => {
                let mut answer = Vec::new();
                self.upload_commit((from, to.conn), &command, hash, &mut answer);
                self.mesh.replies(from).push_reply(to, |out| {
                    out.extend_from_slice(&answer);
                    None
                });
            }
            Request::Broadcast(what) => {
                let answer = self.obey(what, None);
                self.mesh.replies(from).push_reply(to, |out| {
                    out.extend_from_slice(&answer);
                    None
                });
            }
        }
    }

    /// This shard's part of a broadcast. The session that asks, if it is one of ours, is out of its place meanwhile.
    fn obey(&mut self, what: Broadcast, asking: Option<&Session>) -> Vec<u8> {
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
            }
            Broadcast::DescribeItems { limit } => {
                return admin::cachedump::describe(&self.store, limit, self.now);
            }
            Broadcast::DescribeRelay => {
                return self.relay.as_deref().map_or_else(Vec::new, proxy::stats::describe);
            }
            Broadcast::DescribePrefixes => {
                return self.prefixes.as_ref().map_or_else(Vec::new, |prefixes| prefixes.encode());
            }
            Broadcast::DescribeConns => {
                let all = self.sessions().chain(asking);
                return admin::conns::describe(self.me, all, self.now.0);
            }
        }
        Vec::new()
    }

    // --- commands without a key ---

    /// Of a proxy: what it answers itself, as mcrouter does.
    fn keyless_of_proxy(&mut self, session: &mut Session, command: &Command<'_>) {
        match *command {
            Command::FlushAll { .. } if !self.shared.config.allow_flush => {
                self.say(session, line::COMMAND_DISABLED);
            }
            Command::FlushAll { delay, noreply } => {
                self.after_all(session, Barrier::FlushDestinations { delay, noreply });
            }
            Command::Stats { words } => match Group::of(words) {
                Some(group) => {
                    let (what, then) = (Broadcast::DescribeRelay, Then::ProxyStats(group));
                    self.after_all(session, Barrier::Ask { what, then });
                }
                None => self.say(session, line::BAD_STATS_COMMAND),
            },
            Command::Shutdown { .. } | Command::CacheMemlimit { .. } | Command::Admin { .. } => {
                self.say(session, line::COMMAND_NOT_SUPPORTED);
            }
            _ => unreachable!("the cache answers the others in the same way"),
        }
    }

    fn keyless(&mut self, session: &mut Session, command: &Command<'_>) {
        match *command {
            Command::MetaNoop => self.say(session, line::META_NOOP),
            Command::Version => {
                self.reply(session, |out| text::encode_version(out, crate::MEMCACHED_VERSION))
            }
            Command::Quit => session.state = State::Closing,
            Command::Verbosity { level, noreply } => {
                self.shared.set_verbosity(level.min(VERBOSITY_MAX));
                self.say_unless(session, noreply, line::OK);
            }
            _ if self.relay.is_some() => self.keyless_of_proxy(session, command),
            Command::FlushAll { delay, noreply } => {
                self.counters.cmd_flush += 1;
                if !self.shared.config.allow_flush {
                    return self.say_unless(session, noreply, line::FLUSH_NOT_ALLOWED);
                }
                let at = delay.and_then(|delay| execute::expires(delay, self.now)).unwrap_or(self.now);
                let then = if noreply { Then::Silence } else { Then::Line(line::OK) };
                self.after_all(session, Barrier::Ask { what: Broadcast::Flush { at_s: at.0 }, then });
            }
            Command::CacheMemlimit { megabytes, noreply } => self.memory_limit(session, megabytes, noreply),
            Command::Stats { words } => self.stats(session, words),
            Command::Shutdown { graceful: _ } => {
                if self.shared.config.allow_shutdown {
                    session.state = State::Closing;
                    self.shared.stop();
                } else {
                    self.say(session, line::SHUTDOWN_NOT_ENABLED);
                }
            }
            Command::Admin { verb, words } => {
                let answer = match verb {
                    AdminVerb::RefreshCerts => line::TLS_NOT_ENABLED,
                    verb => admin::tunables::answer(verb, words, &self.shared.config),
                };
                self.say(session, answer);
            }
            _ => unreachable!("commands with a key go to their owner"),
        }
    }

    fn say(&mut self, session: &mut Session, line: &'static [u8]) {
        self.reply(session, |out| out.extend_from_slice(line));
    }

    fn say_unless(&mut self, session: &mut Session, noreply: bool, line: &'static [u8]) {
        if !noreply {
            self.say(session, line);
        }
    }

    /// Do this when everything before it has been answered; parse nothing until it is done.
    fn after_all(&mut self, session: &mut Session, barrier: Barrier) {
        session.state = State::Barrier(Box::new(barrier));
    }

    fn pass_barrier(&mut self, session: &mut Session) {
        let State::Barrier(barrier) = std::mem::take(&mut session.state) else {
            unreachable!("the caller looked")
        };
        match *barrier {
            Barrier::Answered => {}
            Barrier::FlushDestinations { delay, noreply } => {
                let sequence = session.await_reply(Part::Whole, &mut self.spares);
                let to = ReplyTo { conn: session.conn, sequence };
                if let Some(relay) = &mut self.relay {
                    relay.flush_all(to, self.me, delay, noreply);
                }
                // What follows may go to the same destinations on other shards' connections.
                self.after_all(session, Barrier::Answered);
            }
            Barrier::Stats(words) => {
                let shared = std::sync::Arc::clone(&self.shared);
                self.publish_counters(); // the others published theirs before they answered
                self.reply(session, |out| admin::stats::render(&words, &shared, out));
            }
            Barrier::Ask { what, then } => {
                let mut gather = Gather { missing: 0, answers: vec![self.obey(what, Some(session))], then };
                let to = ReplyTo { conn: session.conn, sequence: GATHER };
                for shard in (0..self.mesh.shards()).filter(|&shard| shard != self.me) {
                    // A few bytes past the bound, once per connection at most: nothing to wait for.
                    self.mesh.requests(shard).push_request(to, &Request::Broadcast(what));
                    gather.missing += 1;
                }
                session.state = State::Gather(Box::new(gather));
                self.finish_gather(session);
            }
        }
    }

    /// Another shard's part of a broadcast.
    pub(super) fn gathered(&mut self, session: &mut Session, answer: Vec<u8>) {
        if let State::Gather(gather) = &mut session.state {
            gather.missing -= 1;
            gather.answers.push(answer);
            self.finish_gather(session);
        }
    }

    fn finish_gather(&mut self, session: &mut Session) {
        if !matches!(&session.state, State::Gather(gather) if gather.missing == 0) {
            return;
        }
        let State::Gather(gather) = std::mem::take(&mut session.state) else { unreachable!("just looked") };
        match gather.then {
            Then::Silence => {}
            Then::Line(line) => self.say(session, line),
            Then::Items(limit) => {
                self.reply(session, |out| admin::cachedump::render(&gather.answers, limit, out));
            }
            Then::Conns => self.reply(session, |out| admin::conns::render(&gather.answers, out)),
            Then::ProxyStats(group) => {
                let shared = std::sync::Arc::clone(&self.shared);
                self.reply(session, |out| proxy::stats::render(&gather.answers, group, &shared, out));
            }
            Then::Prefixes => self.reply(session, |out| admin::prefixes::render(&gather.answers, out)),
        }
        self.list(session);
    }

    fn memory_limit(&mut self, session: &mut Session, megabytes: u64, noreply: bool) {
        let bytes = usize::try_from(megabytes).ok().and_then(|megabytes| megabytes.checked_mul(1 << 20));
        let slice = bytes.map(|bytes| bytes / self.mesh.shards());
        match slice {
            _ if megabytes < 8 => self.say_unless(session, noreply, line::MEMLIMIT_TOO_SMALL),
            Some(slice) if self.shared.config.slice_limit_fits(slice) => {
                self.shared.set_memory_bytes(slice * self.mesh.shards());
                let then = if noreply { Then::Silence } else { Then::Line(line::OK) };
                self.after_all(session, Barrier::Ask { what: Broadcast::MemoryLimit { bytes: slice }, then });
            }
            _ => self.say_unless(session, noreply, admin::tunables::MEMLIMIT_ADJUST_FAILED),
        }
    }

    fn stats(&mut self, session: &mut Session, words: &[u8]) {
        let ask = |what, then| Barrier::Ask { what, then };
        let barrier = match admin::stats::topic(words) {
            admin::stats::Topic::Reset => {
                self.shared.admission.reset_counts();
                ask(Broadcast::ResetCounters, Then::Line(line::RESET))
            }
            admin::stats::Topic::CacheDump { limit } if self.shared.config.allow_dump => {
                ask(Broadcast::DescribeItems { limit }, Then::Items(limit))
            }
            admin::stats::Topic::CacheDump { .. } => {
                return self.say(session, line::STATS_CACHEDUMP_NOT_ALLOWED);
            }
            admin::stats::Topic::Conns => ask(Broadcast::DescribeConns, Then::Conns),
            admin::stats::Topic::DetailOn => ask(Broadcast::CountPrefixes { on: true }, Then::Line(line::OK)),
            admin::stats::Topic::DetailOff => {
                ask(Broadcast::CountPrefixes { on: false }, Then::Line(line::OK))
            }
            admin::stats::Topic::DetailDump => ask(Broadcast::DescribePrefixes, Then::Prefixes),
            admin::stats::Topic::Rendered => Barrier::Stats(words.to_vec()),
        };
        self.after_all(session, barrier);
    }
}
