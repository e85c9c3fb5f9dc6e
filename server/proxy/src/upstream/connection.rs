//! The requests on one connection to a destination, and its replies, which are matched to them strictly in
//! order.
//!
//! Owns the bytes to send, the keys that replies are checked against, and the received part of a reply that
//! is not complete. Does not know whether there is a socket: [`super::Destination`] does.

use std::collections::VecDeque;

use corecached_protocol::client::{Expected, Framing, ReplyEvent, ReplyParser, RetrievalLine, encode};
use corecached_protocol::{Command, ErrorKind, KEY_BYTES_MAX, Parsed, Reply, Retrieve};

use super::failure::failure;

/// Largest empty input buffer worth keeping, in bytes.
const SPARE_INPUT_BYTES: usize = 64 * 1024;

/// The bounds of one connection to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most pending requests, sent or not (`--target-max-pending-requests`). Further ones are refused as
    /// busy.
    pub requests_max: usize,
    /// Most bytes of lines and values that have not been sent, and of the keys of all pending requests.
    /// Further requests are refused as busy.
    pub bytes_max: usize,
    /// Most requests in flight (`--target-max-inflight-requests`); 0 is no limit. Further ones are queued.
    pub inflight_max: usize,
    /// The largest value that is delivered whole, in bytes. A larger one is delivered in pieces, as they
    /// come.
    pub whole_value_bytes_max: u32,
}

impl Default for ConnectionLimits {
    /// The defaults of mcrouter, where it has such a limit.
    fn default() -> Self {
        Self {
            requests_max: 100_000,
            bytes_max: 64 * 1024 * 1024,
            inflight_max: 0,
            whole_value_bytes_max: 64 * 1024,
        }
    }
}

/// One event of the reply to a request. The last one is that for which [`ReplyEvent::is_last`] holds. An
/// error after [`ReplyEvent::ValueHead`] says that the rest of the value will not come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RequestEvent<'a> {
    /// The number of the request; `None` if it has timed out, so that it was answered already.
    pub(crate) number: Option<u64>,
    /// Milliseconds since the request was enqueued.
    pub(crate) waited_ms: u64,
    /// The event.
    pub(crate) event: ReplyEvent<'a>,
}

/// Why a connection cannot be used any more: the bytes that follow could be the reply to another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionError {
    /// The bytes are not a reply to the request.
    Framing(Framing),
    /// Bytes came although no request is in flight.
    Unasked,
    /// A command with a value was refused: the destination may have read the value as commands.
    Refused,
}

/// A line to the destination that has no complete reply.
#[derive(Clone, Copy, Debug)]
struct QueuedLine {
    expected: Expected,
    /// Keys of a retrieval that have no reply; 1 for other commands.
    requests: usize,
    /// Bytes of the line and its value.
    bytes: usize,
}

/// A request that has no reply.
#[derive(Clone, Copy, Debug)]
struct QueuedRequest {
    number: u64,
    made_ms: u64,
    key_bytes: u8,
}

/// The retrieval line at the end of the output, to which keys may be added.
#[derive(Clone, Copy, Debug)]
struct OpenRetrieval {
    line: RetrievalLine,
    /// The keys in the line.
    seen: KeyFilter,
}

/// A Bloom filter with one hash, of the last bytes of a key: a key whose bit is not set was not added.
#[derive(Clone, Copy, Debug, Default)]
struct KeyFilter([u64; 4]);

impl KeyFilter {
    /// Adds `key`. Returns false if it certainly was not added before.
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

/// One connection, with the requests that are queued for it.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    limits: ConnectionLimits,
    parser: ReplyParser,
    /// Bytes that were received and not parsed.
    input: Vec<u8>,
    /// Bytes to send, from `output_at` on.
    output: Vec<u8>,
    output_at: usize,
    open: Option<OpenRetrieval>,
    /// The oldest first; the first `lines_sent` were sent.
    lines: VecDeque<QueuedLine>,
    lines_sent: usize,
    /// The requests of all lines, the oldest first. The first `requests_sent` were sent. The first
    /// `timed_out` have timed out and were answered with that: requests are in the order of their times.
    requests: VecDeque<QueuedRequest>,
    requests_sent: usize,
    timed_out: usize,
    /// The keys of all requests.
    keys: KeyQueue,
    /// When bytes came last, or the connection was established.
    heard_ms: u64,
}

