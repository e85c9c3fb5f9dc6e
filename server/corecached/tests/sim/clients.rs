//! Clients that know what every reply must be: each works on keys of its own, against a map.

use std::collections::{BTreeMap, VecDeque};

use corecached_testkit::network::Network;

/// Keys of one client.
const KEYS: usize = 12;
/// Commands of one client.
const COMMANDS: u64 = 60;
/// Bytes sent ahead of the replies, at most: deep enough to fill every queue on the way.
const AHEAD_BYTES: usize = 400_000;

#[derive(Clone, Debug, PartialEq)]
struct Stored {
    flags: u32,
    value: Vec<u8>,
}

/// The server that clients are connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// A cache.
    Cache,
    /// A proxy before caches. It closes the connection of a client whose command it cannot read.
    Proxy,
}

/// One simulated client.
pub(crate) struct Client {
    number: usize,
    link: usize,
    random: fastrand::Rng,
    /// What the client does wrong.
    fault: Fault,
    stored: BTreeMap<Vec<u8>, Stored>,
    /// Bytes of commands that were not sent yet.
    unsent: VecDeque<u8>,
    /// Bytes of replies that were not received yet.
    expected: VecDeque<u8>,
    commands: u64,
    done: bool,
    server: ServerKind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Shuts down its side after the last command, and still expects every reply.
    HalfClose,
    /// Breaks the connection at some point.
    Reset,
    /// Reads nothing until it has sent everything.
    Stall,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let expected: Vec<u8> = self.expected.iter().copied().take(80).collect();
        write!(
            f,
            "client {} ({:?}): {} commands, {} bytes unsent, {} expected: {}",
            self.number,
            self.fault,
            self.commands,
            self.unsent.len(),
            self.expected.len(),
            expected.escape_ascii()
        )
    }
}

