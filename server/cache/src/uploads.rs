//! Values that have not been received completely, or are too large. The session waits for the rest, or the
//! value is uploaded to its store piece by piece, or it is skipped.
//!
//! Methods named `begin_upload`, `continue_upload` and so on run on the shard of the client. They call or
//! send to the owner of the key, which runs `open_upload`, `append_upload`, `commit_upload` or `drop_upload`.

use corecached_engine::Key;
use corecached_protocol::{
    BadDataChunk, Binary, BinaryVerb, Command, Meta, MetaFlags, MetaKey, MetaVerb, Parsed, Parser, StoreVerb,
    binary, data_block, line,
};

use corecached_net::tls::SecureDriver;
use corecached_net::{ConnId, outbox};
use corecached_shard::mesh::message::{ReplyTo, Request};
use corecached_shard::{Service, State, Step, owner_of};

use crate::cache::{Cache, CacheCore, CacheSession};
use crate::task::{CacheAsk, CacheTask, Client, Upload};

/// A shorter value waits for its rest in the session's input. A value of so many bytes or more is uploaded to
/// its store piece by piece: the memory of the store stays within the limit, however many clients send a
/// value slowly.
const UPLOAD_BYTES_MIN: usize = 4 * 1024;
/// Bytes of the largest piece of a value in one message.
const PIECE_BYTES: usize = 64 * 1024;
/// Most bytes of a value that are received straight into the store in one turn. As many as are sent to one
/// connection in a turn.
const DIRECT_BYTES_PER_TURN: usize = outbox::HIGH_WATER_BYTES;
/// Most bytes that are received together with the end of such a value: its CRLF, and the commands after it.
const AFTER_VALUE_BYTES: usize = 4096;
/// Bytes of the CRLF after the value of a text command.
const CRLF_BYTES: usize = 2;

/// A command with a value that is over the item size limit.
pub(crate) struct TooLarge<'a> {
    /// The key's hash.
    pub hash: u64,
    /// Bytes of input to skip.
    pub swallow: u64,
    /// The key to delete, since its old value would be stale, and whether the key is in base64.
    pub unlink: Option<(&'a [u8], bool)>,
    /// The reply. Empty when the client gets none.
    pub answer: &'a [u8],
}

impl Cache {
    /// Handles a text command whose value is too large, or has not been received completely, or does not end
    /// with CRLF. `line` is the line of the command, and `after` the input after it.
    pub(crate) fn handle_value(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        command: &Command<'_>,
        line: &[u8],
        after: &[u8],
    ) -> Step {
        let (key, client_flags, hash, unlink, noreply) = match command {
            Command::Store(store) => {
                let unlink = matches!(store.verb, StoreVerb::Set).then_some((store.key, false));
                (store.key, store.client_flags, core.hasher.hash(store.key), unlink, store.noreply)
            }
            Command::Meta(meta) => {
                // In any mode, as in memcached: the old value is out of date for who sent this one.
                let unlink = Some((meta.key, meta.flags.has(b'b')));
                let hash = core.hasher.hash(MetaKey::decode(meta, &mut [0; _]));
                (meta.key, meta.flags.client_flags, hash, unlink, false)
            }
            _ => unreachable!("no value follows other commands"),
        };
        let Some(value_len) = command.value_len() else {
            unreachable!("commands without a value are complete")
        };
        if value_len as usize > self.value_bytes_max(key.len(), client_flags) {
            let answer = if noreply { &[] } else { line::TOO_LARGE };
            let swallow = u64::from(value_len) + CRLF_BYTES as u64;
            return self.too_large(core, session, &TooLarge { hash, swallow, unlink, answer });
        }
        match data_block(after, value_len) {
            Parsed::Complete { value: Ok(_), .. } => {
                unreachable!("a complete command was carried out")
            }
            Parsed::Complete { value: Err(BadDataChunk), consumed } => {
                core.counters.commands.cmd_set += 1;
                core.say_unless(session, noreply, line::BAD_DATA_CHUNK);
                Step::Took(consumed)
            }
            Parsed::NeedMore if (value_len as usize) < UPLOAD_BYTES_MIN => Step::NeedMore,
            Parsed::NeedMore => self.begin_upload(core, session, hash, value_len, line, CRLF_BYTES),
        }
    }

