//! Conversations from files: the bytes that a client sends and the replies that it must get, however its
//! bytes are cut.
//!
//! A file of `tests/transcripts/` is a list of cases:
//!
//! ```text
//! # a comment
//! ! args -I 1k            every case of the file runs on servers with these arguments
//! == what the case shows
//! ! serial                the case touches more than its own keys: no other one runs at the same time
//! ! closes                the server closes when it has answered
//! ! since 1.6.19: reason  a memcached 1.6.18 answers differently
//! ! differs: reason       memcached 1.6.45 answers differently
//! > set {k}a 0 0 1        a line that is sent, CRLF added
//! >> x\r\n                bytes that are sent
//! < STORED                a line that comes back, CRLF added
//! << bytes                bytes that come back
//! >b set key={k}a ext=0000000700000000 value=x     a request of the binary protocol
//! <b set status=02 value=Data\x20exists cas        a reply of it
//! ```
//!
//! A packet of the binary protocol is an opcode, by name or as `op=44`, and what it has of key, extras (in
//! hexadecimal digits), value and cas unique. Uniques of replies are not compared but for being there
//! (`cas`). `body=`, `keylen=` and `magic=` set a field of a request wrong. A case that has such a packet has
//! nothing else, and ends with `NOOP`.
//!
//! In the text `{k}` is a prefix of 8 bytes that no other replay uses, `{b64 text}` the base64 of a text,
//! `{x*9}` nine times `x`, `{any}` bytes that are not compared (without blanks and line ends), and `\r \n \t
//! \0 \\ \x7f` are bytes. `mn` is sent after a case that does not close, so that missing and surplus bytes of
//! the replies are noticed.
//!
//! Every case is replayed with its bytes cut in two at every index, and once byte by byte. The second part is
//! sent when the server has read the first, which `stats` shows on another connection.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{Backend, Client, DEADLINE, Launch, Memcached, Server, shorten};

/// Most replays at once, each on a connection of its own.
const REPLAYS_AT_ONCE: usize = 400;
/// Differences after which a server gets no more replays, and the most that are shown.
const FAILURES_MAX: usize = 12;

#[derive(Clone, Debug, Default)]
struct Case {
    /// Its file, its line and what it shows.
    name: String,
    args: Vec<String>,
    serial: bool,
    closes: bool,
    since: bool,
    differs: bool,
    binary: bool,
    sent: String,
    expected: String,
}

/// The cases of all files.
fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    files.iter().flat_map(|file| parse(file)).collect()
}

fn parse(file: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut of_file = Case::default();
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("{}:{}", file.file_name().unwrap().display(), number + 1);
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let case = cases.last_mut();
        match (mark, case) {
            ("", _) | ("#", _) => {}
            ("==", _) => cases.push(Case { name: format!("{at} {rest}"), ..of_file.clone() }),
            ("!", None) => directive(&mut of_file, rest, &at),
            ("!", Some(case)) => directive(case, rest, &at),
            (">", Some(case)) => case.sent += &format!("{rest}\\r\\n"),
            (">>", Some(case)) => case.sent += rest,
            (">b", Some(case)) => {
                case.binary = true;
                case.sent += &packet(rest, &at, 0x80);
            }
            ("<b", Some(case)) => case.expected += &packet(rest, &at, 0x81),
            ("<", Some(case)) => case.expected += &format!("{rest}\\r\\n"),
            ("<<", Some(case)) => case.expected += rest,
            _ => panic!("{at}: {line:?} is nothing a transcript may say here"),
        }
    }
    for case in cases.iter_mut().filter(|case| !case.closes) {
        if case.binary {
            case.sent += &packet("noop", &case.name, 0x80);
            case.expected += &packet("noop", &case.name, 0x81);
        } else {
            case.sent += "mn\\r\\n";
            case.expected += "MN\\r\\n";
        }
    }
    cases
}

/// Opcodes of the binary protocol by name.
const OPCODES: [(&str, u8); 38] = [
    ("get", 0x00),
    ("set", 0x01),
    ("add", 0x02),
    ("replace", 0x03),
    ("delete", 0x04),
    ("incr", 0x05),
    ("decr", 0x06),
    ("quit", 0x07),
    ("flush", 0x08),
    ("getq", 0x09),
    ("noop", 0x0a),
    ("version", 0x0b),
    ("getk", 0x0c),
    ("getkq", 0x0d),
    ("append", 0x0e),
    ("prepend", 0x0f),
    ("stat", 0x10),
    ("setq", 0x11),
    ("addq", 0x12),
    ("replaceq", 0x13),
    ("deleteq", 0x14),
    ("incrq", 0x15),
    ("decrq", 0x16),
    ("quitq", 0x17),
    ("flushq", 0x18),
    ("appendq", 0x19),
    ("prependq", 0x1a),
    ("verbosity", 0x1b),
    ("touch", 0x1c),
    ("gat", 0x1d),
    ("gatq", 0x1e),
    ("sasl_list", 0x20),
    ("sasl_auth", 0x21),
    ("sasl_step", 0x22),
    ("gatk", 0x23),
    ("gatkq", 0x24),
    ("rget", 0x30),
    ("unknown", 0xff),
];

