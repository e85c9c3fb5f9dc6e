//! The server's end of one connection, without sockets, and the faults of a server, which a test begins and a
//! seed fills in.

use corecached_protocol::{Command, Limits, Parsed, Parser, Reply, data_block};

use crate::memcached::encode_reply;

/// What a server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// It sends nothing for a while, and then everything that is due.
    Stall,
    /// A line that is no reply to any command, in place of one reply.
    Garbage,
    /// A value of another key, or one that something else than CRLF follows.
    WrongValue,
    /// An error line in place of one reply.
    ErrorReply,
    /// Part of a reply, and then the end of the connection.
    BreakOff,
    /// Its connections are reset: what was on the way is lost.
    Reset,
    /// It closes its connections once it has answered everything that it received.
    Leave,
    /// It refuses connections.
    Refuse,
    /// It neither accepts nor refuses connections.
    Hang,
    /// It neither accepts nor refuses connections, and sends nothing on those that it has.
    Vanish,
    /// Every fault ends.
    Return,
}

/// The faults of one server. What becomes of the connections that it has, at once ([`Fault::Reset`]) or in
/// time ([`Fault::Leave`]), is up to the test, which holds them.
#[derive(Debug, Default)]
pub struct Faults {
    /// It refuses connections.
    pub refuses: bool,
    /// It neither accepts nor refuses connections.
    pub hangs: bool,
    break_off_bytes: usize,
    vanished: bool,
    stalled_until_ms: u64,
    next_reply: Option<Fault>,
}

impl Faults {
    /// No fault yet. [`Fault::BreakOff`] cuts the next reply of `break_off_bytes` and more, and of smaller
    /// ones one in eight: where values are relayed in pieces, the large ones are few, and worth more.
    #[must_use]
    pub fn with_break_off_bytes(break_off_bytes: usize) -> Self {
        Self { break_off_bytes, ..Self::default() }
    }

    /// Begins a fault at `now_ms`; [`Fault::Stall`] lasts less than `stall_ms_max`. Of two faults that are
    /// each about the next reply, the later one counts.
    pub fn begin(&mut self, fault: Fault, now_ms: u64, stall_ms_max: u64, random: &mut fastrand::Rng) {
        match fault {
            Fault::Stall => self.stalled_until_ms = now_ms + random.u64(..stall_ms_max),
            Fault::Garbage | Fault::WrongValue | Fault::ErrorReply | Fault::BreakOff => {
                self.next_reply = Some(fault);
            }
            Fault::Refuse => self.refuses = true,
            Fault::Hang => self.hangs = true,
            Fault::Vanish => (self.hangs, self.vanished) = (true, true),
            Fault::Return => self.end(),
            Fault::Reset | Fault::Leave => {}
        }
    }

    /// Ends every fault. What was already sent stays wrong.
    pub fn end(&mut self) {
        *self = Self::with_break_off_bytes(self.break_off_bytes);
    }

    /// Whether the server neither reads nor sends at `now_ms`.
    #[must_use]
    pub const fn is_silent(&self, now_ms: u64) -> bool {
        self.vanished || self.stalled_until_ms > now_ms
    }
}

/// A reply that was replaced by something wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongReply {
    /// The reply was an error line.
    pub is_error: bool,
    /// What follows on the connection cannot be assigned to commands: a client closes it.
    pub ends_connection: bool,
}

/// What [`ServerConnection::work`] did.
#[derive(Debug, Default)]
pub struct Worked {
    /// Commands read, each key of a retrieval as one.
    pub commands: u64,
    /// Lines read, each with all its keys.
    pub lines: u64,
    /// The reply that was wrong. A fault concerns one reply, so that there is at most one.
    pub wrong: Option<WrongReply>,
}

/// The server's end of one connection.
#[derive(Debug, Default)]
pub struct ServerConnection {
    /// Bytes received that no command was read from yet.
    pub input: Vec<u8>,
    parser: Parser,
    output: Vec<u8>,
    /// Bytes of the output that are still sent before the connection ends.
    break_off: Option<usize>,
}

impl ServerConnection {
    /// Bytes that may be sent: what is queued, up to where the connection breaks off.
    #[must_use]
    pub fn sendable(&self) -> &[u8] {
        &self.output[..self.break_off.unwrap_or(usize::MAX).min(self.output.len())]
    }

