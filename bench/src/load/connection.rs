//! Pending requests of a connection, and the parser of their replies.
//!
//! It does not access the socket: the worker receives into a buffer that all connections share, and passes
//! the bytes. A reply that is complete in the buffer is judged there; only an incomplete part is copied.

use super::Dataset;
use super::tally::Tally;
use super::versions::{Age, Versions};
use crate::payload::{STAMP_BYTES, Stamp, Wrong};
use crate::wire::{self, Protocol, ReplyLine};

/// Longest line of a reply in bytes: enough for a key, two numbers and a cas unique.
const LINE_BYTES_MAX: usize = 2048;
/// Bytes of the line end after a value.
const CRLF: usize = 2;

/// Verifies replies and counts the results.
#[derive(Debug)]
pub(super) struct Judge<'p> {
    /// Keys and values of the run.
    pub dataset: &'p Dataset,
    /// Commands of the run.
    pub protocol: Protocol,
    /// Versions that were written, if every byte is verified.
    pub versions: Option<Versions>,
    /// Counters.
    pub tally: Tally,
}

/// A reply that makes no sense, in words. The connection cannot be used after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Garbled(pub String);

/// The pending requests of one connection, and what has been received of their replies.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// Keys of the burst, in order.
    keys: Vec<BurstKey>,
    /// Requests of the burst, in order.
    requests: Vec<BurstRequest>,
    /// Index of the first key that is not answered.
    key_at: usize,
    /// Index of the first request that is not answered.
    request_at: usize,
    state: ReplyState,
    /// Received part of an incomplete line or value; `state` tells which.
    held: Vec<u8>,
    /// Gets and sets answered since [`Replies::take_answered`].
    answered: (u64, u64),
}

/// A key of a request, with the version that a set writes or the oldest version that a get may return.
#[derive(Clone, Copy, Debug)]
struct BurstKey {
    id: u32,
    version: u32,
}

#[derive(Clone, Copy, Debug)]
struct BurstRequest {
    is_set: bool,
    /// One past the index of its last key in [`Replies::keys`].
    keys_end: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum ReplyState {
    /// A line is expected.
    #[default]
    Line,
    /// A value of `len` bytes for `keys[index]`, or for a key that was not requested (`None`). `left` of its
    /// bytes, including the line end, have not been received.
    Value { index: Option<u32>, len: usize, left: usize },
}

impl Replies {
    /// Adds a get to the burst, for these keys and the oldest version that each may return.
    pub(super) fn expect_get(&mut self, keys: impl Iterator<Item = (u32, u32)>) {
        self.keys.extend(keys.map(|(id, version)| BurstKey { id, version }));
        self.requests.push(BurstRequest { is_set: false, keys_end: self.keys.len() as u32 });
    }

    /// Adds a set of this version to the burst.
    pub(super) fn expect_set(&mut self, id: u32, version: u32) {
        self.keys.push(BurstKey { id, version });
        self.requests.push(BurstRequest { is_set: true, keys_end: self.keys.len() as u32 });
    }

    /// Returns the number of requests that are not answered.
    pub(super) fn outstanding(&self) -> usize {
        self.requests.len() - self.request_at
    }

    /// Returns the number of gets and sets answered since the last call.
    pub(super) fn take_answered(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.answered)
    }

    /// Tells whether no request was added since [`Replies::clear`].
    pub(super) fn is_clear(&self) -> bool {
        self.requests.is_empty()
    }