/// The bytes of a packet, in the escaped form of a case, from its description in a transcript.
fn packet(text: &str, at: &str, magic: u8) -> String {
    let mut words = text.split(' ');
    let name = words.next().unwrap_or_default();
    let found = OPCODES.iter().find_map(|&(known, opcode)| (known == name).then_some(opcode));
    let opcode = found.unwrap_or_else(|| panic!("{at}: {name} is no opcode"));
    let (mut key, mut extras, mut value) = ("", String::new(), "");
    let (mut magic, mut status, mut cas) = (magic, 0u16, 0u64);
    let (mut key_len, mut body_len) = (None, None);
    for word in words {
        let (field, text) = word.split_once('=').unwrap_or((word, ""));
        let number = || text.parse::<u32>().unwrap_or_else(|_| panic!("{at}: {word}"));
        match field {
            "key" => key = text,
            "ext" => {
                let pairs = text.as_bytes().chunks(2);
                extras = pairs.map(|pair| format!("\\x{}", str::from_utf8(pair).unwrap())).collect();
            }
            "value" => value = text,
            "status" => status = u16::from_str_radix(text, 16).unwrap(),
            "cas" => cas = if text.is_empty() { SOME_CAS } else { u64::from(number()) },
            "keylen" => key_len = Some(number()),
            "body" => body_len = Some(number()),
            "magic" => magic = u8::from_str_radix(text, 16).unwrap(),
            _ => panic!("{at}: {word} is no part of a packet"),
        }
    }
    let len = |text: &str| expand(text, &"k".repeat(PREFIX_BYTES)).len() as u32;
    let lens = [len(&extras), len(key), len(value)];
    let mut header = vec![magic, opcode];
    header.extend_from_slice(&(key_len.unwrap_or(lens[1]) as u16).to_be_bytes());
    header.extend_from_slice(&[lens[0] as u8, 0]);
    header.extend_from_slice(&status.to_be_bytes());
    header.extend_from_slice(&body_len.unwrap_or(lens.iter().sum()).to_be_bytes());
    header.extend_from_slice(b"opaq");
    header.extend_from_slice(&cas.to_be_bytes());
    let header: String = header.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    header + &extras + key + value
}

/// The value that replaces every cas unique that is not 0.
const SOME_CAS: u64 = 1;

/// `got` with the cas unique of every packet replaced by [`SOME_CAS`].
fn without_uniques(got: &[u8]) -> Vec<u8> {
    let mut made = got.to_vec();
    let mut at = 0;
    while let Some(header) = made.get_mut(at..at + 24) {
        if header[16..] != [0; 8] {
            header[16..].copy_from_slice(&SOME_CAS.to_be_bytes());
        }
        at += 24 + u32::from_be_bytes(header[8..12].try_into().unwrap()) as usize;
    }
    made
}

fn directive(case: &mut Case, text: &str, at: &str) {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("args", args) => case.args = args.split(' ').map(str::to_owned).collect(),
        ("serial", _) => case.serial = true,
        ("closes", _) => case.closes = true,
        ("since", reason) if reason.contains(": ") => case.since = true,
        ("differs:", reason) if !reason.is_empty() => case.differs = true,
        _ => panic!("{at}: ! {text} is no directive"),
    }
}

/// Bytes of every prefix.
const PREFIX_BYTES: usize = 8;

