//! A client: a blocking socket on which no call waits longer than the deadline.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use socket2::SockRef;

use super::{DEADLINE, Server, shorten};

/// The names and values that `stats` listed.
pub type Stats = BTreeMap<String, String>;

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection of a test to a server. Bytes that were received and not yet taken are buffered.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    input: Vec<u8>,
    /// Index of the first byte of `input` that was not taken.
    at: usize,
}

impl Client {
    /// Connects to `server`.
    #[track_caller]
    pub fn connect(server: &Server) -> Self {
        match server.unix_socket() {
            Some(path) => {
                let stream = UnixStream::connect(path).expect("the server listens");
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.set_write_timeout(Some(DEADLINE)).unwrap();
                Self { stream: Stream::Unix(stream), input: Vec::new(), at: 0 }
            }
            None => Self::connect_to(server.address),
        }
    }

    /// Connects to an address.
    #[track_caller]
    pub fn connect_to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Stream::Tcp(stream), input: Vec::new(), at: 0 }
    }

    /// Connects to an address over TLS.
    #[track_caller]
    pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self::try_connect_tls(address, config).unwrap_or_else(|error| panic!("no TLS: {error}"))
    }

    /// Tries to connect to an address over TLS.
    ///
    /// # Errors
    /// Why the handshake failed.
    pub fn try_connect_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let Stream::Tcp(mut stream) = Self::connect_to(address).stream else { unreachable!("asked for TCP") };
        let name = "localhost".try_into().expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(tls, stream)));
        Ok(Self { stream, input: Vec::new(), at: 0 })
    }

    /// The kind of handshake of a TLS connection.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.tls().conn.handshake_kind()
    }

    /// The certificate that the server of a TLS connection showed, as DER.
    pub fn server_certificate(&self) -> Vec<u8> {
        self.tls().conn.peer_certificates().expect("a server shows one")[0].to_vec()
    }

    /// The socket below a TLS connection.
    pub fn raw(&mut self) -> &mut TcpStream {
        match &mut self.stream {
            Stream::Tls(stream) => &mut stream.sock,
            _ => panic!("not secured"),
        }
    }

    /// Changes the traffic keys of a TLS connection.
    pub fn refresh_keys(&mut self) {
        let Stream::Tls(stream) = &mut self.stream else { panic!("not secured") };
        stream.conn.refresh_traffic_keys().expect("TLS 1.3");
    }

    fn tls(&self) -> &StreamOwned<ClientConnection, TcpStream> {
        match &self.stream {
            Stream::Tls(stream) => stream,
            _ => panic!("not secured"),
        }
    }

    /// Sets the size of the receive buffer of the socket; the kernel takes it as a hint.
    pub fn set_receive_buffer(&self, bytes: usize) {
        let set = match &self.stream {
            Stream::Tcp(stream) => SockRef::from(stream).set_recv_buffer_size(bytes),
            Stream::Unix(stream) => SockRef::from(stream).set_recv_buffer_size(bytes),
            Stream::Tls(stream) => SockRef::from(&stream.sock).set_recv_buffer_size(bytes),
        };
        set.expect("the buffer can be made smaller");
    }

    /// Has the connection reset when it is dropped, so that its port is not reserved for a minute afterwards.
    pub fn reset_on_drop(&self) {
        let at_once = Some(Duration::ZERO);
        let set = match &self.stream {
            Stream::Tcp(stream) => SockRef::from(stream).set_linger(at_once),
            Stream::Unix(stream) => SockRef::from(stream).set_linger(at_once),
            Stream::Tls(stream) => SockRef::from(&stream.sock).set_linger(at_once),
        };
        set.expect("a socket may linger");
    }

    /// Sends all of `bytes`.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).expect("the server reads");
    }

    /// Tries to send all of `bytes`.
    ///
    /// # Errors
    /// The error of the socket.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Ends the sending direction.
    pub fn end_sending(&mut self) {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
        }
        .expect("the connection is open");
    }

    /// Sends all of `bytes` while it receives, until everything is sent and `done` returns true for
    /// everything received. Neither side waits for the other, however much is sent. Nothing may be buffered
    /// before.
    #[track_caller]
    pub fn exchange(&mut self, bytes: &[u8], mut done: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        assert_eq!(self.at, self.input.len(), "nothing is buffered");
        let Stream::Tcp(stream) = &mut self.stream else { panic!("exchange is for TCP") };
        let mut got = Vec::new();
        let mut chunk = vec![0; 256 * 1024];
        let mut sent = 0;
        while sent < bytes.len() || !done(&got) {
            let writable = if sent < bytes.len() { PollFlags::OUT } else { PollFlags::empty() };
            let mut polled = [PollFd::new(&*stream, PollFlags::IN | writable)];
            let limit = Timespec::try_from(DEADLINE).expect("a minute");
            let ready = poll(&mut polled, Some(&limit)).expect("a socket may be polled");
            let happened = polled[0].revents();
            assert!(
                ready != 0,
                "nothing comes any more; {} of {} sent, got {}",
                sent,
                bytes.len(),
                shorten(&got)
            );
            if happened.contains(PollFlags::OUT) {
                // What does not fit now goes in the next round; the socket itself stays blocking.
                match rustix::net::send(&*stream, &bytes[sent..], SendFlags::DONTWAIT) {
                    Ok(wrote) => sent += wrote,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            if happened.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                match stream.read(&mut chunk) {
                    Ok(0) => panic!("closed; got {}", shorten(&got)),
                    Ok(len) => got.extend_from_slice(&chunk[..len]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => panic!("{error}; got {}", shorten(&got)),
                }
            }
        }
        got
    }

    /// Receives once and appends to what is buffered. Returns the count of bytes, which is 0 at the end.
    ///
    /// # Errors
    /// The error of the socket; `WouldBlock` past the deadline.
    pub fn fill(&mut self) -> io::Result<usize> {
        if self.at == self.input.len() {
            self.input.clear();
            self.at = 0;
        }
        let len = self.input.len();
        self.input.resize(len + 64 * 1024, 0);
        let read = loop {
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut self.input[len..]),
                Stream::Unix(stream) => stream.read(&mut self.input[len..]),
                Stream::Tls(stream) => stream.read(&mut self.input[len..]),
            };
            if !matches!(&read, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
                break read;
            }
        };
        self.input.truncate(len + *read.as_ref().unwrap_or(&0));
        read
    }

    #[track_caller]
    fn fill_for(&mut self, wanted: &str) {
        match self.fill() {
            Ok(1..) => {}
            Ok(0) => panic!("closed while waiting for {wanted}; got {}", shorten(&self.input[self.at..])),
            Err(error) => {
                panic!("{error} while waiting for {wanted}; got {}", shorten(&self.input[self.at..]))
            }
        }
    }

    /// Takes the next `len` bytes.
    #[track_caller]
    pub fn read(&mut self, len: usize) -> Vec<u8> {
        while self.input.len() - self.at < len {
            self.fill_for(&format!("{len} bytes"));
        }
        self.at += len;
        self.input[self.at - len..self.at].to_vec()
    }

    /// Takes the next line, without its CRLF.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let line = self.through(b"\r\n");
        String::from_utf8(line[..line.len() - 2].to_vec()).expect("a line is text")
    }

    /// Takes everything up to the next `ending`, which is included.
    #[track_caller]
    pub fn through(&mut self, ending: &[u8]) -> Vec<u8> {
        let mut looked = self.at;
        loop {
            let found = self.input[looked..].windows(ending.len()).position(|window| window == ending);
            if let Some(found) = found {
                let end = looked + found + ending.len();
                let bytes = self.input[self.at..end].to_vec();
                self.at = end;
                return bytes;
            }
            let buffered = self.input.len() - self.at;
            self.fill_for(&format!("{:?}", ending.escape_ascii().to_string()));
            looked = (self.at + buffered.saturating_sub(ending.len() - 1)).min(self.input.len());
        }
    }

    /// Asserts that the next bytes are `expected`.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let got = self.read(expected.len());
        assert!(got == expected, "expected {}, got {}", shorten(expected), shorten(&got));
    }

    /// Sends `request` and asserts that the reply is `expected`.
    #[track_caller]
    pub fn check(&mut self, request: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.send(request);
        self.expect(expected);
    }

    /// Sends a line, to which CRLF is added, and takes a reply of one line.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.line()
    }

    /// Takes everything until the server closes.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => return self.input.split_off(self.at),
                Ok(_) => {}
                Err(error) => panic!("{error} instead of the end; got {}", shorten(&self.input[self.at..])),
            }
        }
    }

    /// Sets `key` and asserts that the value was stored.
    #[track_caller]
    pub fn set(&mut self, key: &str, value: &[u8]) {
        self.send([format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat());
        assert_eq!(self.line(), "STORED", "set {key}, {} bytes", value.len());
    }

    /// Gets `key`; `None` is a miss.
    #[track_caller]
    pub fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let header = self.ask(&format!("get {key}"));
        if header == "END" {
            return None;
        }
        let words: Vec<&str> = header.split(' ').collect();
        assert!(words.len() == 4 && words[0] == "VALUE" && words[1] == key, "get {key} got {header}");
        let value = self.read(words[3].parse().expect("a length"));
        self.expect("\r\nEND\r\n");
        Some(value)
    }

    /// The numbers of `stats`, or of `stats words`.
    #[track_caller]
    pub fn stats(&mut self, words: &str) -> Stats {
        self.send(if words.is_empty() { "stats\r\n".to_owned() } else { format!("stats {words}\r\n") });
        let mut stats = Stats::new();
        loop {
            let line = self.line();
            if line == "END" {
                return stats;
            }
            let pair = line.strip_prefix("STAT ").and_then(|pair| pair.split_once(' '));
            let (name, value) = pair.unwrap_or_else(|| panic!("stats {words} said {line:?}"));
            let earlier = stats.insert(name.to_owned(), value.to_owned());
            assert_eq!(earlier, None, "stats {words} lists {name} twice");
        }
    }

    /// One number of `stats`.
    #[track_caller]
    pub fn stat(&mut self, name: &str) -> u64 {
        let stats = self.stats("");
        let value = stats.get(name).unwrap_or_else(|| panic!("stats has no {name}"));
        value.parse().unwrap_or_else(|_| panic!("stats: {name} is {value}, not a number"))
    }
}
