//! Commands that a seed determines: most of them valid, some not.

use super::canonical::Uniques;
use crate::support::Random;

/// Count of keys: few, so that commands meet on the same keys.
const KEYS: usize = 10;
/// Longest value, bytes.
const VALUE_BYTES_MAX: usize = 100_000;

/// TTLs of items in seconds, in ascending order and far from each other. A test ends before any of them has
/// passed.
pub const TTLS: &[i64] = &[1_000, 20_000, 100_000, 2_592_000];
/// Exptimes: none, past, relative, and Unix times in the past and in the future.
const EXPTIMES: &[&str] = &[
    "0",
    "0",
    "0",
    "-1",
    "1000",
    "20000",
    "100000",
    "2592000",
    "2592001",
    "4000000",
    "2000000000",
    "-100000",
];
/// Exptimes at and around the bounds of 32 and 64 bits, and what is no number. memcached 1.6.18 holds them
/// otherwise.
const WIDE_EXPTIMES: &[&str] = &[
    "2147483646",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967294",
    "4294967295",
    "4294967296",
    "4294968296",
    "-4294967295",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999",
    "+1000",
    "1000x",
    "0x10",
    "1.5",
];
/// Lines that change something if they are run: values of storage lines that are refused.
const COMMANDS: &[&str] =
    &["flush_all", "delete key0", "touch key1 -1", "md key2 q", "incr key3 1", "ma key4 N0"];
/// Client flags.
const FLAGS: &[&str] = &["0", "0", "0", "1", "4294967295", "77"];
/// A cas unique that no server gives to an item.
const NO_UNIQUE: u64 = 1 << 60;

/// A part of a command.
#[derive(Clone, Debug)]
enum Part {
    Bytes(Vec<u8>),
    /// The unique last shown for the command's key.
    Unique,
}

/// A command. Uniques in it are filled in for each server, as every server has its own.
#[derive(Clone, Debug, Default)]
pub struct Command {
    parts: Vec<Part>,
    /// The key of the command; empty if it has none or several.
    pub key: Vec<u8>,
    /// Whether it must be sent alone: memcached loses replies before some errors, and pads the result of
    /// arithmetic with blanks unless a value of the key is still on its way to a client.
    alone: bool,
}

impl Command {
    fn text(text: impl Into<Vec<u8>>) -> Self {
        Self { parts: vec![Part::Bytes(text.into())], ..Self::default() }
    }

    fn push(&mut self, text: impl AsRef<[u8]>) {
        match self.parts.last_mut() {
            Some(Part::Bytes(bytes)) => bytes.extend_from_slice(text.as_ref()),
            _ => self.parts.push(Part::Bytes(text.as_ref().to_vec())),
        }
    }

    /// The bytes for a server that showed `uniques`.
    pub fn bytes(&self, uniques: &Uniques) -> Vec<u8> {
        let unique = || uniques.last_of(&self.key).unwrap_or(NO_UNIQUE).to_string().into_bytes();
        self.parts
            .iter()
            .flat_map(|part| match part {
                Part::Bytes(bytes) => bytes.clone(),
                Part::Unique => unique(),
            })
            .collect()
    }

    /// Whether it is a meta command with a key.
    pub fn is_meta(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Bytes(bytes)) if [b"mg ", b"ms ", b"md ", b"ma "].iter().any(|verb| bytes.starts_with(*verb)))
    }
}

/// A sequence of commands that a seed determines.
pub struct Grammar {
    random: Random,
    /// The other server is a memcached 1.6.18: what it does at random, or does wrong, is left out.
    for_old: bool,
    held: Option<Command>,
}

impl Grammar {
    /// The sequence of `seed`, for a comparison with a memcached 1.6.18 if `for_old`.
    pub fn new(seed: u64, for_old: bool) -> Self {
        Self { random: Random::new(seed), for_old, held: None }
    }

    /// The next commands that are sent at once, at most `max`.
    pub fn batch(&mut self, max: usize) -> Vec<Command> {
        let count = 1 + self.random.below(max);
        let mut batch = Vec::new();
        while batch.len() < count {
            let command = self.held.take().unwrap_or_else(|| self.command());
            if command.alone && !batch.is_empty() {
                self.held = Some(command);
                break;
            }
            let alone = command.alone;
            batch.push(command);
            if alone {
                break;
            }
        }
        batch
    }

