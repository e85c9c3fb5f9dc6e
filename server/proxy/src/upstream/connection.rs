//! Requests on one connection to a destination, and its replies matched to them strictly in order.
//!
//! Owns the bytes to send, the keys that replies are checked against, and what was received of a reply that is not all
//! there. Never knows whether there is a socket: [`super::Destination`] does.

use std::collections::VecDeque;

use corecached_protocol::client::{Expected, Framing, ReplyEvent, ReplyParser, RetrievalLine, encode};
use corecached_protocol::{
    Command, ErrorKind, KEY_BYTES_MAX, Meta, MetaVerb, Parsed, Reply, Retrieve, Store,
};

use super::failure::failure;

/// Largest empty input buffer worth keeping, in bytes.
const SPARE_INPUT_BYTES: usize = 64 * 1024;

/// What bounds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most requests without a reply, sent or not (`--target-max-pending-requests`); past it they are refused as busy.
    pub requests_max: usize,
    /// Most bytes of lines and values that wait to be sent, and of the keys of all requests; past it they are refused
    /// as busy.
    pub bytes_max: usize,
    /// Most requests sent and without a reply (`--target-max-inflight-requests`); 0 is no limit. Others wait.
    pub inflight_max: usize,
    /// Largest value that is passed on whole, in bytes; a larger one is passed on in pieces as they come.
    pub whole_value_bytes_max: u32,
}

impl Default for Limits {
    /// Those of mcrouter where it has them.
    fn default() -> Self {
        Self {
            requests_max: 100_000,
            bytes_max: 64 * 1024 * 1024,
            inflight_max: 0,
            whole_value_bytes_max: 64 * 1024,
        }
    }
}

/// What came for a request, up to an event that [`ReplyEvent::is_last`]; one that
/// follows [`ReplyEvent::ValueHead`] and is an error says that the rest of the value will not come.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Who asked; `None` when that was told already that it took too long.
    pub waiter: Option<u64>,
    /// Milliseconds since the request was made.
    pub waited_ms: u64,
    /// What.
    pub event: ReplyEvent<'a>,
}

/// The connection lost its place: what comes next cannot be told from a reply to something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Bytes that are no reply to what was asked.
    Framing(Framing),
    /// Bytes, and nothing was asked.
    Unasked,
    /// A command with a value was refused as a whole: the value may have been read as commands.
    Refused,
}

/// A line to the destination that has no complete reply yet.
#[derive(Clone, Copy, Debug)]
struct Line {
    expected: Expected,
    /// Keys of a retrieval that have no reply yet; 1 for other commands.
    requests: usize,
    /// Of line and value.
    bytes: usize,
}

/// A request without a reply.
#[derive(Clone, Copy, Debug)]
struct Request {
    waiter: u64,
    made_ms: u64,
    key_bytes: u8,
}

/// The retrieval line that the output ends with, to which keys may be added.
#[derive(Clone, Copy, Debug)]
struct Open {
    line: RetrievalLine,
    /// The keys in it, as far as bits can tell.
    seen: Seen,
}

/// A bit for each key, by its last bytes: where it is not set the key is not there.
#[derive(Clone, Copy, Debug, Default)]
struct Seen([u64; 4]);

impl Seen {
    /// Adds `key`; false when it certainly was not there.
    #[inline]
    fn add(&mut self, key: &[u8]) -> bool {
        let tail = match key.last_chunk() {
            Some(tail) => u64::from_le_bytes(*tail),
            None => key.iter().fold(0, |tail, &byte| tail << 8 | u64::from(byte)),
        };
        let bit = tail.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let (word, bit) = (&mut self.0[(bit >> 6) as usize], 1 << (bit & 63));
        let may_be_there = *word & bit != 0;
        *word |= bit;
        may_be_there
    }
}

/// One connection, with all that waits for it.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    parser: ReplyParser,
    /// Received and not parsed.
    input: Vec<u8>,
    /// To be sent, from `output_at` on.
    output: Vec<u8>,
    output_at: usize,
    open: Option<Open>,
    /// Oldest first; the first `lines_sent` were sent.
    lines: VecDeque<Line>,
    lines_sent: usize,
    /// The requests of all lines, oldest first. The first `requests_sent` were sent, and the first `timed_out` were
    /// told that they took too long: times run in order.
    requests: VecDeque<Request>,
    requests_sent: usize,
    timed_out: usize,
    /// The keys of all requests.
    keys: Keys,
    /// When bytes came last, or the connection was made.
    heard_ms: u64,
}