    /// Handles a binary request whose value is too large, or has not been received completely.
    pub(crate) fn handle_binary_value(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        binary: &Binary<'_>,
        line: &[u8],
        after: &[u8],
    ) -> Step {
        let hash = core.hasher.hash(binary.key);
        let value_len = binary.value_len as usize;
        if value_len > self.value_bytes_max(binary.key.len(), binary.client_flags) {
            let mut answer = Vec::new();
            binary::encode_status(&mut answer, binary.envelope, binary::Status::TooLarge);
            let unlink = (binary.verb == BinaryVerb::Set).then_some((binary.key, false));
            let refused = TooLarge { hash, swallow: value_len as u64, unlink, answer: &answer };
            return self.too_large(core, session, &refused);
        }
        debug_assert!(after.len() < value_len, "a complete request was carried out");
        if value_len < UPLOAD_BYTES_MIN {
            return Step::NeedMore;
        }
        self.begin_upload(core, session, hash, binary.value_len, line, 0)
    }

    /// Begins to upload the value of `value_len` bytes that `line` announced. `terminator_bytes` come after
    /// it.
    fn begin_upload(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        hash: u64,
        value_len: u32,
        line: &[u8],
        terminator_bytes: usize,
    ) -> Step {
        let owner = owner_of(hash, core.mesh.shards());
        if owner == core.me {
            self.open_upload(core, (core.me, session.conn), value_len);
        } else if core.mesh.has_room(owner) {
            let to = ReplyTo::unanswered(session.conn);
            core.mesh
                .requests(owner)
                .push_request(to, &keyless_request(CacheAsk::UploadBegin { value_len }, b""));
        } else {
            return Step::Full;
        }
        session.state = State::Task(CacheTask::Upload(Box::new(Upload {
            line: line.to_vec(),
            hash,
            owner,
            left: value_len as usize,
            terminator: CRLF_BYTES - terminator_bytes,
            bad_terminator: false,
        })));
        Step::Took(0)
    }

    /// Skips a value that is over the item size limit, and deletes the value that it was to replace.
    pub(crate) fn too_large(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        refused: &TooLarge<'_>,
    ) -> Step {
        let TooLarge { hash, swallow, unlink, answer } = *refused;
        if let Some((key, base64)) = unlink {
            let owner = owner_of(hash, core.mesh.shards());
            if owner == core.me || self.borrow(core, owner) {
                self.unlink(core, owner, key, hash, base64);
            } else if core.mesh.has_room(owner) {
                let ask = CacheAsk::Unlink { base64 };
                self.forward(core, session, owner, &Request { ask, hash, key, tokens: b"", data: b"" });
            } else {
                return Step::Full;
            }
        }
        core.counters.store_too_large += 1;
        if let Some((key, _)) = unlink {
            self.observe_too_large(core, key, session.conn);
        }
        if !answer.is_empty() {
            core.reply(session, |out| out.extend_from_slice(answer));
        }
        session.state = State::Swallow(swallow);
        Step::Took(0)
    }

    /// Deletes a key from the slice of `owner`, which is this shard's or borrowed.
    pub(crate) fn unlink(&mut self, core: &mut CacheCore, owner: usize, key: &[u8], hash: u64, base64: bool) {
        let mut scratch = [0; _];
        let present = if base64 { MetaFlags::bit(b'b') } else { 0 };
        let flags = MetaFlags { present, ..Default::default() };
        let meta = Meta { verb: MetaVerb::Delete, key, value_len: 0, flags };
        let key = Key { bytes: MetaKey::decode(&meta, &mut scratch), hash };
        self.on_store(core, owner, 0).unlink(key);
    }

