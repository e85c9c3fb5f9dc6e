//! A pending request of a client, and the replies that it may get.

use std::collections::BTreeSet;

use super::VALUE_BYTES_MAX;
use super::blame::Blame;
use super::history::{History, Read, Settled};
use corecached_shard::reply_queue::HELD_BYTES_MAX;

/// The most keys of a line whose values fit together into what a session holds.
const WHOLE_LINE_KEYS: usize = HELD_BYTES_MAX / VALUE_BYTES_MAX - 1;

/// A request without a reply.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    pub(crate) kind: RequestKind,
    pub(crate) at_ms: u64,
}

/// The commands that clients send.
#[derive(Debug)]
pub(crate) enum RequestKind {
    /// Write `number` of a key; `before` is what the key may hold before it.
    Write { key: Vec<u8>, number: u32, deletes: bool, before: Read, opaque: Option<u64>, quiet: bool },
    /// The keys of one line, of which the first `done` are answered.
    Gets { reads: Vec<Read>, with_cas: bool, done: usize },
    /// `mg` of one key.
    Meta { read: Read, opaque: u64, quiet: bool },
    /// `ma` that adds one to a counter, and the number of such requests up to this one.
    Count { key: Vec<u8>, count_max: u64, opaque: u64 },
    /// `mn`.
    Noop,
    /// `version`.
    Version,
}

/// What decides which replies are right.
pub(crate) struct Facts<'a> {
    pub(crate) history: &'a mut History,
    pub(crate) blame: &'a Blame,
    /// Errors of retrievals are downgraded to misses.
    pub(crate) downgrades_errors: bool,
    /// There are no faults.
    pub(crate) is_exact: bool,
    /// No other request is pending on the connection.
    pub(crate) is_alone: bool,
    /// The last number of each counter.
    pub(crate) counted: &'a mut std::collections::BTreeMap<Vec<u8>, u64>,
}

/// How much of a reply the input held, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyProgress {
    /// Not enough to go on.
    NeedMore,
    /// This many bytes, and more of the reply follows.
    Part(usize),
    /// This many bytes: the reply is complete.
    Done(usize),
    /// This many bytes: the reply is complete, and is an error.
    Error(usize),
}