    /// Takes the first `len` bytes of [`Self::sendable`] out of the queue: they were sent.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn sent(&mut self, len: usize) {
        assert!(len <= self.sendable().len(), "{len} bytes of {} were sent", self.sendable().len());
        self.output.drain(..len);
        self.break_off = self.break_off.map(|left| left - len);
    }

    /// Bytes that are queued, with those that a break-off keeps from being sent.
    #[must_use]
    pub const fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Forgets what is queued: the client does not read any more.
    pub fn clear_output(&mut self) {
        self.output.clear();
    }

    /// Whether the connection ends within what is queued. Nothing is read from it any more.
    #[must_use]
    pub const fn breaks_off(&self) -> bool {
        self.break_off.is_some()
    }

    /// Whether everything was sent that precedes the break-off: the connection is to be closed.
    #[must_use]
    pub fn has_broken_off(&self) -> bool {
        self.break_off == Some(0)
    }

    /// Reads every command that came whole, and queues what `reply` answers to it and the value after it, or
    /// what `faults` make of that.
    ///
    /// # Panics
    /// When the input is no command, or one that may get no reply (`noreply`, the meta flag `q`): a proxy
    /// sends none of these.
    pub fn work(
        &mut self,
        faults: &mut Faults,
        random: &mut fastrand::Rng,
        mut reply: impl FnMut(&Command<'_>, &[u8]) -> Reply,
    ) -> Worked {
        let mut worked = Worked::default();
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while !self.breaks_off() && at < input.len() {
            let (mut parser, rest) = (self.parser, &input[at..]);
            let (command, mut consumed) = match parser.parse(rest, &Limits::default()) {
                Ok(Parsed::Complete { value, consumed }) => (value, consumed),
                Ok(Parsed::NeedMore) => break,
                Err(rejected) => panic!("a server cannot read {}: {rejected:?}", rest.escape_ascii()),
            };
            let is_quiet = matches!(&command, Command::Meta(meta) if meta.flags.has(b'q'));
            assert!(!is_quiet && !command.noreply(), "a server was sent {command:?}, which may get no reply");
            let mut data = &b""[..];
            if let Some(value_len) = command.value_len() {
                let Parsed::Complete { value, consumed: block } = data_block(&rest[consumed..], value_len)
                else {
                    break;
                };
                data = value.expect("a value ends with CRLF");
                consumed += block;
            }
            self.parser = parser;
            at += consumed;
            let is_last = !matches!(&command, Command::Retrieve(retrieve) if !retrieve.last);
            worked.commands += 1;
            worked.lines += u64::from(is_last);
            let wrong = match faults.next_reply.take() {
                // In a retrieval it ends the line: the keys after it would get no reply of their own.
                Some(Fault::ErrorReply) if is_last => {
                    let (line, wrong) = error_line(random);
                    self.output.extend_from_slice(line);
                    worked.wrong = Some(wrong);
                    continue;
                }
                fault => {
                    let mut bytes = Vec::new();
                    encode_reply(&command, &reply(&command, data), &mut bytes);
                    self.queue(bytes, fault, faults, random)
                }
            };
            worked.wrong = worked.wrong.or(wrong);
            if matches!(command, Command::Retrieve(_)) && is_last {
                self.output.extend_from_slice(b"END\r\n");
            }
        }
        self.input = input[at..].to_vec();
        worked
    }

    /// Queues a reply with the fault that is due, which stays due when this is not the reply for it.
    fn queue(
        &mut self,
        mut bytes: Vec<u8>,
        fault: Option<Fault>,
        faults: &mut Faults,
        random: &mut fastrand::Rng,
    ) -> Option<WrongReply> {
        let mut wrong = Some(WrongReply { is_error: false, ends_connection: true });
        match fault {
            Some(Fault::Garbage) => {
                let garbage = [&b"GARBAGE\r\n"[..], b"\n", &[b'x'; 5000], b"HDX\r\n"];
                bytes = garbage[random.usize(..garbage.len())].to_vec();
            }
            Some(Fault::WrongValue) => match bytes.strip_suffix(b"\r\n") {
                Some(rest) if random.bool() => bytes = [rest, b"\n\n"].concat(),
                _ if random.u8(..4) == 0 => bytes = b"VALUE\r\n".to_vec(),
                _ => bytes = b"VALUE other 0 1\r\nx\r\n".to_vec(),
            },
            Some(Fault::BreakOff) if bytes.len() >= faults.break_off_bytes || random.u8(..8) == 0 => {
                self.break_off = Some(self.output.len() + random.usize(..=bytes.len()));
            }
            due => {
                faults.next_reply = due;
                wrong = None;
            }
        }
        self.output.append(&mut bytes);
        wrong
    }
}

/// An error line in place of a reply. After `ERROR` the value of a command might be read as commands, so that
/// a client closes the connection.
fn error_line(random: &mut fastrand::Rng) -> (&'static [u8], WrongReply) {
    let line: &[u8] = match random.u32(..8) {
        0 => b"SERVER_ERROR 301 shutdown\r\n",
        1 => b"SERVER_ERROR 302 try again\r\n",
        2 | 3 => b"SERVER_ERROR 307 busy\r\n",
        4 => b"ERROR\r\n",
        _ => b"SERVER_ERROR out of memory\r\n",
    };
    (line, WrongReply { is_error: true, ends_connection: line == b"ERROR\r\n" })
}
