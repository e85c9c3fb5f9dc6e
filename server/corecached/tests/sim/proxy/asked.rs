//! What a client asked and has no reply to, and what the reply may be.

use std::collections::BTreeSet;

use super::VALUE_BYTES_MAX;
use super::blame::Blame;
use super::history::{History, Read, Settled};
use corecached_shard::reply_queue::HELD_BYTES_MAX;

/// Keys of a line whose values together are no more than a session keeps.
const WHOLE_LINE_KEYS: usize = HELD_BYTES_MAX / VALUE_BYTES_MAX - 1;

/// A request without a reply.
#[derive(Debug)]
pub struct Asked {
    pub what: What,
    pub at_ms: u64,
}

/// What was asked.
#[derive(Debug)]
pub enum What {
    /// Write `number` of a key, and what was there before.
    Write { key: Vec<u8>, number: u32, deletes: bool, before: Read, opaque: Option<u64>, quiet: bool },
    /// Keys of one line, of which the first `done` were answered.
    Gets { reads: Vec<Read>, with_cas: bool, done: usize },
    /// `mg`
    Meta { read: Read, opaque: u64, quiet: bool },
    /// One more, of a counter that was asked to count so often.
    Count { key: Vec<u8>, asked: u64, opaque: u64 },
    /// `mn`
    Noop,
    /// `version`
    Version,
}

/// What is known of those who answer.
pub struct Facts<'a> {
    pub history: &'a mut History,
    pub blame: &'a Blame,
    /// Errors of retrievals look like misses.
    pub softens: bool,
    /// There are no faults.
    pub is_exact: bool,
    /// Nothing else was asked on the connection.
    pub is_alone: bool,
    /// The last number that each counter was at.
    pub counted: &'a mut std::collections::BTreeMap<Vec<u8>, u64>,
}

/// What a reply came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// More of it must come.
    NeedMore,
    /// So many bytes; it is not all of it.
    Part(usize),
    /// So many bytes, and it is complete.
    Done(usize),
    /// The same, and it was an error.
    Error(usize),
}

impl Asked {
    /// What `input` says to it.
    pub fn take(&mut self, input: &[u8], facts: &mut Facts<'_>) -> Told {
        let Some(len) = input.windows(2).position(|two| two == b"\r\n") else { return Told::NeedMore };
        let (line, behind) = (&input[..len], &input[len + 2..]);
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let at_ms = self.at_ms;
        match &mut self.what {
            What::Noop if line == b"MN" => return Told::Done(len + 2),
            What::Version if line == b"VERSION 1.6.45" => return Told::Done(len + 2),
            // Success is silent; the `mn` behind it is not.
            What::Write { quiet: true, key, number, .. } if line == b"MN" => {
                let step = facts.history.step;
                facts.history.settle(key, *number, Settled::Done(step));
                return Told::Done(0);
            }
            What::Meta { quiet: true, read, .. } if line == b"MN" => {
                facts.absent(read, at_ms, false);
                return Told::Done(0);
            }
            What::Write { key, number, deletes, before, opaque, .. } => {
                let ending = opaque.map_or_else(String::new, |opaque| format!(" O{opaque}"));
                let code = line.strip_suffix(ending.as_bytes()).unwrap_or_default();
                let meta = opaque.is_some();
                match (code, *deletes, meta) {
                    (b"STORED", false, false) | (b"HD", false, true) => {}
                    (b"DELETED", true, false) | (b"HD", true, true) => facts.present(before),
                    (b"NOT_FOUND", true, false) | (b"NF", true, true) => facts.absent(before, at_ms, false),
                    _ => {
                        facts.error(line, at_ms, std::iter::once(&key[..]));
                        let never = Blame::was_not_sent(line);
                        let settled = if never { Settled::Never } else { Settled::Unknown };
                        facts.history.settle(key, *number, settled);
                        return Told::Error(len + 2);
                    }
                }
                let step = facts.history.step;
                facts.history.settle(key, *number, Settled::Done(step));
            }
            What::Gets { reads, with_cas, done } => match words[..] {
                [b"END"] => reads[*done..].iter().for_each(|read| facts.absent(read, at_ms, true)),
                [b"VALUE", key, flags, value_len, ref cas @ ..] => {
                    assert_eq!(cas.len(), usize::from(*with_cas), "{}", line.escape_ascii());
                    let Some(value) = block(behind, number(value_len) as usize) else {
                        return Told::NeedMore;
                    };
                    let place = reads[*done..].iter().position(|read| read.key == key);
                    let Some(place) = place else {
                        panic!("{} was not asked for, or before", key.escape_ascii())
                    };
                    reads[*done..][..place].iter().for_each(|read| facts.absent(read, at_ms, true));
                    facts.history.check_value(&reads[*done + place], number(flags) as u32, value);
                    *done += place + 1;
                    return Told::Part(len + 2 + value.len() + 2);
                }
                _ => {
                    assert!(!facts.softens, "an error in place of a miss: {}", line.escape_ascii());
                    // It is the reply to the whole line, unless that is too long to be kept.
                    let is_kept = facts.is_alone && reads.len() <= WHOLE_LINE_KEYS;
                    assert!(!is_kept || *done == 0, "an error behind {} keys of a line", *done);
                    facts.error(line, at_ms, reads.iter().map(|read| &read.key[..]));
                    return Told::Error(len + 2);
                }
            },
            What::Meta { read, opaque, quiet } => match words[..] {
                [b"VA", value_len, flags, key, token] => {
                    let Some(value) = block(behind, number(value_len) as usize) else {
                        return Told::NeedMore;
                    };
                    assert_eq!(key, [b"k", &read.key[..]].concat());
                    assert_eq!(token, format!("O{opaque}").as_bytes());
                    facts.history.check_value(read, number(&flags[1..]) as u32, value);
                    return Told::Done(len + 2 + value.len() + 2);
                }
                [b"EN", ..] => {
                    assert!(!*quiet, "a miss that was not to be told");
                    assert_eq!(words[words.len() - 1], format!("O{opaque}").as_bytes());
                    facts.absent(read, at_ms, false);
                }
                _ => {
                    facts.error(line, at_ms, std::iter::once(&read.key[..]));
                    return Told::Error(len + 2);
                }
            },
            What::Count { key, asked, opaque } => match words[..] {
                [b"VA", value_len, token] => {
                    let Some(value) = block(behind, number(value_len) as usize) else {
                        return Told::NeedMore;
                    };
                    assert_eq!(token, format!("O{opaque}").as_bytes());
                    let count = number(value);
                    let before = facts.counted.insert(key.clone(), count).unwrap_or(0);
                    let is_next = count > before || !facts.history.ordered;
                    assert!(is_next && count <= *asked, "{before} and one is {count}, of {asked}");
                    assert!(!facts.is_exact || count == *asked);
                    return Told::Done(len + 2 + value.len() + 2);
                }
                _ => {
                    facts.error(line, at_ms, std::iter::once(&key[..]));
                    return Told::Error(len + 2);
                }
            },
            What::Noop | What::Version => panic!("{} to {:?}", line.escape_ascii(), self.what),
        }
        Told::Done(len + 2)
    }

