//! What a destination counts.

use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{ErrorKind, Reply};

/// How many kinds of error there are.
pub const ERROR_KINDS: usize = ErrorKind::Client as usize + 1;

/// Counts since the destination is known. Probes count as such, and as bytes, and as nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests taken, to be sent.
    pub requests: u64,
    /// Gets refused, as the destination was slow and had as many under way as it may have.
    pub refused: u64,
    /// Replies of the destination, its errors too, each to a request that still waited.
    pub replies: u64,
    /// Replies to requests that had timed out.
    pub late_replies: u64,
    /// Values received.
    pub found: u64,
    /// Misses and `NOT_FOUND`, their meta forms too.
    pub not_found: u64,
    /// `STORED`
    pub stored: u64,
    /// What requests came to that were not answered as asked, by [`ErrorKind`]: refused, failed on the way, or
    /// answered with an error.
    pub errors: [u64; ERROR_KINDS],
    /// Milliseconds from request to reply, over all of `replies`.
    pub reply_ms: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections refused or not made in time.
    pub connect_failures: u64,
    /// Connections lost, given up or shut for want of use.
    pub closes: u64,
    /// Times the destination was ejected.
    pub ejections: u64,
    /// Times it came back.
    pub returns: u64,
    /// Probes sent or tried.
    pub probes: u64,
    /// Bytes given to the driver to send.
    pub bytes_sent: u64,
    /// Bytes the driver received.
    pub bytes_received: u64,
}

impl Counters {
    /// Errors of one kind.
    #[must_use]
    pub const fn errors_of(&self, kind: ErrorKind) -> u64 {
        self.errors[kind as usize]
    }

    /// Microseconds from request to reply, on average; 0 while there is no reply. As exact as the clock that the turns
    /// are shown: to a millisecond a reply.
    #[must_use]
    pub const fn reply_mean_us(&self) -> u64 {
        match self.replies {
            0 => 0,
            replies => self.reply_ms.saturating_mul(1000) / replies,
        }
    }

    /// Count a request that was not sent or came back without a reply.
    #[inline]
    pub fn failed(&mut self, kind: ErrorKind) {
        self.errors[kind as usize] += 1;
    }

    /// Count what the destination answered.
    #[inline]
    pub fn answered(&mut self, event: &ReplyEvent, waited_ms: u64) {
        match event {
            ReplyEvent::Reply(reply) => match reply {
                Reply::Miss | Reply::NotFound => self.not_found += 1,
                Reply::Stored => self.stored += 1,
                Reply::Error { kind, .. } => self.failed(*kind),
                _ => {}
            },
            ReplyEvent::Meta { line, .. } => match line.get(..2) {
                Some(b"VA") => self.found += 1,
                Some(b"EN" | b"NF") => self.not_found += 1,
                _ => {}
            },
            ReplyEvent::Value { .. } | ReplyEvent::ValueEnd => self.found += 1,
            // Not the end of a reply, or not one to a request.
            ReplyEvent::ValueHead { .. }
            | ReplyEvent::MetaHead { .. }
            | ReplyEvent::ValuePiece(_)
            | ReplyEvent::End => return,
        }
        self.replies += 1;
        self.reply_ms += waited_ms;
    }
}