/// A prefix that no replay has had, always of the same length.
fn fresh_prefix() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("k{:06}.", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The bytes that `text` means, with `prefix` for `{k}`.
fn expand(text: &str, prefix: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        match next {
            '\\' => {
                let (byte, len) = match rest.as_bytes()[0] {
                    b'r' => (b'\r', 1),
                    b'n' => (b'\n', 1),
                    b't' => (b'\t', 1),
                    b'0' => (0, 1),
                    b'\\' => (b'\\', 1),
                    b'x' => (u8::from_str_radix(&rest[1..3], 16).unwrap(), 3),
                    other => panic!("\\{} in {text:?}", other as char),
                };
                bytes.push(byte);
                rest = &rest[len..];
            }
            '{' => {
                let end = closing_brace(rest);
                let inner = &rest[..end];
                rest = &rest[end + 1..];
                if inner == "k" {
                    bytes.extend_from_slice(prefix.as_bytes());
                } else if let Some(inner) = inner.strip_prefix("b64 ") {
                    bytes.extend_from_slice(base64(&expand(inner, prefix)).as_bytes());
                } else if let Some((inner, times)) = inner.rsplit_once('*') {
                    bytes.extend_from_slice(&expand(inner, prefix).repeat(times.parse().unwrap()));
                } else {
                    panic!("{{{inner}}} in {text:?}");
                }
            }
            next => bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The index in `text` at which the brace closes that opened before it.
fn closing_brace(text: &str) -> usize {
    let mut depth = 1;
    text.bytes()
        .position(|byte| {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            depth == 0
        })
        .unwrap_or_else(|| panic!("a brace is not closed before {text:?}"))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0, |group, at| group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let shown = digit <= chunk.len();
            text.push(if shown { DIGITS[(group >> (18 - 6 * digit)) as usize & 63] as char } else { '=' });
        }
    }
    text
}

/// How far the bytes that were received agree with the expected ones.
#[derive(Debug, PartialEq)]
enum Agreement {
    Whole,
    SoFar,
    Not,
}

/// Compares `got` with `pieces`. Between two pieces there may be any bytes of the kind that `{any}` allows.
fn agree(pieces: &[Vec<u8>], got: &[u8]) -> Agreement {
    let (first, others) = pieces.split_first().expect("at least one piece");
    let common = first.len().min(got.len());
    if first[..common] != got[..common] {
        return Agreement::Not;
    }
    if got.len() < first.len() {
        return Agreement::SoFar;
    }
    let mut got = &got[first.len()..];
    if others.is_empty() {
        return if got.is_empty() { Agreement::Whole } else { Agreement::Not };
    }
    let mut best = Agreement::Not;
    loop {
        match agree(others, got) {
            Agreement::Not => {}
            found => best = found,
        }
        match got {
            [b' ' | b'\r' | b'\n', ..] => return best,
            _ if best == Agreement::Whole => return best,
            [_, rest @ ..] => got = rest,
            [] => return Agreement::SoFar,
        }
    }
}

/// A case with its keys filled in.
#[derive(Debug)]
struct Replay<'c> {
    case: &'c Case,
    how: String,
    sent: Vec<u8>,
    expected: Vec<Vec<u8>>,
}

impl<'c> Replay<'c> {
    fn new(case: &'c Case) -> Self {
        let prefix = fresh_prefix();
        let expected = case.expected.split("{any}").map(|piece| expand(piece, &prefix)).collect();
        Self { case, how: String::new(), sent: expand(&case.sent, &prefix), expected }
    }

    /// Reads the reply from `stream`. `Err` describes the difference to the expected one.
    fn compare(&self, stream: &mut TcpStream) -> Result<(), String> {
        let mut got = Vec::new();
        let mut chunk = [0; 16 * 1024];
        let closes = self.case.closes;
        loop {
            let comparable = if self.case.binary { without_uniques(&got) } else { got.clone() };
            match agree(&self.expected, &comparable) {
                Agreement::Whole if !closes => return Ok(()),
                Agreement::Not => return Err(self.differs(&got, "a wrong answer")),
                Agreement::Whole | Agreement::SoFar => {}
            }
            match stream.read(&mut chunk) {
                Ok(len @ 1..) => got.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                    return Err(self.differs(&got, &format!("no more answer: {error}")));
                }
                Ok(0) | Err(_) if closes && agree(&self.expected, &comparable) == Agreement::Whole => {
                    return Ok(());
                }
                Ok(0) | Err(_) => return Err(self.differs(&got, "the connection closed")),
            }
        }
    }

    fn differs(&self, got: &[u8], what: &str) -> String {
        let expected = self.expected.join(&b"{any}"[..]);
        format!(
            "{}, {}: {what}\n  sent     {}\n  expected {}\n  got      {}",
            self.case.name,
            self.how,
            shorten(&self.sent),
            shorten(&expected),
            shorten(got)
        )
    }
}

/// A server on which cases are replayed, with the count of bytes that were sent to it.
struct ReplayServer {
    server: Server,
    control: Client,
    /// Bytes that were sent to the server on all connections.
    sent: u64,
    idle: [Vec<TcpStream>; 2],
    failures: Vec<String>,
    replays: usize,
}