impl PendingRequest {
    /// Reads the front of `input` as a part of the reply, and panics when it is not a right one.
    pub(crate) fn take(&mut self, input: &[u8], facts: &mut Facts<'_>) -> ReplyProgress {
        let Some(len) = input.windows(2).position(|two| two == b"\r\n") else {
            return ReplyProgress::NeedMore;
        };
        let (line, rest) = (&input[..len], &input[len + 2..]);
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let at_ms = self.at_ms;
        match &mut self.kind {
            RequestKind::Noop if line == b"MN" => return ReplyProgress::Done(len + 2),
            RequestKind::Version if line == b"VERSION 1.6.45" => return ReplyProgress::Done(len + 2),
            // Success is silent; the `mn` after it is answered.
            RequestKind::Write { quiet: true, key, number, .. } if line == b"MN" => {
                let step = facts.history.step;
                facts.history.settle(key, *number, Settled::Done(step));
                return ReplyProgress::Done(0);
            }
            RequestKind::Meta { quiet: true, read, .. } if line == b"MN" => {
                facts.absent(read, at_ms, false);
                return ReplyProgress::Done(0);
            }
            RequestKind::Write { key, number, deletes, before, opaque, .. } => {
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
                        return ReplyProgress::Error(len + 2);
                    }
                }
                let step = facts.history.step;
                facts.history.settle(key, *number, Settled::Done(step));
            }
            RequestKind::Gets { reads, with_cas, done } => match words[..] {
                [b"END"] => reads[*done..].iter().for_each(|read| facts.absent(read, at_ms, true)),
                [b"VALUE", key, flags, value_len, ref cas @ ..] => {
                    assert_eq!(cas.len(), usize::from(*with_cas), "{}", line.escape_ascii());
                    let Some(value) = block(rest, number(value_len) as usize) else {
                        return ReplyProgress::NeedMore;
                    };
                    let index = reads[*done..].iter().position(|read| read.key == key);
                    let Some(index) = index else {
                        panic!("{} is not among the keys that are left", key.escape_ascii())
                    };
                    reads[*done..][..index].iter().for_each(|read| facts.absent(read, at_ms, true));
                    facts.history.check_value(&reads[*done + index], number(flags) as u32, value);
                    *done += index + 1;
                    return ReplyProgress::Part(len + 2 + value.len() + 2);
                }
                _ => {
                    assert!(!facts.downgrades_errors, "an error in place of a miss: {}", line.escape_ascii());
                    // An error is the reply to the whole line, unless the line is too long to be held.
                    let is_kept = facts.is_alone && reads.len() <= WHOLE_LINE_KEYS;
                    assert!(!is_kept || *done == 0, "an error after {} keys of a line", *done);
                    facts.error(line, at_ms, reads.iter().map(|read| &read.key[..]));
                    return ReplyProgress::Error(len + 2);
                }
            },
            RequestKind::Meta { read, opaque, quiet } => match words[..] {
                [b"VA", value_len, flags, key, token] => {
                    let Some(value) = block(rest, number(value_len) as usize) else {
                        return ReplyProgress::NeedMore;
                    };
                    assert_eq!(key, [b"k", &read.key[..]].concat());
                    assert_eq!(token, format!("O{opaque}").as_bytes());
                    facts.history.check_value(read, number(&flags[1..]) as u32, value);
                    return ReplyProgress::Done(len + 2 + value.len() + 2);
                }
                [b"EN", ..] => {
                    assert!(!*quiet, "a miss that `q` hides");
                    assert_eq!(words[words.len() - 1], format!("O{opaque}").as_bytes());
                    facts.absent(read, at_ms, false);
                }
                _ => {
                    facts.error(line, at_ms, std::iter::once(&read.key[..]));
                    return ReplyProgress::Error(len + 2);
                }
            },
            RequestKind::Count { key, count_max, opaque } => match words[..] {
                [b"VA", value_len, token] => {
                    let Some(value) = block(rest, number(value_len) as usize) else {
                        return ReplyProgress::NeedMore;
                    };
                    assert_eq!(token, format!("O{opaque}").as_bytes());
                    let count = number(value);
                    let before = facts.counted.insert(key.clone(), count).unwrap_or(0);
                    let is_next = count > before || !facts.history.ordered;
                    assert!(
                        is_next && count <= *count_max,
                        "{count} after {before}, of {count_max} requests"
                    );
                    assert!(!facts.is_exact || count == *count_max);
                    return ReplyProgress::Done(len + 2 + value.len() + 2);
                }
                _ => {
                    facts.error(line, at_ms, std::iter::once(&key[..]));
                    return ReplyProgress::Error(len + 2);
                }
            },
            RequestKind::Noop | RequestKind::Version => panic!("{} to {:?}", line.escape_ascii(), self.kind),
        }
        ReplyProgress::Done(len + 2)
    }

    /// The connection is lost: the result will never be known.
    pub(crate) fn is_lost(&self, history: &mut History) {
        if let RequestKind::Write { key, number, .. } = &self.kind {
            history.settle(key, *number, Settled::Unknown);
        }
    }

    /// Bytes of the value whose beginning `input` holds; `None` when it holds none.
    pub(crate) fn broken_value_len(&self, input: &[u8]) -> Option<usize> {
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
    fn error<'k>(&self, line: &[u8], sent_ms: u64, keys: impl Iterator<Item = &'k [u8]>) {
        self.explain(Some(line), sent_ms, keys);
    }

    fn explain<'k>(&self, line: Option<&[u8]>, sent_ms: u64, keys: impl Iterator<Item = &'k [u8]>) {
        let shown = line.unwrap_or(b"a miss").escape_ascii();
        assert!(!self.is_exact, "{shown} where nothing is wrong");
        // A key that no destination received a request for yet may belong to any of them.
        let destinations: Vec<BTreeSet<usize>> = keys.map(|key| self.history.destinations(key)).collect();
        let is_explained = destinations.iter().any(|its| self.blame.explains(line, sent_ms, its));
        assert!(is_explained, "{shown} is explained by no fault at {destinations:?}: {:?}", self.blame);
    }

    /// Checks that the read may have found nothing, or that an error explains it.
    fn absent(&self, read: &Read, sent_ms: u64, may_be_error: bool) {
        if self.history.may_be_absent(read) {
            return;
        }
        assert!(
            may_be_error && self.downgrades_errors,
            "{} is missing: {:?}",
            read.key.escape_ascii(),
            self.history.shown(read)
        );
        self.explain(None, sent_ms, std::iter::once(&read.key[..]));
    }

    /// Checks that the read may have found a value.
    fn present(&self, read: &Read) {
        assert!(self.history.may_be_present(read), "{} cannot have been there", read.key.escape_ascii());
    }
}

/// The value of `len` bytes, if all of it is there, with its CRLF.
fn block(rest: &[u8], len: usize) -> Option<&[u8]> {
    let end = rest.get(len..len + 2)?;
    assert_eq!(end, b"\r\n", "after a value");
    Some(&rest[..len])
}

fn number(digits: &[u8]) -> u64 {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).expect("a number")
}
