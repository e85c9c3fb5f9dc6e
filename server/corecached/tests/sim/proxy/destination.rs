//! Destinations that answer as a memcached does, and go wrong as the seed wants it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use corecached_protocol::{
    Arithmetic, Command, Delete, Limits, Meta, MetaVerb, Parsed, Parser, Retrieve, Store, StoreVerb,
    data_block, text,
};

use corecached_testkit::network::Network;
use super::blame::{Blame, Harm, TIMEOUT_MS};
use super::history::History;

/// Bytes that wait for a proxy that does not read, before nothing more is answered.
const SOCKET_BYTES: usize = 64 * 1024;

/// A reply of more bytes is large.
const LARGE_BYTES: usize = 1500;

/// What a destination does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Says nothing for a while, and then all of it.
    Stall,
    /// A line that answers nothing.
    Garbage,
    /// A value for another key, or with something else behind it than CRLF.
    WrongValue,
    /// An error instead of a reply.
    ErrorReply,
    /// Part of a reply, and then the end of the connection.
    BreakOff,
    /// Connections are reset, with all that was on its way.
    Reset,
    /// Ends its connections when it has answered all that came.
    Leave,
    /// Takes no connection, and says so; those that stand are reset.
    Refuse,
    /// Takes no connection, and does not say so; those that stand are reset.
    Hang,
    /// All is well again.
    Return,
}

pub const FAULTS: [Fault; 10] = [
    Fault::Stall,
    Fault::Garbage,
    Fault::WrongValue,
    Fault::ErrorReply,
    Fault::BreakOff,
    Fault::Reset,
    Fault::Leave,
    Fault::Refuse,
    Fault::Hang,
    Fault::Return,
];

#[derive(Debug)]
struct Item {
    flags: u32,
    value: Vec<u8>,
    cas: u64,
}

/// Its end of one connection.
#[derive(Debug, Default)]
struct Conn {
    input: Vec<u8>,
    parser: Parser,
    output: Vec<u8>,
    /// No more of the output is sent than this, and then the end.
    break_off: Option<usize>,
    /// What was answered wrongly may not have been noticed.
    wronged: Option<Harm>,
    ended: bool,
}

/// See the head of the file.
pub struct Destination {
    number: usize,
    items: BTreeMap<Vec<u8>, Item>,
    cas: u64,
    conns: BTreeMap<usize, Conn>,
    stalled_until_ms: u64,
    next_reply: Option<Fault>,
    history: Rc<RefCell<History>>,
    blame: Rc<RefCell<Blame>>,
    random: fastrand::Rng,
}