    /// Removes all requests: the burst is answered, or the connection is lost.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.requests.clear();
        self.held.clear();
        (self.key_at, self.request_at) = (0, 0);
        self.state = ReplyState::Line;
    }

    /// Parses received bytes and counts the replies in them.
    ///
    /// # Errors
    /// The bytes are not a reply to the pending requests.
    pub(super) fn take(&mut self, mut bytes: &[u8], judge: &mut Judge<'_>) -> Result<(), Garbled> {
        while !bytes.is_empty() {
            bytes = match self.state {
                ReplyState::Line => self.take_line(bytes, judge)?,
                ReplyState::Value { index, len, left } => self.take_value(bytes, index, len, left, judge)?,
            };
        }
        Ok(())
    }

    fn take_line<'b>(&mut self, bytes: &'b [u8], judge: &mut Judge<'_>) -> Result<&'b [u8], Garbled> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.held.extend_from_slice(bytes);
            return if self.held.len() > LINE_BYTES_MAX {
                Err(garbled("an endless line", &self.held))
            } else {
                Ok(&[])
            };
        };
        let rest = &bytes[end + 1..];
        if self.held.is_empty() {
            self.line(without_cr(&bytes[..end])?, judge)?;
        } else {
            let mut line = std::mem::take(&mut self.held);
            line.extend_from_slice(&bytes[..end]);
            self.line(without_cr(&line)?, judge)?;
            line.clear();
            self.held = line;
        }
        Ok(rest)
    }

    fn line(&mut self, line: &[u8], judge: &mut Judge<'_>) -> Result<(), Garbled> {
        let Some(request) = self.requests.get(self.request_at).copied() else {
            return Err(garbled("a reply to nothing", line));
        };
        let keys_end = request.keys_end as usize;
        match (wire::line(line), request.is_set) {
            (ReplyLine::Value { key, len }, false) => {
                let index = match key {
                    Some(key) => {
                        (self.key_at..keys_end).find(|&index| judge.dataset.keys.is(key, self.keys[index].id))
                    }
                    None => (self.key_at < keys_end).then_some(self.key_at),
                };
                if let Some(index) = index {
                    judge.tally.counts.misses += (index - self.key_at) as u64;
                    self.key_at = index + 1;
                } else {
                    judge.tally.counts.wrong += 1;
                    judge
                        .tally
                        .example(|| format!("a value of a key not asked for: {}", line.escape_ascii()));
                }
                self.state =
                    ReplyState::Value { index: index.map(|index| index as u32), len, left: len + CRLF };
            }
            (ReplyLine::End, false) => {
                judge.tally.counts.misses += (keys_end - self.key_at) as u64;
                self.answered_get(keys_end);
            }
            (ReplyLine::Stored, true) => self.answered_set(true, judge),
            (ReplyLine::NotStored, true) => {
                judge.tally.counts.not_stored += 1;
                self.answered_set(false, judge);
            }
            (ReplyLine::ServerError, is_set) => {
                judge.tally.counts.server_errors += 1;
                judge.tally.example(|| line.escape_ascii().to_string());
                // One of several quiet mg has failed; the mn after them is not answered yet.
                let quiet = judge.protocol == Protocol::Meta && keys_end - self.first_key_of_request() > 1;
                match is_set {
                    true => self.answered_set(false, judge),
                    false if quiet => {}
                    false => self.answered_get(keys_end),
                }
            }
            _ => return Err(garbled("not a reply to what was asked", line)),
        }
        Ok(())
    }

    fn first_key_of_request(&self) -> usize {
        self.request_at.checked_sub(1).map_or(0, |before| self.requests[before].keys_end as usize)
    }

    fn answered_get(&mut self, keys_end: usize) {
        self.key_at = keys_end;
        self.request_at += 1;
        self.answered.0 += 1;
    }

    fn answered_set(&mut self, stored: bool, judge: &mut Judge<'_>) {
        let key = self.keys[self.key_at];
        if let Some(versions) = &mut judge.versions {
            versions.answered(key.id, key.version, stored);
        }
        self.key_at += 1;
        self.request_at += 1;
        self.answered.1 += 1;
    }

    fn take_value<'b>(
        &mut self,
        bytes: &'b [u8],
        index: Option<u32>,
        len: usize,
        left: usize,
        judge: &mut Judge<'_>,
    ) -> Result<&'b [u8], Garbled> {
        let count = left.min(bytes.len());
        let (part, rest) = bytes.split_at(count);
        if count == len + CRLF {
            if !part.ends_with(b"\r\n") {
                return Err(garbled("no line end behind a value", &part[len..]));
            }
            self.value(index, &part[..len], len, judge);
            return Ok(rest);
        }
        // The value is incomplete: keep the part that is needed to judge it.
        let keep = if judge.versions.is_some() { len + CRLF } else { STAMP_BYTES.min(len) };
        let room = keep - self.held.len().min(keep);
        self.held.extend_from_slice(&part[..room.min(count)]);
        if count < left {
            self.state = ReplyState::Value { index, len, left: left - count };
            return Ok(rest);
        }
        let held = std::mem::take(&mut self.held);
        if held.len() == len + CRLF && !held.ends_with(b"\r\n") {
            return Err(garbled("no line end behind a value", &held[len..]));
        }
        self.value(index, &held[..len.min(held.len())], len, judge);
        self.held = held;
        self.held.clear();
        Ok(rest)
    }

    /// Handles a received value of `len` bytes: `beginning` is the whole value, or its stamp.
    fn value(&mut self, index: Option<u32>, beginning: &[u8], len: usize, judge: &mut Judge<'_>) {
        self.state = ReplyState::Line;
        if let Some(index) = index {
            judge.tally.counts.hits += 1;
            judge.value(self.keys[index as usize], beginning, len);
        }
        let keys_end = self.requests[self.request_at].keys_end as usize;
        if judge.protocol == Protocol::Meta && keys_end - self.first_key_of_request() == 1 {
            self.answered_get(keys_end);
        }
    }
}