impl Connection {
    /// A connection that nothing was asked of yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            parser: ReplyParser::new(limits.whole_value_bytes_max),
            input: Vec::new(),
            output: Vec::new(),
            output_at: 0,
            open: None,
            lines: VecDeque::new(),
            lines_sent: 0,
            requests: VecDeque::new(),
            requests_sent: 0,
            timed_out: 0,
            keys: Keys::default(),
            heard_ms: 0,
        }
    }

    /// Asks for the reply to `command`, which `waiter` will get: exactly one. Retrievals that follow each other go out
    /// in one line. `now_ms` never goes back.
    ///
    /// # Errors
    /// The reply at once: the command is none for a destination, its key cannot be sent, or too much waits already.
    #[inline]
    pub fn enqueue(&mut self, command: &Command, data: &[u8], waiter: u64, now_ms: u64) -> Result<(), Reply> {
        let Some(expected) = Expected::from_command(command) else { return Err(failure(ErrorKind::Local)) };
        let (key, value_len) = key_and_value_len(command);
        if data.len() != value_len as usize {
            return Err(failure(ErrorKind::Local));
        }
        if key.is_some_and(|key| !can_be_sent(key)) || has_bad_flags(command) {
            return Err(failure(ErrorKind::BadKey));
        }
        let waiting_bytes = self.output.len() - self.output_at + self.keys.len();
        if self.requests.len() >= self.limits.requests_max
            || waiting_bytes + data.len() > self.limits.bytes_max
        {
            return Err(failure(ErrorKind::Busy));
        }
        match command {
            Command::Retrieve(retrieve) => self.retrieve(retrieve, expected),
            _ => {
                self.close_line();
                let before = self.output.len();
                encode(command, data, &mut self.output);
                self.lines.push_back(Line { expected, requests: 1, bytes: self.output.len() - before });
            }
        }
        let key = key.unwrap_or_default();
        self.keys.push(key);
        self.requests.push_back(Request { waiter, made_ms: now_ms, key_bytes: key.len() as u8 });
        Ok(())
    }

    /// Appends a key to the open line, or opens another.
    #[inline]
    fn retrieve(&mut self, retrieve: &Retrieve, expected: Expected) {
        let before = self.output.len();
        if let Some(Open { line, seen }) = &mut self.open
            && let Some(last) = self.lines.back_mut()
            && line.takes(retrieve)
            && (self.limits.inflight_max == 0 || last.requests < self.limits.inflight_max)
            && (!seen.add(retrieve.key)
                || !self.keys.last(&self.requests, last.requests).any(|key| key == retrieve.key))
        {
            line.push(retrieve.key, &mut self.output);
            last.requests += 1;
            last.bytes += self.output.len() - before;
            return;
        }
        self.close_line();
        let before = self.output.len();
        let line = RetrievalLine::open(retrieve, &mut self.output);
        let mut seen = Seen::default();
        seen.add(retrieve.key);
        self.open = Some(Open { line, seen });
        self.lines.push_back(Line { expected, requests: 1, bytes: self.output.len() - before });
    }

    /// Ends the open line, if there is one.
    #[inline]
    fn close_line(&mut self) {
        if let Some(Open { line, .. }) = self.open.take()
            && let Some(last) = self.lines.back_mut()
        {
            let before = self.output.len();
            line.close(&mut self.output);
            last.bytes += self.output.len() - before;
        }
    }

    /// Whether [`Connection::take_output`] would yield anything.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.lines.get(self.lines_sent).is_some_and(|line| self.may_send(line))
    }

    /// Appends to `out` all that may be sent now. It counts as sent.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        self.close_line();
        let start = self.output_at;
        while let Some(line) = self.lines.get(self.lines_sent)
            && self.may_send(line)
        {
            self.output_at += line.bytes;
            self.requests_sent += line.requests;
            self.lines_sent += 1;
        }
        let all = start == 0 && self.output_at == self.output.len();
        if all && out.is_empty() {
            std::mem::swap(&mut self.output, out); // both buffers are used again
        } else {
            out.extend_from_slice(&self.output[start..self.output_at]);
        }
        self.forget_taken_output();
    }

    #[inline]
    fn may_send(&self, line: &Line) -> bool {
        let max = self.limits.inflight_max;
        max == 0 || self.requests_sent == 0 || self.requests_sent + line.requests <= max
    }

    fn forget_taken_output(&mut self) {
        if self.output_at >= self.output.len() {
            self.output.clear();
            self.output_at = 0;
        } else if self.output_at > self.output.len() / 2 {
            self.output.drain(..self.output_at);
            self.output_at = 0;
        }
    }

    /// Takes bytes of the destination and gives `sink` what they come to.
    ///
    /// # Errors
    /// [`Broken`]: close the connection, and then [`Connection::fail_sent`].
    pub fn received(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
        sink: &mut impl FnMut(Answer<'_>),
    ) -> Result<(), Broken> {
        self.heard_ms = now_ms;
        if self.input.is_empty() {
            let consumed = self.parse(bytes, now_ms, sink)?;
            self.input.extend_from_slice(&bytes[consumed..]);
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let consumed = self.parse(&input, now_ms, sink)?;
        input.drain(..consumed);
        if !input.is_empty() || input.capacity() <= SPARE_INPUT_BYTES {
            self.input = input;
        }
        Ok(())
    }

    /// Bytes of `input` that are done with.
    fn parse(
        &mut self,
        input: &[u8],
        now_ms: u64,
        sink: &mut impl FnMut(Answer<'_>),
    ) -> Result<usize, Broken> {
        let mut at = 0;
        while self.lines_sent > 0
            && let Some(line) = self.lines.front()
        {
            let (expected, is_retrieval) = (line.expected, matches!(line.expected, Expected::Values { .. }));
            let keys = self.keys.first(&self.requests, if is_retrieval { line.requests } else { 0 });
            let parsed = self.parser.parse(&input[at..], expected, keys).map_err(Broken::Framing)?;
            let Parsed::Complete { value: event, consumed } = parsed else { return Ok(at) };
            at += consumed;
            if event == ReplyEvent::End {
                self.line_answered();
                continue;
            }
            let Some(request) = self.requests.front() else { return Err(Broken::Unasked) };
            let waiter = (self.timed_out == 0).then_some(request.waiter);
            let waited_ms = now_ms.saturating_sub(request.made_ms);
            let is_last = event.is_last();
            let refused = expected.has_data()
                && matches!(event, ReplyEvent::Reply(Reply::Error { kind: ErrorKind::Client, .. }));
            if is_last {
                self.request_answered();
                if !is_retrieval {
                    self.line_answered();
                }
            }
            sink(Answer { waiter, waited_ms, event });
            if refused {
                return Err(Broken::Refused);
            }
        }
        if at < input.len() { Err(Broken::Unasked) } else { Ok(at) }
    }

    #[inline]
    fn request_answered(&mut self) {
        if let Some(request) = self.requests.pop_front() {
            self.keys.pop(request.key_bytes);
        }
        self.requests_sent = self.requests_sent.saturating_sub(1);
        self.timed_out = self.timed_out.saturating_sub(1);
        if let Some(line) = self.lines.front_mut() {
            line.requests -= 1;
        }
    }

    #[inline]
    fn line_answered(&mut self) {
        self.lines.pop_front();
        self.lines_sent -= 1;
    }

    /// The connection is there: silence counts from now.
    pub fn connected(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// Requests that were made `timeout_ms` ago or earlier get `SERVER_ERROR timeout`. Those that were sent keep their
    /// place, and their late replies nobody; those that were not are forgotten where nothing was sent before them, and
    /// otherwise sent all the same.
    pub fn expire(&mut self, timeout_ms: u64, now_ms: u64, sink: &mut impl FnMut(Answer<'_>)) {
        while let Some(request) = self.requests.get(self.timed_out)
            && request.made_ms.saturating_add(timeout_ms) <= now_ms
        {
            fail(request, ErrorKind::Timeout, now_ms, sink);
            self.timed_out += 1;
        }
        if self.timed_out == 0 || self.lines_sent > 0 {
            return;
        }
        self.close_line();
        while let Some(line) = self.lines.front()
            && line.requests <= self.timed_out
        {
            let Line { requests, bytes, .. } = *line;
            self.lines.pop_front();
            self.output_at += bytes;
            self.timed_out -= requests;
            for request in self.requests.drain(..requests) {
                self.keys.pop(request.key_bytes);
            }
        }
        self.forget_taken_output();
    }

    /// When the next request has waited for `timeout_ms`.
    #[must_use]
    pub fn next_expiry_ms(&self, timeout_ms: u64) -> Option<u64> {
        self.requests.get(self.timed_out).map(|request| request.made_ms.saturating_add(timeout_ms))
    }

    /// Since when nothing came although something is due; `None` when nothing is.
    #[must_use]
    pub fn silent_since_ms(&self) -> Option<u64> {
        if self.lines_sent == 0 {
            return None;
        }
        let oldest = self.requests.front().filter(|_| self.requests_sent > 0);
        Some(oldest.map_or(self.heard_ms, |request| request.made_ms.max(self.heard_ms)))
    }

    /// Whether somebody still waits for a reply to what was sent.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.timed_out < self.requests_sent
    }

    /// The connection is gone: what was sent gets the failure `kind`, what was not waits for the next connection.
    pub fn fail_sent(&mut self, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(Answer<'_>)) {
        self.fail_lines(self.lines_sent, kind, now_ms, sink);
    }

    /// There will be no connection: everything gets the failure `kind`.
    pub fn fail_all(&mut self, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(Answer<'_>)) {
        self.close_line();
        self.fail_lines(self.lines.len(), kind, now_ms, sink);
        self.output.clear();
        self.output_at = 0;
    }

    fn fail_lines(&mut self, lines: usize, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(Answer<'_>)) {
        for line in self.lines.drain(..lines) {
            for request in self.requests.drain(..line.requests) {
                self.keys.pop(request.key_bytes);
                if self.timed_out > 0 {
                    self.timed_out -= 1;
                } else {
                    fail(&request, kind, now_ms, sink);
                }
            }
        }
        self.lines_sent = 0;
        self.requests_sent = 0;
        self.parser = ReplyParser::new(self.limits.whole_value_bytes_max);
        self.input = Vec::new();
    }

    /// Requests without a reply, sent or not.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.requests.len()
    }

    /// Requests sent and without a reply.
    #[must_use]
    pub fn inflight(&self) -> usize {
        self.requests_sent
    }

    /// Whether nothing is due in either direction.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lines.is_empty()
    }
}

fn fail(request: &Request, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(Answer<'_>)) {
    sink(Answer {
        waiter: Some(request.waiter),
        waited_ms: now_ms.saturating_sub(request.made_ms),
        event: ReplyEvent::Reply(failure(kind)),
    });
}

/// What `command` is about, and the bytes that go with it.
#[inline]
fn key_and_value_len<'a>(command: &Command<'a>) -> (Option<&'a [u8]>, u32) {
    match *command {
        Command::Retrieve(Retrieve { key, .. }) => (Some(key), 0),
        Command::Store(Store { key, value_len, .. }) => (Some(key), value_len),
        Command::Delete(delete) => (Some(delete.key), 0),
        Command::Arithmetic(arithmetic) => (Some(arithmetic.key), 0),
        Command::Touch(touch) => (Some(touch.key), 0),
        Command::Meta(Meta { verb: MetaVerb::Set, key, value_len, .. }) => (Some(key), value_len),
        Command::Meta(meta) => (Some(meta.key), 0),
        _ => (None, 0),
    }
}

/// Whether `key` is a word of a line. One that is none would end the line early, and be answered with as many replies
/// as it makes lines.
#[inline]
fn can_be_sent(key: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && !key.iter().any(|&byte| byte <= b' ' || byte == 0x7f)
}

/// Whether the flags of a meta command would end its line.
#[inline]
fn has_bad_flags(command: &Command) -> bool {
    matches!(command, Command::Meta(meta) if meta.flags.tokens.contains(&b'\n'))
}

/// Keys one behind the other, taken away in front. How long each is their requests know.
#[derive(Debug, Default)]
struct Keys {
    bytes: Vec<u8>,
    /// Where the first begins.
    start: usize,
}

impl Keys {
    #[inline]
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
    }

    #[inline]
    fn pop(&mut self, key_bytes: u8) {
        self.start += usize::from(key_bytes);
        debug_assert!(self.start <= self.bytes.len());
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > 4096 && self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The keys of the first `count` of `requests`, which are those of all keys.
    #[inline]
    fn first<'a>(
        &'a self,
        requests: &'a VecDeque<Request>,
        count: usize,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = &self.bytes[self.start..];
        requests.iter().take(count).map(move |request| {
            let (key, others) = rest.split_at(request.key_bytes.into());
            rest = others;
            key
        })
    }

    /// The keys of the last `count` of `requests`, last first.
    fn last<'a>(
        &'a self,
        requests: &'a VecDeque<Request>,
        count: usize,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = &self.bytes[self.start..];
        requests.iter().rev().take(count).map(move |request| {
            let (others, key) = rest.split_at(rest.len() - usize::from(request.key_bytes));
            rest = others;
            key
        })
    }
}