impl Destination {
    pub fn new(
        number: usize,
        history: &Rc<RefCell<History>>,
        blame: &Rc<RefCell<Blame>>,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            number,
            items: BTreeMap::new(),
            cas: 0,
            conns: BTreeMap::new(),
            stalled_until_ms: 0,
            next_reply: None,
            history: Rc::clone(history),
            blame: Rc::clone(blame),
            random,
        }
    }

    // --- what goes wrong ---

    pub fn go_wrong(&mut self, fault: Fault, network: &mut Network) {
        let now_ms = self.blame.borrow().now_ms;
        match fault {
            Fault::Stall => self.stalled_until_ms = now_ms + self.random.u64(..4 * TIMEOUT_MS),
            Fault::Garbage | Fault::WrongValue | Fault::ErrorReply | Fault::BreakOff => {
                self.next_reply = Some(fault);
            }
            Fault::Reset => self.reset_all(network),
            Fault::Leave => self.conns.values_mut().for_each(|conn| conn.ended = true),
            Fault::Refuse => {
                self.reset_all(network);
                network.entrances[self.number].refuses = true;
            }
            Fault::Hang => {
                self.reset_all(network);
                network.entrances[self.number].hangs = true;
            }
            Fault::Return => self.recover(network),
        }
        self.show_harm(network);
    }

    /// Nothing is wrong with it any more.
    pub fn recover(&mut self, network: &mut Network) {
        self.show_harm(network);
        let entrance = &mut network.entrances[self.number];
        (entrance.refuses, entrance.hangs) = (false, false);
        self.stalled_until_ms = 0;
        self.next_reply = None;
        network.stir_all();
    }

    fn reset_all(&mut self, network: &mut Network) {
        let number = self.number;
        let is_here = |link: &corecached_testkit::network::Link| link.destination == Some(number) && link.is_held();
        for at in 0..network.links.len() {
            if is_here(&network.links[at]) && network.links[at].stands {
                network.links[at].reset = true;
                network.stir(at);
                self.blame.borrow_mut().goes_on(number, Harm::Break);
            }
        }
    }

    /// What is wrong with it now.
    pub fn show_harm(&self, network: &Network) {
        let mut blame = self.blame.borrow_mut();
        let Self { number, stalled_until_ms, .. } = *self;
        let entrance = &network.entrances[number];
        let wronged = self.conns.values().filter_map(|conn| conn.wronged);
        let ends = self.conns.values().any(|conn| conn.ended).then_some(Harm::Break);
        let harms = [
            (stalled_until_ms > blame.now_ms).then_some(Harm::Silence),
            entrance.refuses.then_some(Harm::Refusal),
            entrance.hangs.then_some(Harm::Hang),
            ends,
        ];
        harms.into_iter().flatten().chain(wronged).for_each(|harm| blame.goes_on(number, harm));
    }

    // --- connections ---

    /// Its links on which something is to be read or sent, in words.
    pub fn unread(&self, network: &Network) -> Vec<String> {
        let links = network.links.iter().enumerate();
        let open =
            links.filter(|(_, link)| link.destination == Some(self.number) && !link.reset && !link.closed);
        let mut unread = Vec::new();
        for (at, link) in open {
            let conn = self.conns.get(&at);
            let (input, output) = conn.map_or((0, 0), |conn| (conn.input.len(), conn.output.len()));
            if link.to_server.len() + input + output > 0 {
                let (sent, given_up) = (link.to_server.len(), link.shut);
                unread.push(format!(
                    "destination {}, link {at}: {sent} bytes sent, {input} read, {output} to send, stands {}, given up \
                     {given_up}",
                    self.number, link.stands
                ));
            }
        }
        unread
    }

    /// Work on one connection. False when there was nothing to do.
    pub fn step(&mut self, network: &mut Network) -> bool {
        if self.stalled_until_ms > self.blame.borrow().now_ms {
            return false;
        }
        let count = network.links.len();
        let from = self.random.usize(..count.max(1));
        let is_ours = |at: &usize| {
            let link = &network.links[*at];
            link.destination == Some(self.number) && link.stands && !link.closed
        };
        let ours: Vec<usize> = (from..count).chain(0..from).filter(is_ours).collect();
        ours.into_iter().any(|link| self.step_on(link, network))
    }

    fn step_on(&mut self, at: usize, network: &mut Network) -> bool {
        let link = &mut network.links[at];
        if link.reset {
            link.closed = true;
            self.conns.remove(&at);
            return true;
        }
        let mut conn = self.conns.remove(&at).unwrap_or_default();
        let mut moved = false;
        let waiting = link.to_server.len();
        if waiting > 0 && conn.output.len() < SOCKET_BYTES && conn.break_off.is_none() {
            let len = if self.random.bool() { waiting } else { self.random.usize(1..=waiting) };
            conn.input.extend(link.to_server.drain(..len));
            moved = true;
        }
        let is_given_up = link.shut;
        if conn.break_off.is_none() {
            moved |= self.work(&mut conn, is_given_up);
        }
        let until = conn.break_off.unwrap_or(usize::MAX).min(conn.output.len());
        let room = SOCKET_BYTES.saturating_sub(link.to_client.len()).min(until);
        if is_given_up {
            conn.output.clear();
        } else if room > 0 {
            let len = if self.random.bool() { room } else { self.random.usize(1..=room) };
            link.to_client.extend(conn.output.drain(..len));
            conn.break_off = conn.break_off.map(|left| left - len);
            moved = true;
        }
        let has_answered = conn.output.is_empty() && conn.input.is_empty() && link.to_server.is_empty();
        // Of a proxy that gave up, the rest of a command will not come.
        let is_alone = is_given_up && (link.to_server.is_empty() || conn.break_off.is_some());
        let is_over = conn.break_off == Some(0) || is_alone || (has_answered && conn.ended);
        if is_over {
            link.closed = true;
            self.blame.borrow_mut().goes_on(self.number, Harm::Break);
        } else {
            if conn.output.is_empty() && link.to_client.is_empty() && conn.wronged == Some(Harm::Error) {
                conn.wronged = None; // it was read
            }
            self.conns.insert(at, conn);
        }
        if moved || is_over {
            network.stir(at);
        }
        moved || is_over
    }

    /// Read commands and answer them.
    fn work(&mut self, conn: &mut Conn, is_given_up: bool) -> bool {
        let input = std::mem::take(&mut conn.input);
        let mut at = 0;
        while conn.break_off.is_none() && at < input.len() {
            let (mut parser, rest) = (conn.parser, &input[at..]);
            let (command, mut consumed) = match parser.parse(rest, &Limits::default()) {
                Ok(Parsed::Complete { value, consumed }) => (value, consumed),
                Ok(Parsed::NeedMore) => break,
                Err(rejected) => panic!("a destination cannot read {:?}: {rejected:?}", rest.escape_ascii()),
            };
            let value_len = match command {
                Command::Store(Store { value_len, .. })
                | Command::Meta(Meta { verb: MetaVerb::Set, value_len, .. }) => Some(value_len),
                _ => None,
            };
            let mut data = &b""[..];
            if let Some(value_len) = value_len {
                let Parsed::Complete { value, consumed: block } = data_block(&rest[consumed..], value_len)
                else {
                    break;
                };
                data = value.expect("a block that ends as it should");
                consumed += block;
            }
            conn.parser = parser;
            at += consumed;
            self.answer(conn, &command, data, is_given_up);
        }
        conn.input = input[at..].to_vec();
        at > 0
    }

    fn answer(&mut self, conn: &mut Conn, command: &Command<'_>, data: &[u8], is_given_up: bool) {
        let mut bytes = Vec::new();
        // The keys behind the first of a line are answered with it.
        let last = match command {
            Command::Retrieve(retrieve) => retrieve.last,
            _ => true,
        };
        match self.next_reply.take() {
            Some(Fault::ErrorReply) if last => {
                let line: &[u8] = match self.random.u32(..8) {
                    0 => b"SERVER_ERROR 301 shutdown\r\n",
                    1 => b"SERVER_ERROR 302 try again\r\n",
                    2 | 3 => b"SERVER_ERROR 307 busy\r\n",
                    4 => b"ERROR\r\n",
                    _ => b"SERVER_ERROR out of memory\r\n",
                };
                // Behind `ERROR` the value might be read as commands: the proxy closes the connection.
                self.wrong(conn, if line == b"ERROR\r\n" { Harm::Break } else { Harm::Error });
                self.blame.borrow_mut().goes_on(self.number, Harm::Error);
                conn.output.extend_from_slice(line);
                return;
            }
            Some(fault @ (Fault::Garbage | Fault::WrongValue | Fault::BreakOff)) => {
                self.execute(command, data, is_given_up, &mut bytes);
                // Rather in a value that is passed on in pieces, of which there are few.
                if fault == Fault::BreakOff && bytes.len() < LARGE_BYTES && self.random.u8(..8) > 0 {
                    self.next_reply = Some(fault);
                    conn.output.append(&mut bytes);
                    return Self::end_line(conn, command, last);
                }
                self.wrong(conn, Harm::Break);
                match fault {
                    Fault::Garbage => {
                        let garbage = [&b"GARBAGE\r\n"[..], b"\n", &[b'x'; 5000], b"HDX\r\n"];
                        bytes = garbage[self.random.usize(..garbage.len())].to_vec();
                    }
                    Fault::WrongValue => match bytes.strip_suffix(b"\r\n") {
                        Some(rest) if self.random.bool() => bytes = [rest, b"\n\n"].concat(),
                        _ => bytes = b"VALUE other 0 1\r\nx\r\n".to_vec(),
                    },
                    _ => conn.break_off = Some(conn.output.len() + self.random.usize(..=bytes.len())),
                }
            }
            left => {
                self.next_reply = left;
                self.execute(command, data, is_given_up, &mut bytes);
            }
        }
        conn.output.append(&mut bytes);
        Self::end_line(conn, command, last);
    }

    fn end_line(conn: &mut Conn, command: &Command<'_>, last: bool) {
        if matches!(command, Command::Retrieve(_)) && last {
            conn.output.extend_from_slice(b"END\r\n");
        }
    }

    fn wrong(&self, conn: &mut Conn, harm: Harm) {
        conn.wronged = Some(harm);
        self.blame.borrow_mut().goes_on(self.number, harm);
    }

    // --- what a memcached does ---

    fn execute(&mut self, command: &Command<'_>, data: &[u8], is_given_up: bool, out: &mut Vec<u8>) {
        let line: &[u8] = match *command {
            Command::Version => b"VERSION 1.6.45\r\n",
            Command::Retrieve(Retrieve { key, with_cas, touch: None, .. }) => {
                self.asked(key);
                if let Some(Item { flags, value, cas }) = self.items.get(key) {
                    let len = value.len() as u32;
                    text::encode_value_header(out, key, *flags, len, with_cas.then_some(*cas));
                    out.extend_from_slice(value);
                    out.extend_from_slice(b"\r\n");
                }
                return;
            }
            Command::Store(Store { verb: StoreVerb::Set, key, client_flags, noreply: false, .. }) => {
                self.store(key, client_flags, data, is_given_up);
                b"STORED\r\n"
            }
            Command::Delete(Delete { key, noreply: false }) => {
                if self.delete(key, is_given_up) {
                    b"DELETED\r\n"
                } else {
                    b"NOT_FOUND\r\n"
                }
            }
            Command::Arithmetic(Arithmetic { key, noreply: false, .. }) => {
                panic!("nobody counts {} in this way", key.escape_ascii())
            }
            Command::Meta(ref meta) if !meta.flags.has(b'q') => {
                return self.meta(meta, data, is_given_up, out);
            }
            ref other => panic!("a destination was sent {other:?}"),
        };
        out.extend_from_slice(line);
    }

    fn meta(&mut self, meta: &Meta<'_>, data: &[u8], is_given_up: bool, out: &mut Vec<u8>) {
        let (key, flags) = (meta.key, &meta.flags);
        let code = match meta.verb {
            MetaVerb::Get => {
                self.asked(key);
                if self.items.contains_key(key) { "VA" } else { "EN" }
            }
            MetaVerb::Set => {
                self.store(key, flags.client_flags, data, is_given_up);
                "HD"
            }
            MetaVerb::Delete => {
                if self.delete(key, is_given_up) {
                    "HD"
                } else {
                    "NF"
                }
            }
            MetaVerb::Arithmetic => {
                let old = self.items.get(key).map(|item| String::from_utf8_lossy(&item.value).parse::<u64>());
                let number = old.map_or(flags.initial, |number| number.expect("a number") + flags.delta);
                self.asked(key);
                self.put(key, 0, number.to_string().as_bytes());
                "VA"
            }
            MetaVerb::Debug => panic!("a destination was sent {meta:?}"),
        };
        out.extend_from_slice(code.as_bytes());
        let item = self.items.get(key).filter(|_| code == "VA");
        if let Some(item) = item {
            out.extend_from_slice(format!(" {}", item.value.len()).as_bytes());
        }
        for (letter, token) in flags.iter() {
            match (letter, item) {
                (b'O', _) => out.extend_from_slice(&[b" O", token].concat()),
                (b'k', _) => out.extend_from_slice(&[b" k", key].concat()),
                (b'f', Some(item)) => out.extend_from_slice(format!(" f{}", item.flags).as_bytes()),
                _ => {}
            }
        }
        out.extend_from_slice(b"\r\n");
        if let Some(item) = item {
            out.extend_from_slice(&item.value);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn asked(&self, key: &[u8]) {
        self.history.borrow_mut().asked(key, self.number);
    }

    fn put(&mut self, key: &[u8], flags: u32, value: &[u8]) {
        self.cas += 1;
        self.items.insert(key.to_vec(), Item { flags, value: value.to_vec(), cas: self.cas });
    }

    fn store(&mut self, key: &[u8], flags: u32, value: &[u8], is_given_up: bool) {
        self.asked(key);
        if is_given_up {
            self.history.borrow_mut().written_late(key, Some(flags));
        }
        self.put(key, flags, value);
    }

    fn delete(&mut self, key: &[u8], is_given_up: bool) -> bool {
        self.asked(key);
        if is_given_up {
            self.history.borrow_mut().written_late(key, None);
        }
        self.items.remove(key).is_some()
    }
}
