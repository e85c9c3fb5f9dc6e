//! What a destination counts.

use corecached_protocol::client::ReplyEvent;
use corecached_protocol::{ErrorKind, Reply};

/// How many kinds of error there are.
pub(crate) const ERROR_KINDS: usize = ErrorKind::Client as usize + 1;

/// Counts since the destination was created. Probes count in `probes` and in bytes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DestinationCounters {
    /// Requests accepted, to be sent.
    pub(crate) requests: u64,
    /// Gets refused because the destination was slow and had as many pending requests as it may have.
    pub(crate) refused: u64,
    /// Replies to requests that had not timed out, errors included.
    pub(crate) replies: u64,
    /// Replies to requests that had timed out.
    pub(crate) late_replies: u64,
    /// Values received.
    pub(crate) found: u64,
    /// Misses and `NOT_FOUND`, and their meta forms.
    pub(crate) not_found: u64,
    /// `STORED`
    pub(crate) stored: u64,
    /// Requests that were refused, failed in flight, or were answered with an error, by [`ErrorKind`].
    pub(crate) errors: [u64; ERROR_KINDS],
    /// The sum of the milliseconds from request to reply, over all of `replies`.
    pub(crate) reply_ms: u64,
    /// Connections established.
    pub(crate) connects: u64,
    /// Connections refused or not established in time.
    pub(crate) connect_failures: u64,
    /// Connections lost, given up, or closed because they were not used.
    pub(crate) closes: u64,
    /// Times the destination was ejected.
    pub(crate) ejections: u64,
    /// Times it was used again after an ejection.
    pub(crate) returns: u64,
    /// Probes sent or attempted.
    pub(crate) probes: u64,
    /// Bytes given to the driver to send.
    pub(crate) bytes_sent: u64,
    /// Bytes received by the driver.
    pub(crate) bytes_received: u64,
}

impl DestinationCounters {
    /// Errors of one kind.
    #[must_use]
    pub(crate) const fn errors_of(&self, kind: ErrorKind) -> u64 {
        self.errors[kind as usize]
    }

    /// The mean of the microseconds from request to reply; 0 without replies. The clock of the turns is exact
    /// to a millisecond a reply.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn reply_mean_us(&self) -> u64 {
        match self.replies {
            0 => 0,
            replies => self.reply_ms.saturating_mul(1000) / replies,
        }
    }

    /// Counts a request that was not sent, or that failed with `kind`.
    #[inline]
    pub(crate) fn failed(&mut self, kind: ErrorKind) {
        self.errors[kind as usize] += 1;
    }

    /// Counts an event of a reply, if it is the last one of the reply.
    #[inline]
    pub(crate) fn answered(&mut self, event: &ReplyEvent, waited_ms: u64) {
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
            // Not the end of a reply, or not the reply to one request.
            ReplyEvent::ValueHead { .. }
            | ReplyEvent::MetaHead { .. }
            | ReplyEvent::ValuePiece(_)
            | ReplyEvent::End => return,
        }
        self.replies += 1;
        self.reply_ms += waited_ms;
    }
}
