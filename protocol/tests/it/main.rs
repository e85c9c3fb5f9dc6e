//! The public interface of the crate as a server uses it: whole connections, at every split of their bytes.

mod classic;
mod fragments;
mod meta;
mod rejected;
mod replies;
mod retrieval;

use corecached_protocol::{BadDataChunk, Command, Limits, ParseError, Parsed, Parser, Rejected, data_block};

/// One step in the input of a connection.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    /// A command, as its debug text, which is owned and differs for any two commands.
    Command(String),
    Data(Vec<u8>),
    BadData,
    Rejected {
        error: ParseError,
        noreply: bool,
    },
    /// Bytes of the payload of a rejected command.
    Swallowed(u64),
    Closed(ParseError),
}

fn command(command: Command) -> Event {
    Event::Command(format!("{command:?}"))
}

fn rejected(error: ParseError) -> Event {
    Event::Rejected { error, noreply: false }
}

fn data(bytes: &[u8]) -> Event {
    Event::Data(bytes.to_vec())
}

/// A connection as a server holds it: the bytes not consumed yet, and what they have to begin with.
#[derive(Default)]
struct Connection {
    parser: Parser,
    input: Vec<u8>,
    /// Length of the value that comes next, after the line of its command was parsed.
    value_len: Option<u32>,
    swallow: u64,
    closed: bool,
    events: Vec<Event>,
}

impl Connection {
    fn receive(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
        while !self.closed && self.step() {}
    }

    /// Takes something from the front of the input; false when more is needed.
    fn step(&mut self) -> bool {
        let limits = Limits::default();
        if self.swallow > 0 {
            let skipped = self.swallow.min(self.input.len() as u64);
            self.swallow -= skipped;
            self.input.drain(..skipped as usize);
            return skipped > 0;
        }
        let consumed = if let Some(value_len) = self.value_len {
            let Parsed::Complete { value, consumed } = data_block(&self.input, value_len) else {
                return false;
            };
            self.events.push(match value {
                Ok(value) => data(value),
                Err(BadDataChunk) => Event::BadData,
            });
            self.value_len = None;
            consumed
        } else {
            match self.parser.parse(&self.input, &limits) {
                Ok(Parsed::Complete { value, consumed }) => {
                    self.value_len = value.value_len();
                    self.events.push(command(value));
                    consumed
                }
                Ok(Parsed::NeedMore) => {
                    assert!(self.input.len() <= limits.line_bytes_max, "a full input is never incomplete");
                    return false;
                }
                Err(rejected) => {
                    self.reject(rejected);
                    rejected.consumed
                }
            }
        };
        assert!(consumed > 0);
        self.input.drain(..consumed);
        true
    }

    fn reject(&mut self, rejected: Rejected) {
        let Rejected { error, noreply, swallow, close, .. } = rejected;
        assert_eq!(close, error.closes());
        assert!(!close || error.line().is_empty());
        self.closed = close;
        self.swallow = swallow;
        match error {
            ParseError::RestOfLine => assert!(noreply && !close && swallow == 0),
            _ if close => self.events.push(Event::Closed(error)),
            _ => self.events.push(Event::Rejected { error, noreply }),
        }
        if swallow > 0 {
            self.events.push(Event::Swallowed(swallow));
        }
    }
}

/// The events of a connection that receives `pieces`.
fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut connection = Connection::default();
    for piece in pieces {
        connection.receive(piece);
    }
    connection.events
}

/// `sent` yields `expected`, in one piece, byte by byte, and at every split in two.
#[track_caller]
fn check(sent: impl AsRef<[u8]>, expected: &[Event]) {
    let sent = sent.as_ref();
    let shown = String::from_utf8_lossy(&sent[..sent.len().min(80)]);
    assert_eq!(events([sent]), expected, "{shown:?}");
    assert_eq!(events(sent.chunks(1)), expected, "{shown:?} byte by byte");
    for split in 1..sent.len() {
        assert_eq!(events([&sent[..split], &sent[split..]]), expected, "{shown:?} split at {split}");
    }
}