impl UpstreamConnection {
    /// A connection without requests.
    #[must_use]
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
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
            keys: KeyQueue::default(),
            heard_ms: 0,
        }
    }

    /// Enqueues `command` as request `number`, which will get exactly one reply. Retrievals that follow each
    /// other are sent in one line. `now_ms` never goes back.
    ///
    /// # Errors
    /// The reply, if the command cannot be sent to a destination, if its key is invalid, or if the connection
    /// is at one of its limits.
    #[inline]
    pub(crate) fn enqueue(
        &mut self,
        command: &Command,
        data: &[u8],
        number: u64,
        now_ms: u64,
    ) -> Result<(), Reply> {
        let Some(expected) = Expected::from_command(command) else { return Err(failure(ErrorKind::Local)) };
        if data.len() != command.value_len().unwrap_or(0) as usize {
            return Err(failure(ErrorKind::Local));
        }
        let key = command.key();
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
                self.lines.push_back(QueuedLine { expected, requests: 1, bytes: self.output.len() - before });
            }
        }
        let key = key.unwrap_or_default();
        const { assert!(KEY_BYTES_MAX <= u8::MAX as usize) };
        self.keys.push(key);
        debug_assert!(self.requests.back().is_none_or(|last| last.made_ms <= now_ms), "times never go back");
        self.requests.push_back(QueuedRequest { number, made_ms: now_ms, key_bytes: key.len() as u8 });
        self.check_counts();
        Ok(())
    }

    /// What holds between two calls, whatever the destination sends.
    #[inline]
    fn check_counts(&self) {
        debug_assert!(self.lines_sent <= self.lines.len());
        debug_assert!(self.requests_sent <= self.requests.len());
        debug_assert!(self.timed_out <= self.requests.len());
        debug_assert!(self.requests.len() >= self.lines.iter().take(1).map(|line| line.requests).sum());
        debug_assert!(self.output_at <= self.output.len());
    }

    /// Appends a key to the open line, or opens a new one.
    #[inline]
    fn retrieve(&mut self, retrieve: &Retrieve, expected: Expected) {
        let before = self.output.len();
        if let Some(OpenRetrieval { line, seen }) = &mut self.open
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
        let mut seen = KeyFilter::default();
        seen.add(retrieve.key);
        self.open = Some(OpenRetrieval { line, seen });
        self.lines.push_back(QueuedLine { expected, requests: 1, bytes: self.output.len() - before });
    }

    /// Ends the open line, if any.
    #[inline]
    fn close_line(&mut self) {
        if let Some(OpenRetrieval { line, .. }) = self.open.take()
            && let Some(last) = self.lines.back_mut()
        {
            let before = self.output.len();
            line.close(&mut self.output);
            last.bytes += self.output.len() - before;
        }
    }

    /// Whether [`UpstreamConnection::take_output`] would yield anything.
    #[must_use]
    pub(crate) fn has_output(&self) -> bool {
        self.lines.get(self.lines_sent).is_some_and(|line| self.may_send(line))
    }

    /// Appends to `out` all that may be sent now, which counts as sent from then on.
    pub(crate) fn take_output(&mut self, out: &mut Vec<u8>) {
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
        self.check_counts();
    }

    #[inline]
    fn may_send(&self, line: &QueuedLine) -> bool {
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

    /// Parses bytes that the destination sent, and gives `sink` the events of the replies in them.
    ///
    /// # Errors
    /// [`ConnectionError`]: the connection must be closed, and then [`UpstreamConnection::fail_sent`] called.
    pub(crate) fn received(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
        sink: &mut impl FnMut(RequestEvent<'_>),
    ) -> Result<(), ConnectionError> {
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

    /// Parses `input` and returns the number of bytes consumed.
    fn parse(
        &mut self,
        input: &[u8],
        now_ms: u64,
        sink: &mut impl FnMut(RequestEvent<'_>),
    ) -> Result<usize, ConnectionError> {
        let mut at = 0;
        while self.lines_sent > 0
            && let Some(line) = self.lines.front()
        {
            let (expected, is_retrieval) = (line.expected, matches!(line.expected, Expected::Values { .. }));
            let keys = self.keys.first(&self.requests, if is_retrieval { line.requests } else { 0 });
            let parsed = self.parser.parse(&input[at..], expected, keys).map_err(ConnectionError::Framing)?;
            let Parsed::Complete { value: event, consumed } = parsed else { return Ok(at) };
            at += consumed;
            if event == ReplyEvent::End {
                self.line_answered();
                continue;
            }
            let Some(request) = self.requests.front() else { return Err(ConnectionError::Unasked) };
            let number = (self.timed_out == 0).then_some(request.number);
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
            sink(RequestEvent { number, waited_ms, event });
            if refused {
                return Err(ConnectionError::Refused);
            }
        }
        if at < input.len() { Err(ConnectionError::Unasked) } else { Ok(at) }
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
        debug_assert!(self.lines_sent > 0, "only a line that was sent is answered");
        self.lines_sent -= 1;
    }

    /// The connection is established: silence counts from now.
    pub(crate) fn connected(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// Requests that were enqueued `timeout_ms` ago or earlier get `SERVER_ERROR timeout`. Those in flight
    /// stay in the queue, so that their late replies are recognised. Those that were not sent are dropped if
    /// nothing is in flight, and sent nevertheless if something is.
    pub(crate) fn expire(&mut self, timeout_ms: u64, now_ms: u64, sink: &mut impl FnMut(RequestEvent<'_>)) {
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
            debug_assert_eq!(self.requests_sent, 0, "nothing is in flight");
            let QueuedLine { requests, bytes, .. } = *line;
            self.lines.pop_front();
            self.output_at += bytes;
            self.timed_out -= requests;
            for request in self.requests.drain(..requests) {
                self.keys.pop(request.key_bytes);
            }
        }
        self.forget_taken_output();
    }

    /// When the next request times out, if that takes `timeout_ms`.
    #[must_use]
    pub(crate) fn next_expiry_ms(&self, timeout_ms: u64) -> Option<u64> {
        self.requests.get(self.timed_out).map(|request| request.made_ms.saturating_add(timeout_ms))
    }

    /// Since when nothing has come although a reply is due; `None` if none is.
    #[must_use]
    pub(crate) fn silent_since_ms(&self) -> Option<u64> {
        if self.lines_sent == 0 {
            return None;
        }
        let oldest = self.requests.front().filter(|_| self.requests_sent > 0);
        Some(oldest.map_or(self.heard_ms, |request| request.made_ms.max(self.heard_ms)))
    }

    /// Whether a request in flight has not timed out.
    #[must_use]
    pub(crate) fn is_awaited(&self) -> bool {
        self.timed_out < self.requests_sent
    }

    /// The connection is lost: requests in flight fail with `kind`, the others are sent on the next
    /// connection.
    pub(crate) fn fail_sent(
        &mut self,
        kind: ErrorKind,
        now_ms: u64,
        sink: &mut impl FnMut(RequestEvent<'_>),
    ) {
        self.fail_lines(self.lines_sent, kind, now_ms, sink);
    }

    /// There will be no connection: all requests fail with `kind`.
    pub(crate) fn fail_all(&mut self, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(RequestEvent<'_>)) {
        self.close_line();
        self.fail_lines(self.lines.len(), kind, now_ms, sink);
        self.output.clear();
        self.output_at = 0;
    }

    fn fail_lines(
        &mut self,
        lines: usize,
        kind: ErrorKind,
        now_ms: u64,
        sink: &mut impl FnMut(RequestEvent<'_>),
    ) {
        debug_assert!(lines <= self.lines.len() && self.lines_sent <= lines);
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
        self.check_counts();
        self.parser = ReplyParser::new(self.limits.whole_value_bytes_max);
        self.input = Vec::new();
    }

    /// The number of pending requests, sent or not.
    #[must_use]
    pub(crate) fn pending(&self) -> usize {
        self.requests.len()
    }

    /// The number of requests in flight.
    #[must_use]
    pub(crate) fn inflight(&self) -> usize {
        self.requests_sent
    }

    /// Whether there is nothing to send and no reply is due.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        self.lines.is_empty()
    }
}

fn fail(request: &QueuedRequest, kind: ErrorKind, now_ms: u64, sink: &mut impl FnMut(RequestEvent<'_>)) {
    sink(RequestEvent {
        number: Some(request.number),
        waited_ms: now_ms.saturating_sub(request.made_ms),
        event: ReplyEvent::Reply(failure(kind)),
    });
}

/// Whether `key` is one word of a line. Another would end the line early, and get as many replies as it makes
/// lines.
#[inline]
fn can_be_sent(key: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && !key.iter().any(|&byte| byte <= b' ' || byte == 0x7f)
}

/// Whether the flags of a meta command would end its line.
#[inline]
fn has_bad_flags(command: &Command) -> bool {
    matches!(command, Command::Meta(meta) if meta.flags.tokens.contains(&b'\n'))
}

/// A queue of keys without gaps between them. The requests know the length of each.
#[derive(Debug, Default)]
struct KeyQueue {
    bytes: Vec<u8>,
    /// Where the first key begins.
    start: usize,
}

impl KeyQueue {
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

    /// The keys of the first `count` of `requests`, which are the requests of all keys in the queue.
    #[inline]
    fn first<'a>(
        &'a self,
        requests: &'a VecDeque<QueuedRequest>,
        count: usize,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = &self.bytes[self.start..];
        requests.iter().take(count).map(move |request| {
            let (key, others) = rest.split_at(request.key_bytes.into());
            rest = others;
            key
        })
    }

    /// The keys of the last `count` of `requests`, the last first.
    fn last<'a>(
        &'a self,
        requests: &'a VecDeque<QueuedRequest>,
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
