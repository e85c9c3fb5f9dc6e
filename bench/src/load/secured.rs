//! TLS for the generator's connections: a driver over another driver, as the server has one for its own side.
//!
//! A connection counts as connected when its handshake is done. What a turn sends to it is encrypted together.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use corecached::net::{Buffer, Close, ConnId, Driver, Event, Send, Wait, Waker};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::Failure;

/// Buffers of decrypted bytes are numbered from here, above any of the driver below.
const BUFFERS_FROM: u16 = 1 << 15;
/// Whom the server's certificate must name.
const SERVER_NAME: &str = "localhost";

/// What connections begin with: whoever the certificates in `file` vouch for is trusted.
///
/// # Errors
/// When there are none in it.
pub fn trusting(file: &Path) -> Result<Arc<ClientConfig>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("--tls {}: {error}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))? {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() {
        return Err(failed(&"no certificate in PEM format in it"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// See the head of the file.
pub struct Secured<D> {
    below: D,
    config: Arc<ClientConfig>,
    /// By place.
    conns: Vec<Option<Conn>>,
    /// What was decrypted in this turn, and where each buffer of it begins.
    plain: Vec<u8>,
    starts: Vec<usize>,
    events: Vec<Event>,
    /// Connections with something to send.
    touched: Vec<ConnId>,
    sends: Vec<Send>,
}

struct Conn {
    id: ConnId,
    tls: ClientConnection,
    is_open: bool,
}

impl<D: Driver> Secured<D> {
    /// TLS over `below`.
    pub fn new(below: D, config: Arc<ClientConfig>) -> Self {
        Self {
            below,
            config,
            conns: Vec::new(),
            plain: Vec::new(),
            starts: Vec::new(),
            events: Vec::new(),
            touched: Vec::new(),
            sends: Vec::new(),
        }
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.index as usize)?.as_mut().filter(|conn| conn.id == id)
    }

    fn connected(&mut self, id: ConnId) -> io::Result<()> {
        let name = SERVER_NAME.try_into().map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        tls.set_buffer_limit(None);
        let index = id.index as usize;
        if index >= self.conns.len() {
            self.conns.resize_with(index + 1, || None);
        }
        self.conns[index] = Some(Conn { id, tls, is_open: false });
        self.touched.push(id);
        Ok(())
    }

    fn received(&mut self, id: ConnId, buffer: Buffer, events: &mut Vec<Event>) {
        let start = self.plain.len();
        let data = self.below.received(buffer);
        let conn = self.conns.get_mut(id.index as usize).and_then(Option::as_mut);
        let Some(conn) = conn.filter(|conn| conn.id == id) else { return self.below.recycle(buffer) };
        let outcome = conn.take(data, &mut self.plain);
        self.below.recycle(buffer);
        if outcome.is_err() {
            self.conns[id.index as usize] = None;
            self.below.close(id, Close::Now);
            return events.push(Event::Closed { conn: id });
        }
        if !conn.is_open && !conn.tls.is_handshaking() {
            conn.is_open = true;
            events.push(Event::Connected { conn: id });
        }
        if conn.tls.wants_write() {
            self.touched.push(id);
        }
        let len = self.plain.len() - start;
        if len > 0 {
            let buffer = Buffer { id: BUFFERS_FROM + self.starts.len() as u16, len: len as u32 };
            self.starts.push(start);
            events.push(Event::Received { conn: id, buffer });
        }
    }
}

impl Conn {
    fn take(&mut self, mut data: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        while !data.is_empty() {
            if self.tls.read_tls(&mut data)? == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut plain[start..])?;
        }
        Ok(())
    }
}

impl<D: Driver> Driver for Secured<D> {
    fn turn(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        if !self.touched.is_empty() {
            // Handshakes go on whether the caller has something to send or not.
            let arena = self.below.take_arena();
            self.send(arena, &mut Vec::new());
        }
        self.below.turn(wait, &mut self.events)?;
        self.plain.clear();
        self.starts.clear();
        let mut below = std::mem::take(&mut self.events);
        for event in below.drain(..) {
            match event {
                Event::Connected { conn } => self.connected(conn)?,
                Event::Received { conn, buffer } => self.received(conn, buffer, events),
                Event::Closed { conn } | Event::Ended { conn } => {
                    if self.conn(conn).is_some() {
                        self.conns[conn.index as usize] = None;
                    }
                    events.push(event);
                }
                event => events.push(event),
            }
        }
        self.events = below;
        Ok(())
    }

    fn received(&self, buffer: Buffer) -> &[u8] {
        match buffer.id.checked_sub(BUFFERS_FROM) {
            Some(number) => &self.plain[self.starts[usize::from(number)]..][..buffer.len as usize],
            None => self.below.received(buffer),
        }
    }

    fn recycle(&mut self, buffer: Buffer) {
        if buffer.id < BUFFERS_FROM {
            self.below.recycle(buffer);
        }
    }

    fn take_arena(&mut self) -> Vec<u8> {
        self.below.take_arena()
    }

    fn send(&mut self, mut arena: Vec<u8>, sends: &mut Vec<Send>) {
        for send in sends.drain(..) {
            if let Send::Bytes { conn: id, start, end, .. } = send
                && let Some(conn) = self.conn(id)
            {
                let written = conn.tls.writer().write_all(&arena[start..end]);
                debug_assert!(written.is_ok(), "there is no limit");
                self.touched.push(id);
            }
        }
        let mut out = std::mem::take(&mut self.sends);
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            let Some(conn) = self.conn(id) else { continue };
            let start = arena.len();
            while conn.tls.wants_write() && conn.tls.write_tls(&mut arena).is_ok() {}
            if start < arena.len() {
                out.push(Send::Bytes { conn: id, start, end: arena.len(), queued: false });
            }
        }
        self.touched = touched;
        self.below.send(arena, &mut out);
        self.sends = out;
    }

    fn backlog(&self, conn: ConnId) -> usize {
        self.below.backlog(conn)
    }

    fn pause(&mut self, conn: ConnId) {
        self.below.pause(conn);
    }

    fn resume(&mut self, conn: ConnId) {
        self.below.resume(conn);
    }

    fn close(&mut self, id: ConnId, how: Close) {
        if self.conn(id).is_some() {
            self.conns[id.index as usize] = None;
        }
        self.below.close(id, how);
    }

    fn connect(&mut self, address: &socket2::SockAddr) -> io::Result<ConnId> {
        self.below.connect(address)
    }

    fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.below.peer(conn)
    }

    fn stop_accepting(&mut self) {
        self.below.stop_accepting();
    }

    fn waker(&self) -> Arc<Waker> {
        self.below.waker()
    }

    fn wake(&mut self, other: &Waker) {
        self.below.wake(other);
    }

    fn accept_failures(&self) -> u64 {
        self.below.accept_failures()
    }

    fn has_unsent(&self) -> bool {
        !self.touched.is_empty() || self.below.has_unsent()
    }
}
