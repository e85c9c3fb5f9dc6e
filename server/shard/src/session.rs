//! A client connection: its parser, the input that has not been handled yet, and its replies.
//!
//! A session does no I/O and knows no store. When it is idle, it owns no heap memory beyond itself.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use corecached_net::ConnId;
use corecached_protocol::Parser;

use crate::reply_queue::ReplyQueue;
use crate::types::ServiceTypes;

/// What the next bytes of input are.
pub enum State<S: ServiceTypes> {
    /// A command.
    Command,
    /// So many bytes of a value that is not stored, and then a command.
    Swallow(u64),
    /// They are not parsed until all earlier replies have been sent and the barrier has been passed.
    Barrier(Box<S::Barrier>),
    /// They are not parsed until every shard has answered.
    Gather(Box<Gather<S>>),
    /// Input of the task that the session has instead of reading commands.
    Task(S::Task),
    /// Ignored: the connection closes once its replies have been sent.
    Closing,
}

#[expect(clippy::derivable_impls, reason = "the derived one would ask for S: Default")]
impl<S: ServiceTypes> Default for State<S> {
    fn default() -> Self {
        Self::Command
    }
}

/// The answers to a broadcast that have come so far.
pub struct Gather<S: ServiceTypes> {
    /// Shards that have not answered.
    pub missing: usize,
    /// The answers of the others.
    pub answers: Vec<S::Answer>,
    /// What to do with all answers.
    pub then: S::Then,
}

/// The address that a client connects from. Smaller than `Option<SocketAddr>`.
#[derive(Debug)]
pub enum PeerAddress {
    /// A Unix socket.
    Unix,
    /// An IPv4 address and port.
    V4(SocketAddrV4),
    /// An IPv6 address and port.
    V6(Box<SocketAddrV6>),
}

impl From<Option<SocketAddr>> for PeerAddress {
    fn from(address: Option<SocketAddr>) -> Self {
        match address {
            None => Self::Unix,
            Some(SocketAddr::V4(address)) => Self::V4(address),
            Some(SocketAddr::V6(address)) => Self::V6(Box::new(address)),
        }
    }
}

/// One connection, as the shard that accepted it sees it.
pub struct Session<S: ServiceTypes> {
    /// Its id in the driver.
    pub conn: ConnId,
    /// What the parser remembers between two commands.
    pub parser: Parser,
    /// What the next bytes are.
    pub state: State<S>,
    /// Replies that have not been sent.
    pub replies: ReplyQueue,
    /// Bytes received and not parsed, from `input_at` on.
    pub(crate) input: Vec<u8>,
    /// Bytes at the front of `input` that have been parsed.
    pub(crate) input_at: usize,
    /// The turn in which this connection last had output, and the index of that output in the turn's list of
    /// sends.
    pub(crate) output: (u64, usize),
    /// Bytes of output in that turn.
    pub(crate) output_bytes: usize,
    /// The driver has been told not to receive.
    pub(crate) paused: bool,
    /// The client has not taken what was sent. Nothing is parsed until the driver says that it has.
    pub lags: bool,
    /// Parsing stopped with input left: other connections go first, a reply is due first, or there is no
    /// room.
    pub stalled: bool,
    /// On the shard's list of sessions to settle at the end of the turn.
    pub(crate) touched: bool,
    /// On the shard's list of sessions to continue in the next turn.
    pub(crate) listed: bool,
    /// The client will send nothing more.
    pub(crate) ended: bool,
    /// It closes because what the client sent cannot be answered.
    pub malformed: bool,
    /// Index of the listening socket that accepted it.
    pub listener: u16,
    /// When its last bytes were received, in seconds of the shard's clock.
    pub last_s: u32,
    /// The address that it connects from.
    pub peer: PeerAddress,
}

impl<S: ServiceTypes> Session<S> {
    /// A session for a new connection, accepted on listening socket number `listener` at second `now_s`.
    #[must_use]
    pub(crate) fn new(conn: ConnId, peer: PeerAddress, parser: Parser, listener: u16, now_s: u32) -> Self {
        Self {
            conn,
            parser,
            state: State::Command,
            replies: ReplyQueue::default(),
            input: Vec::new(),
            input_at: 0,
            output: (0, 0),
            output_bytes: 0,
            paused: false,
            lags: false,
            stalled: false,
            touched: false,
            listed: false,
            ended: false,
            malformed: false,
            listener,
            last_s: now_s,
            peer,
        }
    }

    /// The bytes received and not parsed.
    #[must_use]
    pub fn waiting_input(&self) -> &[u8] {
        &self.input[self.input_at..]
    }

    /// The number of bytes received and not parsed.
    #[must_use]
    pub fn unparsed(&self) -> usize {
        self.input.len() - self.input_at
    }

    /// Whether nothing of what the client sent is still being worked on, and it has taken what it was sent.
    pub(crate) fn waits_for_nothing(&self) -> bool {
        self.replies.is_caught_up() && !self.stalled && !self.lags
    }

    /// Whether the service may have the driver receive bytes straight to their destination: nothing earlier
    /// waits to be parsed, and nothing keeps the session from being read.
    #[must_use]
    pub fn may_receive_directly(&self) -> bool {
        !(self.stalled || self.paused || self.lags || self.unparsed() > 0)
    }
}