impl ReplayServer {
    fn new(server: Server) -> Self {
        let control = Client::connect(&server);
        Self { server, control, sent: 0, idle: [Vec::new(), Vec::new()], failures: Vec::new(), replays: 0 }
    }

    /// A connection for `case`. One on which the other protocol was used cannot be used again.
    fn connection(&mut self, case: &Case) -> TcpStream {
        self.idle[usize::from(case.binary)].pop().unwrap_or_else(|| {
            let stream = TcpStream::connect_timeout(&self.server.address, DEADLINE).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.set_write_timeout(Some(DEADLINE)).unwrap();
            stream
        })
    }

    fn send(&mut self, stream: &mut TcpStream, bytes: &[u8], closes: bool) {
        use std::io::Write;
        match stream.write_all(bytes) {
            Ok(()) => self.sent += bytes.len() as u64,
            Err(_) if closes => {} // it has closed already, as it should
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    /// The count of bytes that the server has read, those of this request included.
    fn read(&mut self) -> u64 {
        self.sent += "stats\r\n".len() as u64;
        self.control.stat("bytes_read")
    }

    /// Waits until the server has read everything.
    fn wait(&mut self) {
        let start = Instant::now();
        while self.read() < self.sent {
            assert!(start.elapsed() < DEADLINE, "the server does not read what it was sent");
        }
    }

    /// Waits until the server has read everything or closed `stream`, after which it reads no more bytes.
    fn wait_or_close(&mut self, stream: &TcpStream) {
        let start = Instant::now();
        while self.read() < self.sent {
            if is_closed(stream) {
                self.sent = self.read();
                return;
            }
            assert!(start.elapsed() < DEADLINE, "the server does not read what it was sent");
        }
    }

    fn finish(&mut self, replay: &Replay<'_>, mut stream: TcpStream) {
        self.replays += 1;
        match replay.compare(&mut stream) {
            Ok(()) if !replay.case.closes => self.idle[usize::from(replay.case.binary)].push(stream),
            // Bytes that the server had not read when it closed are never read.
            Ok(()) => self.sent = self.read(),
            Err(failure) => self.failures.push(failure),
        }
    }

    /// Replays every case that may run at the same time as others, in two parts, cut at every index.
    fn cut_in_two(&mut self, cases: &[&Case]) {
        let mut jobs = cases.iter().flat_map(|case| {
            let len = Replay::new(case).sent.len();
            (1..=len).map(move |cut| (*case, cut))
        });
        loop {
            let mut batch: Vec<(Replay<'_>, usize, TcpStream)> = Vec::new();
            for (case, cut) in jobs.by_ref().take(REPLAYS_AT_ONCE) {
                let how = format!("cut after byte {cut}");
                batch.push((Replay { how, ..Replay::new(case) }, cut, self.connection(case)));
            }
            if batch.is_empty() || self.failures.len() > FAILURES_MAX {
                return;
            }
            for (replay, cut, stream) in &mut batch {
                self.send(stream, &replay.sent[..*cut], false);
            }
            self.wait();
            for (replay, cut, stream) in &mut batch {
                self.send(stream, &replay.sent[*cut..], false);
            }
            for (replay, _, stream) in batch {
                self.finish(&replay, stream);
            }
        }
    }

    /// Replays every case byte by byte.
    fn byte_by_byte(&mut self, cases: &[&Case]) {
        for cases in cases.chunks(REPLAYS_AT_ONCE) {
            let replay = |case| Replay { how: "byte by byte".to_owned(), ..Replay::new(case) };
            let mut batch: Vec<_> = cases.iter().map(|case| (replay(case), self.connection(case))).collect();
            let longest = batch.iter().map(|(replay, _)| replay.sent.len()).max().unwrap_or(0);
            for at in 0..longest {
                for (replay, stream) in &mut batch {
                    if let Some(byte) = replay.sent.get(at) {
                        self.send(stream, &[*byte], false);
                    }
                }
                self.wait();
            }
            for (replay, stream) in batch {
                self.finish(&replay, stream);
            }
        }
    }

    /// Replays one case alone, cut after the bytes `cuts`. Each part is sent when the server has read the one
    /// before.
    fn alone(&mut self, case: &Case, cuts: &[usize]) {
        let replay = Replay { how: format!("alone, cut after {cuts:?}"), ..Replay::new(case) };
        let mut stream = self.connection(case);
        let mut from = 0;
        for &to in cuts.iter().chain([&replay.sent.len()]) {
            self.send(&mut stream, &replay.sent[from..to], case.closes);
            if to < replay.sent.len() {
                self.wait_or_close(&stream);
            }
            from = to;
        }
        self.finish(&replay, stream);
    }

    /// Replays every case in one piece. Returns the cases that passed.
    fn whole<'c>(&mut self, mut cases: Vec<&'c Case>) -> Vec<&'c Case> {
        cases.retain(|case| {
            let failed = self.failures.len();
            self.alone(case, &[]);
            self.failures.len() == failed
        });
        cases
    }

    #[track_caller]
    fn close(mut self, what: &str) {
        if !self.failures.is_empty() {
            let list =
                self.failures.iter().take(FAILURES_MAX).map(String::as_str).collect::<Vec<_>>().join("\n");
            panic!("{what}: {} of {} replays differ\n{list}", self.failures.len(), self.replays);
        }
        assert!(self.server.is_running());
    }
}

/// Whether the server has closed `stream`; bytes may still be there to be read.
fn is_closed(stream: &TcpStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("a socket may be polled");
    polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

/// Groups cases by the arguments that their server needs.
fn by_args(cases: &[Case]) -> BTreeMap<Vec<&str>, Vec<&Case>> {
    let mut groups: BTreeMap<Vec<&str>, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        groups.entry(case.args.iter().map(String::as_str).collect()).or_default().push(case);
    }
    groups
}

fn replay_all(shards: usize) {
    let cases = cases();
    for &backend in Backend::all() {
        let start = Instant::now();
        let mut replays = 0;
        for (args, cases) in by_args(&cases) {
            let what = format!("{backend:?}, {shards} shards, {args:?}");
            let mut stage = ReplayServer::new(Server::start_on(backend, shards, &args));
            // A case that fails in one piece is not replayed in two.
            let (alone, beside): (Vec<&Case>, Vec<&Case>) =
                stage.whole(cases).into_iter().partition(|case| case.serial || case.closes);
            stage.cut_in_two(&beside);
            stage.byte_by_byte(&beside);
            for case in alone {
                let len = Replay::new(case).sent.len();
                for cut in 1..len {
                    stage.alone(case, &[cut]);
                }
                stage.alone(case, &(1..len).collect::<Vec<_>>());
            }
            replays += stage.replays;
            stage.close(&what);
        }
        println!(
            "{backend:?}, {shards} shards: {} cases, {replays} replays, {:?}",
            cases.len(),
            start.elapsed()
        );
    }
}

#[test]
fn transcripts_hold_on_one_shard_however_they_are_cut() {
    replay_all(1);
}

#[test]
fn transcripts_hold_on_two_shards_however_they_are_cut() {
    replay_all(2);
}

#[test]
fn transcripts_hold_on_four_shards_however_they_are_cut() {
    replay_all(4);
}

/// A memcached passes the transcripts, apart from the cases that its version does not know or in which it differs
/// for a stated reason.
#[test]
fn transcripts_hold_on_memcached() {
    let cases = cases();
    for memcached in Memcached::all() {
        for (mut args, mut cases) in by_args(&cases) {
            cases.retain(|case| if memcached.is_old() { !case.since } else { !case.differs });
            if args.contains(&"-I") {
                // Its default is too large for small items. The unit was bytes, and is KiB.
                args.extend([
                    "-o",
                    if memcached.is_old() { "slab_chunk_max=512" } else { "slab_chunk_max=1" },
                ]);
            }
            let mut stage = ReplayServer::new(Launch::memcached(memcached, &args).serve());
            stage.whole(cases);
            println!("{memcached} {args:?}: {} cases", stage.replays);
            stage.close(&format!("{memcached} {args:?}"));
        }
    }
}

#[test]
fn placeholders_of_transcripts_are_filled_in() {
    assert_eq!(expand("a{k}\\r\\n{xy*2}\\x41{b64 {k}}", "k1"), b"ak1\r\nxyxyAazE=");
    assert_eq!(expand("{{k}*2}", "k1"), b"k1k1");
    let pieces = [b"ME ".to_vec(), b" x\r\n".to_vec()];
    assert_eq!(agree(&pieces, b"ME 12 x\r\n"), Agreement::Whole);
    assert_eq!(agree(&pieces, b"ME 12"), Agreement::SoFar);
    assert_eq!(agree(&pieces, b"ME 1 y"), Agreement::Not);
    assert_eq!(agree(&pieces, b"ME 1 x\r\nz"), Agreement::Not);
}
