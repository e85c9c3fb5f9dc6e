//! One secured connection: the state of its handshake and session, and output that is not encrypted yet.
//!
//! It does no I/O. Bounds: `rustls` keeps at most one incomplete record, or 64 KiB of an incomplete
//! handshake. Output is encrypted when it is made. Only values that are sent from where they are stored, and
//! what follows them, are queued: at most [`ENCRYPT_BYTES`] of them are encrypted in a turn, and only while
//! the socket takes them.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use rustls::server::ServerConnection;
use rustls::{ClientConnection, HandshakeKind, ServerConfig};

use super::trust::ClientTls;
use crate::driver::{ConnId, Pinned};
use crate::outbox::{self, Outbox};

/// Most queued bytes that are encrypted in one turn: four records.
const ENCRYPT_BYTES: usize = 64 * 1024;

/// `ContentType` of a handshake record: a connection begins with one.
const HANDSHAKE: u8 = 22;
/// First byte of the version in every record.
const MAJOR_VERSION: u8 = 3;

/// The TLS state of one connection of the driver below.
#[derive(Debug)]
pub(super) struct TlsConnection {
    /// Its name in the driver below.
    pub(super) id: ConnId,
    tls: rustls::Connection,
    /// When the client connected; `None` for a connection to a server.
    pub(super) since: Option<Instant>,
    /// Output that is not encrypted yet, in order.
    queue: Option<Box<Outbox>>,
    handshake: HandshakeState,
    /// The peer has said that it will send nothing more.
    ended: bool,
    /// The shard knows that too much output is left, and must be told when that is over.
    pub(super) owes_drained: bool,
    /// The shard has closed it, or knows that it broke: nothing is reported any more.
    pub(super) closing: bool,
    /// The driver below does not receive.
    pub(super) paused: bool,
    /// In the driver's list of connections that have something to send in this turn.
    pub(super) touched: bool,
    /// In the driver's list of connections that are examined in every turn.
    pub(super) busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandshakeState {
    /// The peer has sent nothing yet.
    Silent,
    UnderWay,
    /// `resumed`: with the keys of an earlier session.
    Done {
        resumed: bool,
    },
}

/// The result of decrypting what came from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decrypted {
    /// All of it was processed; an incomplete record waits for the rest.
    Ok,
    /// The peer ended its side of the connection in an orderly way.
    Ended,
    /// The client does not speak TLS: nothing can be said to it.
    NotTls,
    /// The peer broke the protocol; the alert for it is ready to be sent.
    Broken,
}

impl TlsConnection {
    /// A connection of a client, accepted `now`.
    ///
    /// # Errors
    /// When `rustls` cannot begin with this configuration.
    pub(super) fn from_client(
        id: ConnId,
        config: &Arc<ServerConfig>,
        now: Instant,
    ) -> Result<Self, rustls::Error> {
        Ok(Self::over(id, ServerConnection::new(Arc::clone(config))?.into(), Some(now)))
    }

    /// A connection to a server.
    ///
    /// # Errors
    /// When `rustls` cannot begin with this configuration.
    pub(super) fn to_server(id: ConnId, client: &ClientTls) -> Result<Self, rustls::Error> {
        let tls = ClientConnection::new(Arc::clone(&client.config), client.name.clone())?;
        Ok(Self::over(id, tls.into(), None))
    }

    fn over(id: ConnId, mut tls: rustls::Connection, since: Option<Instant>) -> Self {
        // `take_encrypted` empties it at the end of each turn.
        tls.set_buffer_limit(None);
        Self {
            id,
            tls,
            since,
            queue: None,
            handshake: HandshakeState::Silent,
            ended: false,
            owes_drained: false,
            closing: false,
            paused: false,
            touched: false,
            busy: false,
        }
    }

    /// Whether it goes to a server, rather than come from a client.
    pub(super) fn is_to_server(&self) -> bool {
        self.since.is_none()
    }

    /// Whether the handshake has been done.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.handshake, HandshakeState::Done { .. })
    }

    /// Whether the handshake has begun and is not done.
    pub(super) fn is_shaking_hands(&self) -> bool {
        self.handshake == HandshakeState::UnderWay
    }

    /// Whether the session was resumed rather than negotiated anew.
    pub(super) fn is_resumed(&self) -> bool {
        self.handshake == HandshakeState::Done { resumed: true }
    }

    /// Decrypts bytes from the peer, and appends what they say to `plain`.
    pub(super) fn decrypt(&mut self, mut data: &[u8], plain: &mut Vec<u8>) -> Decrypted {
        if self.handshake == HandshakeState::Silent && !data.is_empty() {
            self.handshake = HandshakeState::UnderWay;
            let is_tls = data[0] == HANDSHAKE && data.get(1).is_none_or(|&major| major == MAJOR_VERSION);
            if !is_tls && !self.is_to_server() {
                return Decrypted::NotTls;
            }
        }
        while !data.is_empty() && !self.ended {
            // An error means that its bounds are exceeded.
            match self.tls.read_tls(&mut data) {
                Ok(0) | Err(_) => return Decrypted::Broken,
                Ok(_) => {}
            }
            let Ok(state) = self.tls.process_new_packets() else { return Decrypted::Broken };
            let ready = state.plaintext_bytes_to_read();
            if ready > 0 {
                let start = plain.len();
                plain.resize(start + ready, 0);
                if self.tls.reader().read_exact(&mut plain[start..]).is_err() {
                    plain.truncate(start);
                    return Decrypted::Broken;
                }
            }
            self.ended |= state.peer_has_closed();
            if !self.is_open() && !self.tls.is_handshaking() {
                let resumed = self.tls.handshake_kind() == Some(HandshakeKind::Resumed);
                self.handshake = HandshakeState::Done { resumed };
            }
        }
        if self.ended { Decrypted::Ended } else { Decrypted::Ok }
    }

    /// Output: encrypted now, or queued after what is queued. `queued`: a pinned value follows, which is
    /// queued too.
    pub(super) fn write(&mut self, bytes: &[u8], queued: bool) -> io::Result<()> {
        if queued || self.queue.is_some() {
            self.queue.get_or_insert_default().push_bytes(bytes);
            return Ok(());
        }
        self.tls.writer().write_all(bytes)
    }

    /// Output of a pinned value, which is queued.
    pub(super) fn write_pinned(&mut self, pinned: Pinned) {
        self.queue.get_or_insert_default().push_pinned(pinned);
    }

    /// Queued bytes: those that are not encrypted yet.
    pub(super) fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.len())
    }

    /// Encrypts at most [`ENCRYPT_BYTES`] of what is queued; values that are encrypted whole go to
    /// `released`.
    pub(super) fn encrypt_queued(&mut self, mut released: impl FnMut(Pinned)) -> io::Result<()> {
        self.tls.set_buffer_limit(Some(ENCRYPT_BYTES));
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

    /// Tells the peer that nothing more will come.
    pub(super) fn close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    /// Appends what is encrypted, and messages of the handshake, to `out`.
    pub(super) fn take_encrypted(&mut self, out: &mut Vec<u8>) {
        while self.tls.wants_write() {
            if self.tls.write_tls(out).is_err() {
                break; // a vector takes everything
            }
        }
    }

    /// Drops what is queued, because the connection ends; pinned values go to `released`.
    pub(super) fn abandon(&mut self, released: impl FnMut(Pinned)) {
        if let Some(mut queue) = self.queue.take() {
            queue.clear(released);
        }
    }
}