impl Client {
    pub(crate) fn new(
        number: usize,
        link: usize,
        mut random: fastrand::Rng,
        faults: bool,
        server: ServerKind,
    ) -> Self {
        let fault = match random.u8(..8) {
            0 | 1 if faults => Fault::HalfClose,
            2 | 3 if faults => Fault::Reset,
            4 if faults => Fault::Stall,
            _ => Fault::None,
        };
        Self {
            number,
            link,
            random,
            fault,
            stored: BTreeMap::new(),
            unsent: VecDeque::new(),
            expected: VecDeque::new(),
            commands: 0,
            done: false,
            server,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    pub(crate) fn commands(&self) -> u64 {
        self.commands
    }

    pub(crate) fn hang_up(&self, network: &mut Network) {
        network.links[self.link].shut = true;
        network.links[self.link].to_client.clear();
        network.wake_ends(self.link);
    }

    /// Sends a part and reads a part. False when nothing changed.
    pub(crate) fn step(&mut self, network: &mut Network) -> bool {
        if self.done {
            return false;
        }
        let mut moved = false;
        let ahead = self.expected.len() + self.unsent.len();
        if self.commands < COMMANDS && ahead < AHEAD_BYTES {
            for _ in 0..self.random.usize(1..8) {
                self.command();
            }
            moved = true;
        }
        moved |= self.send(network);
        moved |= self.read(network);
        if self.fault == Fault::Reset && self.random.u16(..400) == 0 {
            network.links[self.link].reset = true;
            network.wake_ends(self.link);
            self.done = true;
            return true;
        }
        if self.commands >= COMMANDS && self.unsent.is_empty() {
            if self.fault == Fault::HalfClose {
                network.links[self.link].shut = true;
                network.wake_ends(self.link);
            }
            self.done = self.expected.is_empty();
        }
        moved
    }

    fn send(&mut self, network: &mut Network) -> bool {
        let link = &mut network.links[self.link];
        // The kernel's buffers are finite too.
        let room = 64_000usize.saturating_sub(link.to_server.len()).min(self.unsent.len());
        if room == 0 {
            return false;
        }
        let len = if self.random.bool() { room } else { self.random.usize(1..=room) };
        link.to_server.extend(self.unsent.drain(..len));
        network.wake_ends(self.link);
        true
    }

    fn read(&mut self, network: &mut Network) -> bool {
        if self.fault == Fault::Stall && (self.commands < COMMANDS || !self.unsent.is_empty()) {
            // A server rightly stops reading from a client that never reads. This one is only slow.
            if self.random.u16(..200) != 0 {
                return !network.links[self.link].to_client.is_empty(); // it could, and will
            }
        }
        let link = &mut network.links[self.link];
        if link.to_client.is_empty() {
            assert!(!link.closed, "closed with replies due: {self:?}");
            return false;
        }
        let most = link.to_client.len();
        let len = if self.random.bool() { most } else { self.random.usize(1..=most) };
        let got: Vec<u8> = link.to_client.drain(..len).collect();
        network.wake_ends(self.link);
        let want: Vec<u8> = self.expected.drain(..len.min(self.expected.len())).collect();
        if got != want {
            let at = got
                .iter()
                .zip(&want)
                .position(|(got, want)| got != want)
                .unwrap_or(want.len().min(got.len()));
            let from = at.saturating_sub(40);
            panic!(
                "client {} got {:?}, expected {:?}",
                self.number,
                got[from..(at + 60).min(got.len())].escape_ascii().to_string(),
                want[from.min(want.len())..(at + 60).min(want.len())].escape_ascii().to_string()
            );
        }
        true
    }

    fn key(&mut self) -> Vec<u8> {
        format!("client{}:{}", self.number, self.random.usize(..KEYS)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.u8(..20) {
            0..=9 => self.random.usize(..64),
            10..=14 => self.random.usize(..2_000),
            15..=17 => self.random.usize(..20_000),
            18 => self.random.usize(..150_000),
            _ => 0,
        };
        let letter = self.random.u8(b'a'..=b'z');
        let mut value = vec![letter; len];
        // Any byte may be in a value, those that end lines and blocks above all.
        for _ in 0..len.min(4) {
            let at = self.random.usize(..len);
            value[at] = b"\r\n\0 E"[self.random.usize(..5)];
        }
        value
    }

    fn say(&mut self, bytes: &[u8]) {
        self.unsent.extend(bytes);
    }

    fn expect(&mut self, bytes: &[u8]) {
        self.expected.extend(bytes);
    }

    fn command(&mut self) {
        self.commands += 1;
        match self.random.u8(..16) {
            0..=3 => self.store(),
            4..=7 => self.get(),
            8 => self.delete(),
            9 => self.count(),
            10 => self.meta_get(),
            11 => self.meta_set(),
            12 => {
                self.say(b"mn\r\n");
                self.expect(b"MN\r\n");
            }
            13 => {
                self.say(b"version\r\n");
                self.expect(b"VERSION 1.6.45\r\n");
            }
            14 if self.server == ServerKind::Proxy => self.get(),
            14 => {
                self.say(b"nonsense and more\r\n");
                self.expect(b"ERROR\r\n");
            }
            _ => self.too_large(),
        }
    }

    fn store(&mut self) {
        let verbs = ["set", "set", "set", "add", "replace", "append", "prepend"];
        let verb = verbs[self.random.usize(..verbs.len())];
        let (key, value, flags) = (self.key(), self.value(), self.random.u32(..3));
        let noreply = self.random.u8(..4) == 0;
        let there = self.stored.get(&key).cloned();
        let stored = match (verb, there) {
            ("set", _) | ("add", None) | ("replace", Some(_)) => Some(Stored { flags, value: value.clone() }),
            ("append", Some(old)) => {
                Some(Stored { flags: old.flags, value: [&old.value[..], &value[..]].concat() })
            }
            ("prepend", Some(old)) => {
                Some(Stored { flags: old.flags, value: [&value[..], &old.value[..]].concat() })
            }
            _ => None,
        };
        // Stay clear of the item size limit, which counts more than the value.
        if stored.as_ref().is_some_and(|stored| stored.value.len() > 900_000) {
            return self.delete();
        }
        let answer: &[u8] = if stored.is_some() { b"STORED\r\n" } else { b"NOT_STORED\r\n" };
        let line = format!(
            "{verb} {} {flags} 0 {}{}\r\n",
            String::from_utf8_lossy(&key),
            value.len(),
            if noreply { " noreply" } else { "" }
        );
        self.say(line.as_bytes());
        self.say(&value);
        self.say(b"\r\n");
        if let Some(stored) = stored {
            self.stored.insert(key, stored);
        }
        if !noreply {
            self.expect(answer);
        }
    }

    fn get(&mut self) {
        let count = if self.random.bool() { 1 } else { self.random.usize(1..40) };
        self.say(b"get");
        let mut total = 0;
        for _ in 0..count {
            let key = self.key();
            let stored = self.stored.get(&key).cloned();
            total += stored.as_ref().map_or(0, |stored| stored.value.len());
            if total > 1_000_000 {
                self.stored.get(&key); // enough for one command
                break;
            }
            self.say(b" ");
            self.say(&key);
            if let Some(stored) = stored {
                let head = format!(
                    "VALUE {} {} {}\r\n",
                    String::from_utf8_lossy(&key),
                    stored.flags,
                    stored.value.len()
                );
                self.expect(head.as_bytes());
                self.expect(&stored.value);
                self.expect(b"\r\n");
            }
        }
        if total > 1_000_000 {
            self.say(b" absent");
        }
        self.say(b"\r\n");
        self.expect(b"END\r\n");
    }

    fn delete(&mut self) {
        let key = self.key();
        self.say(&[b"delete ", &key[..], b"\r\n"].concat());
        let found = self.stored.remove(&key).is_some();
        self.expect(if found { b"DELETED\r\n" } else { b"NOT_FOUND\r\n" });
    }

    fn count(&mut self) {
        let key = format!("client{}:counter", self.number).into_bytes();
        let delta = self.random.u64(..1000);
        let text = String::from_utf8_lossy(&key).into_owned();
        match self.stored.get(&key) {
            None => {
                self.say(format!("set {text} 0 0 1\r\n7\r\n").as_bytes());
                self.expect(b"STORED\r\n");
                self.stored.insert(key, Stored { flags: 0, value: b"7".to_vec() });
            }
            Some(stored) => {
                let sum = std::str::from_utf8(&stored.value).unwrap().parse::<u64>().unwrap() + delta;
                self.say(format!("incr {text} {delta}\r\n").as_bytes());
                self.expect(format!("{sum}\r\n").as_bytes());
                self.stored.insert(key, Stored { flags: 0, value: sum.to_string().into_bytes() });
            }
        }
    }

    fn meta_get(&mut self) {
        let key = self.key();
        let text = String::from_utf8_lossy(&key).into_owned();
        let quiet = self.random.bool();
        self.say(
            format!("mg {text} v f k Oq{}{}\r\n", self.commands, if quiet { " q" } else { "" }).as_bytes(),
        );
        let opaque = self.commands;
        match self.stored.get(&key).cloned() {
            Some(stored) => {
                let (len, flags) = (stored.value.len(), stored.flags);
                self.expect(format!("VA {len} f{flags} k{text} Oq{opaque}\r\n").as_bytes());
                self.expect(&stored.value);
                self.expect(b"\r\n");
            }
            None if quiet => {}
            None => self.expect(format!("EN k{text} Oq{opaque}\r\n").as_bytes()),
        }
    }

    fn meta_set(&mut self) {
        let (key, value) = (self.key(), self.value());
        let text = String::from_utf8_lossy(&key).into_owned();
        let quiet = self.random.bool();
        self.say(format!("ms {text} {} F5{}\r\n", value.len(), if quiet { " q" } else { "" }).as_bytes());
        self.say(&value);
        self.say(b"\r\n");
        if !quiet {
            self.expect(b"HD\r\n");
        }
        self.stored.insert(key, Stored { flags: 5, value });
    }

    /// A value over the item size limit: swallowed, refused, and the old one gone.
    fn too_large(&mut self) {
        if self.random.u8(..6) != 0 {
            return self.get();
        }
        let key = self.key();
        let len = 1 << 20;
        self.say(format!("set {} 0 0 {len}\r\n", String::from_utf8_lossy(&key)).as_bytes());
        self.say(&vec![b'x'; len]);
        self.say(b"\r\n");
        self.expect(b"SERVER_ERROR object too large for cache\r\n");
        self.stored.remove(&key);
    }
}
