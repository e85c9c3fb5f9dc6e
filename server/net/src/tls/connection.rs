//! One secured connection: what of the protocol is under way, and replies that wait to be encrypted.
//!
//! It does no I/O. Bounds: `rustls` keeps at most one record or 64 KiB of a handshake that has not come whole; replies
//! are encrypted as they are made, but for values that are sent from where they are stored, of which at most
//! [`SEAL_BYTES`] are encrypted at a time, and only while the socket takes them.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use rustls::server::ServerConnection;
use rustls::{ClientConnection, HandshakeKind, ServerConfig};

use super::trust::Secure;
use crate::driver::{ConnId, Pinned};
use crate::outbox::{self, Outbox};

/// Most plain bytes of a waiting value encrypted in one turn: four records.
pub const SEAL_BYTES: usize = 64 * 1024;

/// `ContentType` of a handshake record, the only one that a connection may begin with.
const HANDSHAKE: u8 = 22;
/// First byte of the version in every record.
const MAJOR_VERSION: u8 = 3;

/// See the head of the file.
#[derive(Debug)]
pub struct Connection {
    /// Its name in the driver below.
    pub id: ConnId,
    tls: rustls::Connection,
    /// When the client connected; `None` of one that we began.
    pub since: Option<Instant>,
    /// Replies not encrypted yet, in order.
    queue: Option<Box<Outbox>>,
    /// What is known of the handshake.
    handshake: Handshake,
    /// The client has said that it will send nothing more.
    ended: bool,
    /// The shard was told that too much waits, and must be told when that is over.
    pub owes_drained: bool,
    /// The shard has let go of it.
    pub closing: bool,
    /// The driver below does not receive.
    pub paused: bool,
    /// In the driver's list of connections that have something to send this turn.
    pub touched: bool,
    /// In the driver's list of connections to look at in every turn.
    pub busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    Silent,
    UnderWay,
    Done { resumed: bool },
}

/// What bytes from a client came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// They were taken, as far as they go.
    Ok,
    /// The client ended its side of the connection in an orderly way.
    Ended,
    /// It does not speak TLS: nothing can be said to it.
    Foreign,
    /// It broke the rules; what it is told is ready to be sent.
    Broken,
}

impl Connection {
    /// A connection that has been accepted `now`.
    ///
    /// # Errors
    /// When `rustls` cannot begin with this configuration.
    pub fn new(id: ConnId, config: &Arc<ServerConfig>, now: Instant) -> Result<Self, rustls::Error> {
        Ok(Self::over(id, ServerConnection::new(Arc::clone(config))?.into(), Some(now)))
    }

    /// A connection to a server that is being made.
    ///
    /// # Errors
    /// As [`Connection::new`].
    pub fn to_server(id: ConnId, secure: &Secure) -> Result<Self, rustls::Error> {
        let tls = ClientConnection::new(Arc::clone(&secure.config), secure.name.clone())?;
        Ok(Self::over(id, tls.into(), None))
    }

    fn over(id: ConnId, mut tls: rustls::Connection, since: Option<Instant>) -> Self {
        // Nothing is left in it at the end of a turn: see `Connection::take_sealed`.
        tls.set_buffer_limit(None);
        Self {
            id,
            tls,
            since,
            queue: None,
            handshake: Handshake::Silent,
            ended: false,
            owes_drained: false,
            closing: false,
            paused: false,
            touched: false,
            busy: false,
        }
    }

    /// Whether it goes to a server.
    pub fn is_ours(&self) -> bool {
        self.since.is_none()
    }

    /// Whether the handshake has been done.
    pub fn is_open(&self) -> bool {
        matches!(self.handshake, Handshake::Done { .. })
    }

    /// Whether it has begun and not been done.
    pub fn is_shaking_hands(&self) -> bool {
        self.handshake == Handshake::UnderWay
    }

    /// Whether the session was resumed rather than negotiated anew.
    pub fn is_resumed(&self) -> bool {
        self.handshake == Handshake::Done { resumed: true }
    }

    /// Bytes from the client; what they say is appended to `plain`.
    pub fn take(&mut self, mut data: &[u8], plain: &mut Vec<u8>) -> Taken {
        if self.handshake == Handshake::Silent && !data.is_empty() {
            self.handshake = Handshake::UnderWay;
            let is_tls = data[0] == HANDSHAKE && data.get(1).is_none_or(|&major| major == MAJOR_VERSION);
            if !is_tls && !self.is_ours() {
                return Taken::Foreign;
            }
        }
        while !data.is_empty() && !self.ended {
            // An error of it means more than fits its bounds.
            match self.tls.read_tls(&mut data) {
                Ok(0) | Err(_) => return Taken::Broken,
                Ok(_) => {}
            }
            let Ok(state) = self.tls.process_new_packets() else { return Taken::Broken };
            let ready = state.plaintext_bytes_to_read();
            if ready > 0 {
                let start = plain.len();
                plain.resize(start + ready, 0);
                if self.tls.reader().read_exact(&mut plain[start..]).is_err() {
                    plain.truncate(start);
                    return Taken::Broken;
                }
            }
            self.ended |= state.peer_has_closed();
            if !self.is_open() && !self.tls.is_handshaking() {
                let resumed = self.tls.handshake_kind() == Some(HandshakeKind::Resumed);
                self.handshake = Handshake::Done { resumed };
            }
        }
        if self.ended { Taken::Ended } else { Taken::Ok }
    }

    /// A part of the replies: encrypted now, or when its turn comes. `queued`: a value follows that will wait.
    pub fn put(&mut self, bytes: &[u8], queued: bool) -> io::Result<()> {
        if queued || self.queue.is_some() {
            self.queue.get_or_insert_default().push_bytes(bytes);
            return Ok(());
        }
        self.tls.writer().write_all(bytes)
    }

    /// A value among the replies.
    pub fn put_pinned(&mut self, pinned: Pinned) {
        self.queue.get_or_insert_default().push_pinned(pinned);
    }

    /// Bytes that wait to be encrypted.
    pub fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.len())
    }

    /// Encrypt at most [`SEAL_BYTES`] of what waits; values that are done with go to `released`.
    pub fn seal_waiting(&mut self, mut released: impl FnMut(Pinned)) -> io::Result<()> {
        self.tls.set_buffer_limit(Some(SEAL_BYTES));
        let mut outcome = Ok(());
        while let Some(queue) = &mut self.queue {
            let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(outbox::GATHER_MAX);
            queue.gather(&mut pieces);
            match self.tls.writer().write_vectored(&pieces) {
                Ok(0) => break,
                Ok(taken) => queue.advance(taken, &mut released),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
            if queue.is_empty() {
                self.queue = None;
            }
        }
        self.tls.set_buffer_limit(None);
        outcome
    }

    /// Say that nothing more will come.
    pub fn say_goodbye(&mut self) {
        self.tls.send_close_notify();
    }

    /// Append what is encrypted, and what the handshake has to say, to `out`.
    pub fn take_sealed(&mut self, out: &mut Vec<u8>) {
        while self.tls.wants_write() {
            if self.tls.write_tls(out).is_err() {
                break; // a vector takes everything
            }
        }
    }

    /// Nothing more will be sent.
    pub fn abandon(&mut self, released: impl FnMut(Pinned)) {
        if let Some(mut queue) = self.queue.take() {
            queue.clear(released);
        }
    }
}