impl Judge<'_> {
    fn value(&mut self, key: BurstKey, beginning: &[u8], len: usize) {
        let values = &self.dataset.values;
        let judged = match &self.versions {
            Some(_) => values.check(beginning, key.id),
            None => values.check_stamp(beginning, len, key.id),
        };
        match judged {
            Err(wrong) => {
                self.tally.counts.wrong += 1;
                self.tally.example(|| format!("key {:08x}: {}", key.id, words(wrong, beginning)));
            }
            Ok(Some(stamp)) => self.age(stamp, key.version),
            Ok(None) => {}
        }
    }

    fn age(&mut self, stamp: Stamp, floor: u32) {
        let Some(versions) = &mut self.versions else { return };
        match versions.judge(stamp, floor) {
            Age::Right => {}
            Age::Stale => {
                self.tally.counts.stale += 1;
                self.tally.example(|| format!("stale: {stamp:?} read, {floor} was written before"));
            }
            Age::Unwritten => {
                self.tally.counts.wrong += 1;
                self.tally.example(|| format!("never written: {stamp:?}"));
            }
        }
    }
}

fn words(wrong: Wrong, value: &[u8]) -> String {
    let what = match wrong {
        Wrong::OtherKey => "another key's value",
        Wrong::Length => "a value of another length",
        Wrong::Torn => "a torn or corrupt value",
    };
    format!("{what}: {}", value[..value.len().min(40)].escape_ascii())
}

fn without_cr(line: &[u8]) -> Result<&[u8], Garbled> {
    line.strip_suffix(b"\r").ok_or_else(|| garbled("a line that ends in a bare newline", line))
}

#[cold]
fn garbled(what: &str, bytes: &[u8]) -> Garbled {
    Garbled(format!("{what}: {}", bytes[..bytes.len().min(80)].escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Items, Plan};

    const STAMP: Stamp = Stamp { id: 3, run: 7, version: 0 };

    /// The reply to a get of keys 1 to 5, of which 3 is found, and to a set.
    fn reply(dataset: &Dataset) -> Vec<u8> {
        let mut reply = b"VALUE ".to_vec();
        dataset.keys.put(&mut reply, 3);
        reply.extend_from_slice(b" 0 100\r\n");
        dataset.values.put(&mut reply, STAMP);
        reply.extend_from_slice(b"\r\nEND\r\nSTORED\r\n");
        reply
    }

    #[test]
    fn replies_are_understood_wherever_they_are_cut() {
        let plan = Plan {
            items: Items { keys: 10, ..Items::default() },
            ..Plan::new("127.0.0.1:1".parse().unwrap())
        };
        let dataset = plan.dataset().unwrap();
        let reply = reply(&dataset);
        for versions in [false, true] {
            for first in 0..reply.len() {
                for second in [first, (first + 1).min(reply.len()), (first + 40).min(reply.len())] {
                    let versions = versions.then(|| Versions::new(1, 0, 10));
                    let protocol = Protocol::Text;
                    let mut judge =
                        Judge { dataset: &dataset, protocol, versions, tally: Tally::new().unwrap() };
                    let mut replies = Replies::default();
                    replies.expect_get((1..6).map(|id| (id, 0)));
                    let version = judge.versions.as_mut().map_or(1, |versions| versions.sending(9));
                    replies.expect_set(9, version);
                    for part in [&reply[..first], &reply[first..second], &reply[second..]] {
                        replies.take(part, &mut judge).unwrap();
                    }
                    let counts = judge.tally.counts;
                    assert_eq!(
                        (counts.hits, counts.misses, counts.wrong),
                        (1, 4, 0),
                        "cut at {first}, {second}"
                    );
                    assert_eq!((replies.take_answered(), replies.outstanding()), ((1, 1), 0));
                    assert!(replies.take(b"END\r\n", &mut judge).is_err(), "a reply to nothing");
                }
            }
        }
    }
}
