//! Which faults explain an error: each harm of each destination, and when it was last done.

use std::collections::BTreeSet;

/// What a fault does to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// No reply arrives.
    Silence,
    /// The connection ends, or what arrives on it is no reply.
    Break,
    /// Connections are refused.
    Refusal,
    /// Connections are neither accepted nor refused.
    Hang,
    /// The reply is an error.
    Error,
}

const HARMS: usize = Harm::Error as usize + 1;

/// Milliseconds after which a request times out, at most.
pub(crate) const TIMEOUT_MS: u64 = 200;
/// Milliseconds from the end of a fault until the destination has its traffic back, at most.
pub(crate) const RETURN_MS: u64 = 10 * TIMEOUT_MS;
/// Milliseconds from the end of a connection until the last error that comes of it, at most.
const NOTICE_MS: u64 = TIMEOUT_MS;

/// Every harm of every destination.
#[derive(Debug, Default)]
pub(crate) struct Blame {
    /// By destination and harm: when it was last done, in milliseconds.
    last_ms: Vec<[Option<u64>; HARMS]>,
    pub(crate) now_ms: u64,
}

impl Blame {
    pub(crate) fn new(destinations: usize) -> Self {
        Self { last_ms: vec![[None; HARMS]; destinations], now_ms: 0 }
    }

    /// A destination does this harm now.
    pub(crate) fn record(&mut self, destination: usize, harm: Harm) {
        self.last_ms[destination][harm as usize] = Some(self.now_ms);
    }

    /// Whether a fault of one of `destinations`, or of any if that is empty, explains the error `line` to a
    /// request that was sent at `sent_ms`. `None` stands for an error that was downgraded to a miss.
    pub(crate) fn explains(&self, line: Option<&[u8]>, sent_ms: u64, destinations: &BTreeSet<usize>) -> bool {
        let kinds: &[(Harm, u64)] = match line {
            // A request that waits for a connection may time out before the connection does.
            Some(b"SERVER_ERROR timeout" | b"SERVER_ERROR Server unavailable. Reason: timeout") => {
                &[(Harm::Silence, RETURN_MS), (Harm::Hang, RETURN_MS)]
            }
            Some(b"SERVER_ERROR remote error") => &[(Harm::Break, NOTICE_MS)],
            Some(b"SERVER_ERROR connection error") => &[(Harm::Refusal, NOTICE_MS)],
            Some(b"SERVER_ERROR connection timeout") => &[(Harm::Hang, NOTICE_MS)],
            Some(b"SERVER_ERROR Server unavailable. Reason: connection timeout") => {
                &[(Harm::Hang, RETURN_MS)]
            }
            Some(b"SERVER_ERROR Server unavailable. Reason: connection error") => {
                &[(Harm::Refusal, RETURN_MS)]
            }
            Some(b"SERVER_ERROR Server unavailable. Reason: shutdown") => &[(Harm::Error, RETURN_MS)],
            Some(
                b"SERVER_ERROR 301 shutdown"
                | b"SERVER_ERROR 302 try again"
                | b"SERVER_ERROR 307 busy"
                | b"SERVER_ERROR out of memory"
                | b"ERROR",
            ) => &[(Harm::Error, NOTICE_MS)],
            Some(b"SERVER_ERROR unavailable") | None => &[
                (Harm::Silence, RETURN_MS),
                (Harm::Break, NOTICE_MS),
                (Harm::Refusal, RETURN_MS),
                (Harm::Hang, RETURN_MS),
                (Harm::Error, RETURN_MS),
            ],
            Some(_) => return false,
        };
        let is_meant = |destination: &usize| destinations.is_empty() || destinations.contains(destination);
        (0..self.last_ms.len()).filter(is_meant).any(|destination| {
            kinds.iter().any(|&(harm, lasts_ms)| {
                self.last_ms[destination][harm as usize].is_some_and(|last| last + lasts_ms >= sent_ms)
            })
        })
    }

    /// Whether a request that got this error was not carried out, and never will be.
    pub(crate) fn was_not_sent(line: &[u8]) -> bool {
        line.starts_with(b"SERVER_ERROR Server unavailable")
            || [
                &b"SERVER_ERROR unavailable"[..],
                b"SERVER_ERROR connection error",
                b"SERVER_ERROR connection timeout",
            ]
            .contains(&line)
    }
}
