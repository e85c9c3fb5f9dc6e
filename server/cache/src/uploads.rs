//! Values that have not come whole, or are not wanted: waiting for the rest, storing piece by piece, skipping.

use corecached_engine::Key;
use corecached_protocol::{
    BadDataChunk, Binary, BinaryVerb, Command, Meta, MetaKey, MetaVerb, Parsed, binary, data_block, line,
};

use super::core::Core;
use super::execute::Context;
use super::message::{GATHER, ReplyTo, Request};
use super::owner_of;
use super::requests::Step;
use crate::conn::session::Upload;
use crate::conn::{Session, State};
use crate::net::{ConnId, Driver, outbox};

/// A value up to this many bytes that has not come whole waits for the rest in the session's input; a larger one goes
/// to its store piece by piece, whose memory is within the limit however many connections send one slowly.
const UPLOAD_MIN_BYTES: usize = 4 * 1024;
/// Largest piece of a value in one message.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of a value received straight to its place in one turn: as many as a connection is sent in one.
const DIRECT_BYTES_PER_TURN: usize = outbox::HIGH_WATER_BYTES;
/// Bytes received with the end of such a value: its CRLF, and commands behind it.
const BEHIND_BYTES: usize = 4096;
/// Bytes of the CRLF behind a value of a text command.
const CRLF_BYTES: usize = 2;

/// A value over the item size limit, as its command announced it.
pub(super) struct TooLarge<'a> {
    /// The key's hash.
    pub hash: u64,
    /// Bytes to skip.
    pub swallow: u64,
    /// The key to drop, and whether it is in base64: its old value would be stale.
    pub unlink: Option<(&'a [u8], bool)>,
    /// The answer; empty for none.
    pub answer: &'a [u8],
}