    /// Uploads more of a value. Returns how many bytes of `input` were taken. `None` when there is no room
    /// for a piece in the mesh, or for the reply.
    pub(crate) fn continue_upload(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        input: &[u8],
    ) -> Option<usize> {
        let has_slot = session.replies.has_slot();
        let State::Task(CacheTask::Upload(upload)) = &mut session.state else {
            unreachable!("the session uploads a value")
        };
        if upload.left > 0 {
            let piece = &input[..input.len().min(upload.left).min(PIECE_BYTES)];
            let completes = piece.len() == upload.left && upload.terminator == CRLF_BYTES;
            // The commit is sent together with the last piece.
            if completes && !has_slot {
                return None;
            }
            if upload.owner == core.me {
                let left = upload.left - piece.len();
                upload.left = left;
                self.append_upload(core, (core.me, session.conn), piece);
            } else {
                if !core.mesh.has_room(upload.owner) {
                    return None;
                }
                upload.left -= piece.len();
                let to = ReplyTo::unanswered(session.conn);
                core.mesh
                    .requests(upload.owner)
                    .push_request(to, &keyless_request(CacheAsk::UploadPiece, piece));
            }
            if completes {
                self.finish_upload(core, session);
            }
            return Some(piece.len());
        }
        upload.bad_terminator |= input[0] != b"\r\n"[upload.terminator];
        upload.terminator += 1;
        if upload.terminator == CRLF_BYTES {
            if !has_slot || (upload.owner != core.me && !core.mesh.has_room(upload.owner)) {
                upload.terminator -= 1;
                return None;
            }
            self.finish_upload(core, session);
        }
        Some(1)
    }

    /// Receives more of the large values that are being uploaded, straight from the sockets into the store.
    pub(crate) fn receive_values(&mut self, core: &mut CacheCore, driver: &mut impl SecureDriver) {
        if self.uploads.is_empty() {
            return;
        }
        let mut number = 0;
        while let Some(session) = core.touched(number) {
            number += 1;
            let Some(session) = session else { continue };
            let State::Task(CacheTask::Upload(upload)) = &session.state else { continue };
            if !session.may_receive_directly() || !upload.is_received_directly(core.me) {
                continue;
            }
            let conn = session.conn;
            let Some(mut session) = core.take(conn) else { continue };
            let mut after = std::mem::take(&mut self.after_value);
            let len = self.receive_value(core, &mut session, driver, &mut after);
            if len > 0 {
                core.consume_new(self, &mut session, &after[..len]);
            }
            self.after_value = after;
            core.put(session);
        }
    }

    /// Has `driver` receive more of a value into the store. With the end of the value it also receives what
    /// follows, into `after`. Returns how many bytes that are.
    pub(crate) fn receive_value(
        &mut self,
        core: &mut CacheCore,
        session: &mut CacheSession,
        driver: &mut impl SecureDriver,
        after: &mut Vec<u8>,
    ) -> usize {
        let State::Task(CacheTask::Upload(value)) = &mut session.state else { return 0 };
        after.resize(AFTER_VALUE_BYTES, 0);
        let mut budget = DIRECT_BYTES_PER_TURN;
        while value.left > 0 && budget > 0 {
            let Some(entry) = self.uploads.get_mut(&(core.me, session.conn)) else { return 0 };
            let Some(upload) = entry else { return 0 }; // there was no memory: the rest is skipped
            let Ok(window) = self.store.upload_window(upload, core.now) else {
                self.fail_upload((core.me, session.conn));
                return 0;
            };
            let len = window.len().min(budget);
            let rest = if len == value.left { &mut after[..] } else { &mut [] };
            let received = driver.receive_into(session.conn, &mut window[..len], rest);
            let filled = received.min(len);
            self.store.upload_filled(upload, filled);
            debug_assert!(filled <= value.left, "no more is stored than the value has");
            value.left -= filled;
            budget -= filled;
            core.counters.bytes_read += received as u64;
            if received != len {
                return received - filled;
            }
        }
        0
    }