    fn command(&mut self) -> Command {
        match self.random.below(100) {
            0..18 => self.get(),
            18..24 => self.get_and_touch(),
            24..44 => self.store(),
            44..49 => self.cas(),
            49..53 => self.delete(),
            53..61 => self.arithmetic(),
            61..64 => self.touch(),
            64..76 => self.meta_get(),
            76..84 => self.meta_set(),
            84..88 => self.meta_delete(),
            88..92 => self.meta_arithmetic(),
            92..94 => self.keyed("me "),
            94..95 => self.rare(),
            95..97 if !self.for_old => self.refused_store(),
            97..98 if !self.for_old => self.base64(),
            _ => self.broken(),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        match self.random.below(40) {
            0 => b"l".repeat(250),
            1 => b"odd\x01\xff\x7fkey".to_vec(),
            _ => format!("key{}", self.random.below(KEYS)).into_bytes(),
        }
    }

    /// `verb` and a key.
    fn keyed(&mut self, verb: &str) -> Command {
        let key = self.key();
        let mut command = Command::text([verb.as_bytes(), &key].concat());
        command.key = key;
        if verb == "me " {
            command.push("\r\n");
        }
        command
    }

    fn blanks(&mut self) -> &'static str {
        if self.random.once_in(20) { "   " } else { " " }
    }