impl Core {
    pub(super) fn with_data(
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
            Parsed::NeedMore => self.begin_upload(session, hash, value_len, line, CRLF_BYTES),
        }
    }

    /// The value of a binary request that has not come whole, or is too large.
    pub(super) fn binary_value(
        &mut self,
        session: &mut Session,
        binary: &Binary<'_>,
        line: &[u8],
        behind: &[u8],
    ) -> Step {
        let hash = self.shared.hasher.hash(binary.key);
        let value_len = binary.value_len as usize;
        if value_len > self.value_bytes_max(binary) {
            let mut answer = Vec::new();
            binary::encode_status(&mut answer, binary.envelope, binary::Status::TooLarge);
            let unlink = (binary.verb == BinaryVerb::Set).then_some((binary.key, false));
            let refused = TooLarge { hash, swallow: value_len as u64, unlink, answer: &answer };
            return self.too_large(session, &refused);
        }
        debug_assert!(behind.len() < value_len, "a request that is all there was carried out");
        if value_len < UPLOAD_MIN_BYTES {
            return Step::NeedMore;
        }
        self.begin_upload(session, hash, binary.value_len, line, 0)
    }

    /// Longest value that `binary` may carry.
    pub(super) fn value_bytes_max(&self, binary: &Binary<'_>) -> usize {
        self.shared.config.value_bytes_max(binary.key.len(), binary.client_flags)
    }

    /// Have a value stored piece by piece that `line` announced and so many bytes follow.
    fn begin_upload(
        &mut self,
        session: &mut Session,
        hash: u64,
        value_len: u32,
        line: &[u8],
        terminator_bytes: usize,
    ) -> Step {
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
            terminator: CRLF_BYTES - terminator_bytes,
            bad_terminator: false,
        }));
        Step::Took(0)
    }

    /// A value over the item size limit: skip it, and drop the value it was to replace.
    pub(super) fn too_large(&mut self, session: &mut Session, refused: &TooLarge<'_>) -> Step {
        let TooLarge { hash, swallow, unlink, answer } = *refused;
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
        if let Some((key, _)) = unlink {
            self.tell_too_large(key, session.conn);
        }
        if !answer.is_empty() {
            self.reply(session, |out| out.extend_from_slice(answer));
        }
        session.state = State::Swallow(swallow);
        Step::Took(0)
    }

    pub(super) fn unlink(&mut self, owner: usize, key: &[u8], hash: u64, base64: bool) {
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
    pub(super) fn upload(&mut self, session: &mut Session, input: &[u8]) -> Option<usize> {
        let has_slot = session.has_slot();
        let State::Upload(upload) = &mut session.state else { unreachable!("the caller looked") };
        if upload.left > 0 {
            let piece = &input[..input.len().min(upload.left).min(PIECE_BYTES)];
            let completes = piece.len() == upload.left && upload.terminator == CRLF_BYTES;
            // The request that ends it goes out with the last piece.
            if completes && !has_slot {
                return None;
            }
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
            if completes {
                self.upload_end(session);
            }
            return Some(piece.len());
        }
        upload.bad_terminator |= input[0] != b"\r\n"[upload.terminator];
        upload.terminator += 1;
        if upload.terminator == CRLF_BYTES {
            if !has_slot || (upload.owner != self.me && !self.mesh.has_room(upload.owner)) {
                upload.terminator -= 1;
                return None;
            }
            self.upload_end(session);
        }
        Some(1)
    }

    /// Has `driver` receive more of a value to where it is stored; with its end comes what follows, into `behind`.
    /// Returns how much that is.
    pub(super) fn receive_value(
        &mut self,
        session: &mut Session,
        driver: &mut impl Driver,
        behind: &mut Vec<u8>,
    ) -> usize {
        let State::Upload(value) = &mut session.state else { return 0 };
        behind.resize(BEHIND_BYTES, 0);
        let mut budget = DIRECT_BYTES_PER_TURN;
        while value.left > 0 && budget > 0 {
            let Some(place) = self.uploads.get_mut(&(self.me, session.conn)) else { return 0 };
            let Some(upload) = place else { return 0 }; // there was no room: the rest is skipped
            let Ok(window) = self.store.upload_window(upload, self.now) else {
                self.upload_failed((self.me, session.conn));
                return 0;
            };
            let len = window.len().min(budget);
            let rest = if len == value.left { &mut behind[..] } else { &mut [] };
            let received = driver.receive_into(session.conn, &mut window[..len], rest);
            let filled = received.min(len);
            self.store.upload_filled(upload, filled);
            value.left -= filled;
            budget -= filled;
            self.counters.bytes_read += received as u64;
            if received != len {
                return received - filled;
            }
        }
        0
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

    /// The connection is gone: a value on its way into a store is given up, and so is a list of all items.
    pub(super) fn break_off(&mut self, session: &Session) {
        match &session.state {
            State::Upload(upload) => self.abort_upload(session.conn, upload.owner),
            State::Dump(_) => self.shared.crawler.end_dump(),
            State::Watching => self.end_watch(session.conn),
            _ => {}
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

    pub(super) fn upload_begin(&mut self, from: (usize, ConnId), value_len: u32) {
        let upload = self.store.upload_begin(value_len as usize, self.now).ok();
        let earlier = self.uploads.insert(from, upload);
        debug_assert!(earlier.is_none(), "one value at a time on a connection");
    }

    pub(super) fn upload_piece(&mut self, from: (usize, ConnId), data: &[u8]) {
        let Some(Some(upload)) = self.uploads.get_mut(&from) else { return };
        if self.store.upload_write(upload, data, self.now).is_err() {
            self.upload_failed(from);
        }
    }

    /// There was no room: what else comes of it is skipped.
    fn upload_failed(&mut self, from: (usize, ConnId)) {
        if let Some(upload) = self.uploads.get_mut(&from).and_then(Option::take) {
            self.store.upload_abort(upload);
        }
    }

    pub(super) fn upload_commit(
        &mut self,
        from: (usize, ConnId),
        command: &Command<'_>,
        hash: u64,
        out: &mut Vec<u8>,
    ) {
        let upload = self.uploads.remove(&from).flatten();
        let value_len = match command {
            Command::Store(store) => store.value_len,
            Command::Meta(meta) => meta.value_len,
            Command::Binary(binary) => binary.value_len,
            _ => 0,
        } as usize;
        let conn = crate::admin::conns::number(from.0, from.1);
        let watched = (self.watched != 0).then(|| self.look_before(self.me, command, hash, conn));
        let Self { store, counters, now, shared, .. } = self;
        Context { store, counters, config: &shared.config, now: *now, copy_max: 0 }
            .commit(command, hash, upload, out);
        if let Some(before) = watched {
            self.look_behind(self.me, command, hash, value_len, conn, &before);
        }
    }

    pub(super) fn upload_abort(&mut self, from: (usize, ConnId)) {
        if let Some(upload) = self.uploads.remove(&from).flatten() {
            self.store.upload_abort(upload);
        }
    }
}