    /// Its reply will never be known.
    pub fn is_lost(&self, history: &mut History) {
        if let What::Write { key, number, .. } = &self.what {
            history.settle(key, *number, Settled::Unknown);
        }
    }

    /// Bytes of the value that `input`, which breaks off, was to be.
    pub fn broken_value_len(&self, input: &[u8]) -> Option<usize> {
        let len = input.windows(2).position(|two| two == b"\r\n")?;
        let mut words = input[..len].split(|&byte| byte == b' ');
        let at = match words.next()? {
            b"VALUE" => 2,
            b"VA" => 0,
            _ => return None,
        };
        words.nth(at).map(|word| number(word) as usize)
    }
}

impl Facts<'_> {
    fn error<'k>(&self, line: &[u8], asked_ms: u64, keys: impl Iterator<Item = &'k [u8]>) {
        self.explain(Some(line), asked_ms, keys);
    }

    fn explain<'k>(&self, line: Option<&[u8]>, asked_ms: u64, keys: impl Iterator<Item = &'k [u8]>) {
        let shown = line.unwrap_or(b"a miss").escape_ascii();
        assert!(!self.is_exact, "{shown} where nothing is wrong");
        // One key that nobody was asked about yet may belong anywhere.
        let destinations: Vec<BTreeSet<usize>> = keys.map(|key| self.history.destinations(key)).collect();
        let is_explained = destinations.iter().any(|its| self.blame.explains(line, asked_ms, its));
        assert!(is_explained, "{shown} is explained by no fault at {destinations:?}: {:?}", self.blame);
    }

    /// Nothing was found.
    fn absent(&self, read: &Read, asked_ms: u64, may_be_error: bool) {
        if self.history.may_be_absent(read) {
            return;
        }
        assert!(
            may_be_error && self.softens,
            "{} is missing: {:?}",
            read.key.escape_ascii(),
            self.history.shown(read)
        );
        self.explain(None, asked_ms, std::iter::once(&read.key[..]));
    }

    /// Something was there.
    fn present(&self, read: &Read) {
        assert!(self.history.may_be_present(read), "{} cannot have been there", read.key.escape_ascii());
    }
}

/// The value of so many bytes, if it has come with its CRLF.
fn block(behind: &[u8], len: usize) -> Option<&[u8]> {
    let end = behind.get(len..len + 2)?;
    assert_eq!(end, b"\r\n", "behind a value");
    Some(&behind[..len])
}

fn number(digits: &[u8]) -> u64 {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).expect("a number")
}