    /// The value and its terminator have been received: commits or drops the upload.
    fn finish_upload(&mut self, core: &mut CacheCore, session: &mut CacheSession) {
        let State::Task(CacheTask::Upload(upload)) = std::mem::take(&mut session.state) else {
            unreachable!("the session uploads a value")
        };
        let parsed = Parser::new().parse(&upload.line, &core.limits);
        let Ok(Parsed::Complete { value: command, .. }) = parsed else {
            unreachable!("the line was parsed before")
        };
        let (owner, hash) = (upload.owner, upload.hash);
        debug_assert_eq!(upload.left, 0, "the whole value has been received");
        debug_assert_eq!(upload.terminator, CRLF_BYTES, "the terminator has been received");
        if upload.bad_terminator {
            core.counters.commands.cmd_set += 1;
            self.abort_upload(core, session.conn, owner);
            core.say_unless(session, command.noreply(), line::BAD_DATA_CHUNK);
        } else if owner == core.me {
            let mut answer = Vec::new();
            self.commit_upload(core, (core.me, session.conn), &command, hash, &mut answer);
            core.reply(session, |out| out.extend_from_slice(&answer));
        } else {
            let Some(parts) = command.parts() else { unreachable!("a command with a value names a key") };
            let ask = CacheAsk::UploadCommit(parts.head);
            let request = Request { ask, hash, key: parts.key, tokens: parts.tokens, data: b"" };
            self.forward(core, session, owner, &request);
        }
    }

    /// Has `owner` drop the value that connection `conn` uploads to it.
    pub(crate) fn abort_upload(&mut self, core: &mut CacheCore, conn: ConnId, owner: usize) {
        if owner == core.me {
            self.drop_upload((core.me, conn));
        } else {
            let to = ReplyTo::unanswered(conn);
            core.mesh.requests(owner).push_request(to, &keyless_request(CacheAsk::UploadAbort, b""));
        }
    }

    /// Opens the upload of a value of `value_len` bytes. When there is no memory for it, its pieces are
    /// skipped.
    pub(crate) fn open_upload(&mut self, core: &CacheCore, client: Client, value_len: u32) {
        let upload = self.store.upload_begin(value_len as usize, core.now).ok();
        let earlier = self.uploads.insert(client, upload);
        debug_assert!(earlier.is_none(), "a connection uploads one value at a time");
    }

    /// Appends a piece to the upload of `client`.
    pub(crate) fn append_upload(&mut self, core: &CacheCore, client: Client, data: &[u8]) {
        let Some(Some(upload)) = self.uploads.get_mut(&client) else { return };
        if self.store.upload_write(upload, data, core.now).is_err() {
            self.fail_upload(client);
        }
    }

    /// There was no memory for a piece: frees what was stored, and the later pieces are skipped.
    fn fail_upload(&mut self, client: Client) {
        if let Some(upload) = self.uploads.get_mut(&client).and_then(Option::take) {
            self.store.upload_abort(upload);
        }
    }

    /// Carries out `command` with the value that `client` has uploaded, and appends the reply to `out`.
    pub(crate) fn commit_upload(
        &mut self,
        core: &mut CacheCore,
        client: Client,
        command: &Command<'_>,
        hash: u64,
        out: &mut Vec<u8>,
    ) {
        let upload = self.uploads.remove(&client).flatten();
        let value_len = command.value_len().unwrap_or(0) as usize;
        let watched =
            (self.watched_classes != 0).then(|| self.observe_before(core, core.me, command, hash, client));
        self.on_store(core, core.me, 0).commit(command, hash, upload, out);
        if let Some(before) = watched {
            self.observe_after(core, core.me, command, hash, value_len, &before);
        }
    }

    /// Drops the upload of `client`.
    pub(crate) fn drop_upload(&mut self, client: Client) {
        if let Some(upload) = self.uploads.remove(&client).flatten() {
            self.store.upload_abort(upload);
        }
    }
}

/// A request that names no key and is never answered.
const fn keyless_request(ask: CacheAsk, data: &[u8]) -> Request<'_, CacheAsk> {
    Request { ask, hash: 0, key: b"", tokens: b"", data }
}