    fn line_end(&mut self) -> &'static str {
        if self.random.once_in(10) { "\n" } else { "\r\n" }
    }

    fn noreply(&mut self) -> &'static str {
        if self.random.once_in(6) { " noreply" } else { "" }
    }

    /// A number or a text. No number is 2^63 or more: 1.6.18 refuses such a number when it finds a `-` in the
    /// memory after it.
    fn value(&mut self) -> Vec<u8> {
        const NUMBERS: &[&[u8]] = &[b"0", b"7", b"10", b"99", b"1000", b"999999999", b"18446744073709551616"];
        if self.random.below(5) < 2 { self.random.pick(NUMBERS).to_vec() } else { self.text() }
    }

    /// A value that does not begin with a digit or a blank, or is empty: 1.6.18 takes some values that do for
    /// numbers.
    fn text(&mut self) -> Vec<u8> {
        let len = self.text_len();
        self.text_of(len)
    }

    /// A text that is appended or prepended to a value. It is short: 1.6.18 takes digits, a blank and text
    /// for a number at any length.
    fn added_text(&mut self) -> Vec<u8> {
        let len = self.random.below(40);
        self.text_of(len)
    }

    fn text_len(&mut self) -> usize {
        match self.random.below(24) {
            0 => 0,
            1..14 => self.random.below(20),
            14..21 => self.random.below(300),
            21..23 => self.random.below(5_000),
            _ => self.random.below(VALUE_BYTES_MAX),
        }
    }

    fn text_of(&mut self, len: usize) -> Vec<u8> {
        if len == 0 {
            return Vec::new();
        }
        let alphabet: &[u8] =
            if self.random.once_in(4) { b"\r\n\0\xff get" } else { b"abcdefghijklmnopqrstuvwxyz 0123456789" };
        std::iter::once(b'x').chain((0..len).map(|_| *self.random.pick(alphabet))).collect()
    }

    fn keys_to(&mut self, command: &mut Command) {
        for _ in 0..1 + self.random.below(5) {
            let (blanks, key) = (self.blanks(), self.key());
            command.push(blanks);
            command.push(key);
        }
        let end = self.line_end();
        command.push(end);
    }

    fn get(&mut self) -> Command {
        let mut command = Command::text(*self.random.pick(&["get", "get", "gets"]));
        self.keys_to(&mut command);
        command
    }

    fn get_and_touch(&mut self) -> Command {
        let mut command = Command::text(*self.random.pick(&["gat ", "gats "]));
        let exptime = self.exptime();
        command.push(exptime);
        self.keys_to(&mut command);
        command
    }

    fn exptime(&mut self) -> &'static str {
        let wide = !self.for_old && self.random.once_in(10);
        self.random.pick::<&str>(if wide { WIDE_EXPTIMES } else { EXPTIMES })
    }

    /// A command on one of a few keys that only these use, given in base64 or not. None of them makes another
    /// item of an old one, which loses its form in memcached.
    fn base64(&mut self) -> Command {
        const FORMS: &[[&str; 2]] = &[["b64a", "YjY0YQ=="], ["b64bc", "YjY0YmM="], ["b64def", "YjY0ZGVm"]];
        let [plain, encoded] = *self.random.pick(FORMS);
        let (key, flag) = if self.random.once_in(2) { (encoded, " b") } else { (plain, "") };
        let lines = [
            format!("ms {key} 2{flag} k\r\nab\r\n"),
            format!("ms {key} 2{flag} MR\r\ncd\r\n"),
            format!("mg {key}{flag} k v\r\n"),
            format!("mg {key} Oa k{flag} s\r\n"),
            format!("md {key}{flag} k\r\n"),
            format!("me {plain}\r\n"),
            format!("set {plain} 0 0 1\r\n5\r\n"),
            format!("get {plain} {encoded}\r\n"),
            format!("touch {plain} 1000\r\n"),
            format!("delete {plain}\r\n"),
        ];
        let line = self.random.pick(&lines).clone();
        let mut command = Command::text(line);
        command.key = plain.as_bytes().to_vec();
        command
    }

    /// A storage line that is refused, or is not, with a value that is a command.
    fn refused_store(&mut self) -> Command {
        let key = if self.random.once_in(8) { b"x".repeat(251) } else { self.key() };
        let value = *self.random.pick::<&str>(COMMANDS);
        let len = value.len().to_string();
        let word = |grammar: &mut Self, usual: &str| -> String {
            let broken = ["", "x", "-1", "99999999999999999999999", "4294967295", "1x", "0x1", "\x01"];
            let pick = *grammar.random.pick::<&str>(&broken);
            if grammar.random.once_in(4) { pick.to_owned() } else { usual.to_owned() }
        };
        let meta = self.random.once_in(3);
        let mut command = if meta {
            let mut command = Command::text([b"ms ", &key[..]].concat());
            command.push(format!(" {len}"));
            for _ in 0..self.random.below(4) {
                let flags = [
                    "T",
                    "Tx",
                    "T-1",
                    "F",
                    "Fx",
                    "F1",
                    "I",
                    "I",
                    "MS",
                    "MX",
                    "M",
                    "b",
                    "q",
                    "k",
                    "z",
                    "C999999999999",
                    "Cx",
                    "O",
                    "E",
                    "Ex",
                    "N",
                    "N0",
                    "c",
                    "s",
                    "1",
                    "?",
                ];
                let flag = *self.random.pick::<&str>(&flags);
                // A byte that is no letter makes memcached 1.6.45 run the value.
                if flag.as_bytes()[0].is_ascii_alphabetic() {
                    command.push(format!(" {flag}"));
                }
            }
            command
        } else {
            let verb = *self.random.pick::<&str>(&["set", "add", "replace", "append", "prepend", "cas"]);
            let mut command = Command::text([verb.as_bytes(), b" ", &key[..]].concat());
            let (flags, exptime) = (word(self, "0"), word(self, "0"));
            command.push(format!(" {flags} {exptime} {len}"));
            let unique = word(self, "999999999999");
            if verb == "cas" || self.random.once_in(5) {
                command.push(format!(" {unique}"));
            }
            if self.random.once_in(5) {
                command.push(" noreply");
            }
            command
        };
        command.alone = key.len() > 250;
        command.key = key;
        command.push(format!("\r\n{value}\r\n"));
        command
    }

    fn flags(&mut self) -> &'static str {
        self.random.pick::<&str>(FLAGS)
    }

    fn store(&mut self) -> Command {
        let verb = *self.random.pick(&["set ", "set ", "set ", "add ", "replace ", "append ", "prepend "]);
        let mut command = self.keyed(verb);
        let (blanks, flags, exptime) = (self.blanks(), self.flags(), self.exptime());
        let value = if verb.ends_with("pend ") { self.added_text() } else { self.value() };
        let (noreply, end) = (self.noreply(), self.line_end());
        command.push(format!("{blanks}{flags} {exptime} {}{noreply}{end}", value.len()));
        command.push(value);
        command.push("\r\n");
        command
    }

    fn cas(&mut self) -> Command {
        let mut command = self.keyed("cas ");
        let (flags, value, noreply) = (self.flags(), self.value(), self.noreply());
        command.push(format!(" {flags} 0 {} ", value.len()));
        self.unique_to(&mut command);
        command.push(format!("{noreply}\r\n"));
        command.push(value);
        command.push("\r\n");
        command
    }

    fn unique_to(&mut self, command: &mut Command) {
        if self.random.once_in(4) {
            command.push(NO_UNIQUE.to_string());
        } else {
            command.parts.push(Part::Unique);
        }
    }

    fn delete(&mut self) -> Command {
        let mut command = self.keyed("delete ");
        let more: &[&str] = match self.for_old {
            true => &["", "", "", " 0", " noreply", " 0 noreply"],
            false => &["", "", "", " 0", " noreply", " 0 noreply", " 10", " x y", " noreply 0", " x noreply"],
        };
        let more = *self.random.pick::<&str>(more);
        command.push(format!("{more}\r\n"));
        command
    }

    fn arithmetic(&mut self) -> Command {
        let verb = *self.random.pick(&["incr ", "decr "]);
        let mut command = Command { alone: true, ..self.keyed(verb) };
        let largest = if verb == "decr " { "18446744073709551615" } else { "99999999999" };
        let delta = *self.random.pick(&["1", "1", "5", "0", "100", "1000000", largest]);
        let (noreply, end) = (self.noreply(), self.line_end());
        command.push(format!(" {delta}{noreply}{end}"));
        command
    }

    fn touch(&mut self) -> Command {
        let mut command = self.keyed("touch ");
        let (exptime, noreply) = (self.exptime(), self.noreply());
        command.push(format!(" {exptime}{noreply}\r\n"));
        command
    }

    /// Some of `flags`, in any order, each at most once; `C` compares with a unique.
    fn meta_flags_to(&mut self, command: &mut Command, flags: &[&str]) {
        let mut left: Vec<&str> = flags.to_vec();
        for _ in 0..self.random.below(6) {
            let at = self.random.below(left.len());
            let flag = left.swap_remove(at);
            left.retain(|other| other.as_bytes()[0] != flag.as_bytes()[0]);
            let blanks = self.blanks();
            command.push(blanks);
            command.push(flag);
            if flag == "C" {
                self.unique_to(command);
            }
            if left.is_empty() {
                break;
            }
        }
    }

    fn meta_get(&mut self) -> Command {
        let mut command = self.keyed("mg ");
        let flags = [
            "v", "v", "v", "k", "Oabc", "f", "s", "t", "h", "q", "u", "c", "T0", "T1000", "T-1", "N0",
            "N1000", "R500", "R30000", "L", "P",
        ];
        let wide = self.wide_flags();
        let flags = [&flags[..], &wide].concat();
        self.meta_flags_to(&mut command, &flags);
        let end = self.line_end();
        command.push(end);
        command
    }

    fn meta_set(&mut self) -> Command {
        let mut command = self.keyed("ms ");
        let extends = self.random.once_in(3);
        let value = if extends { self.added_text() } else { self.value() };
        let len = value.len();
        command.push(format!(" {len}"));
        let mut flags =
            vec!["F5", "F0", "T0", "T1000", "T-1", "I", "C", "C", "q", "k", "Oabc", "MS", "ME", "MR", "L"];
        if extends {
            flags.extend(["MA", "MA", "MP", "MP"]);
        }
        flags.extend(self.wide_flags());
        self.meta_flags_to(&mut command, &flags);
        command.push("\r\n");
        command.push(value);
        command.push("\r\n");
        command
    }

    /// Flags with numbers at and around the bounds of 32 bits, and modes of several letters.
    fn wide_flags(&mut self) -> Vec<&'static str> {
        let flags = [
            "T2147483647",
            "T2147483648",
            "T-2147483648",
            "T-2147483649",
            "T4294967295",
            "N2147483648",
            "N4294967295",
            "R2147483648",
            "R-1",
            "F4294967295",
            "F4294967296",
            "F-1",
            "MSet",
            "M",
            "MXX",
        ];
        if self.for_old || !self.random.once_in(10) { Vec::new() } else { flags.to_vec() }
    }

    fn meta_delete(&mut self) -> Command {
        let mut command = self.keyed("md ");
        self.meta_flags_to(&mut command, &["q", "I", "I", "T0", "T1000", "C", "k", "Oabc", "L"]);
        command.push("\r\n");
        command
    }

    fn meta_arithmetic(&mut self) -> Command {
        let mut command = Command { alone: true, ..self.keyed("ma ") };
        let mut flags = vec![
            "v",
            "v",
            "t",
            "N0",
            "N1000",
            "J5",
            "J0",
            "D1",
            "D99999999999",
            "MI",
            "MD",
            "M+",
            "M-",
            "C",
            "k",
            "Oabc",
        ];
        // 1.6.18 loses T when the number grows longer: it sets the TTL of the item that was just replaced.
        if self.random.once_in(3) {
            command.push(" D0");
            flags.retain(|flag| !flag.starts_with('D'));
            flags.extend(["T0", "T1000"]);
        }
        // Not both: under q 1.6.18 shows the unique of what was created, which would shift the numbers of
        // later ones.
        flags.push(*self.random.pick(&["c", "q"]));
        self.meta_flags_to(&mut command, &flags);
        command.push("\r\n");
        command
    }

    fn rare(&mut self) -> Command {
        let lines = [
            "flush_all",
            "flush_all 0",
            "flush_all noreply",
            "verbosity 0",
            "verbosity 0 noreply",
            "version",
        ];
        Command::text(format!("{}\r\n", self.random.pick(&lines)))
    }

    fn broken(&mut self) -> Command {
        let key = self.key();
        let spell = |template: &str| {
            let mut parts = template.split("{k}");
            let mut bytes = parts.next().unwrap().as_bytes().to_vec();
            for part in parts {
                bytes.extend_from_slice(&key);
                bytes.extend_from_slice(part.as_bytes());
            }
            bytes
        };
        let long = "x".repeat(251);
        let templates = [
            "nothing",
            "GET {k}",
            "get",
            "gets",
            "gat",
            "gat 0",
            "gat x {k}",
            "set",
            "set {k}",
            "set {k} 0 0",
            "set {k} 0 0 x",
            "set {k} 0 0 -1",
            "add {k} 0 0 1x",
            "cas {k} 0 0 4\r\nzzzz",
            "delete",
            "delete {k} 5",
            "delete {k} x noreply",
            "incr",
            "incr {k}",
            "incr {k} x",
            "decr {k} -1",
            "incr {k} 18446744073709551616",
            "incr {k} x noreply",
            "touch",
            "touch {k}",
            "touch {k} x",
            "touch {k} x noreply",
            "flush_all x",
            "verbosity",
            "verbosity x",
            "mg",
            "md",
            "ma",
            "me",
            "ms",
            "ms {k}",
            "ms {k} x",
            "ms {k} -1",
            "mg {k} v v",
            "mg {k} z",
            "mg {k} Tx",
            // With a key that is never set: 1.6.18 counts the item as read before it refuses the command.
            "mg absent O{L}",
            "md {k} q q",
            "md {k} z",
            "ma {k} z",
            "ma {k} Dx",
            "ma {k} v v",
            "ma {k} Jx",
            "stats nothing",
            "version foo",
            "stats detail",
            "a",
            "",
            "quit2",
            "mx {k}",
            "cache_memlimit x",
            "lru",
            "lru mode x",
            "slabs",
            "lru_crawler",
            "set {k} 0 0 3\r\nabcdefgh",
            "ms {k} 3\r\nabcdefgh",
            "set {k} 0 0 3 noreply\r\nabcdefgh",
            "set {k} x 0 4\r\nzzzz",
            "set {k} 0 x 4\r\nzzzz",
            "ms {k} 4 v v\r\nzzzz",
            "ms {k} 4 z\r\nzzzz",
            "ms {k} 4 Tx\r\nzzzz",
            "ms {k} 4 Fx\r\nzzzz",
            "ms {k} 4 MX\r\nzzzz",
            "ms {k} 4 M\r\nzzzz",
            "ms {k} 4 I v\r\nzzzz",
            "cas {k} 0 0 4 x\r\nzzzz",
            "get {LL}",
            "set {LL} 0 0 4\r\nzzzz",
            "delete {LL}",
            "incr {LL} 1",
            "touch {LL} 0",
            "mg {LL} v",
            "md {LL}",
            "ma {LL}",
        ];
        // What 1.6.18 answers or does otherwise.
        let not_old = ["delete {k} 5", "delete {k} x noreply", "ma {LL}", "ms {k} 4 M\r\nzzzz"];
        let mut template = *self.random.pick(&templates);
        while self.for_old && not_old.contains(&template) {
            template = self.random.pick::<&str>(&templates);
        }
        let text = template.replace("{LL}", &long).replace("{L}", &"o".repeat(32));
        let mut command = Command { alone: template.contains("{LL}"), ..Command::text(spell(&text)) };
        command.key = key.clone();
        command.push("\r\n");
        command
    }
}
