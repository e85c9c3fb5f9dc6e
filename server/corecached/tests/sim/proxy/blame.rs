//! Which faults explain an error: each kind of fault of each destination, and when it last went on.

use std::collections::BTreeSet;

/// What a fault does to those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Harm {
    /// Nothing comes.
    Silence,
    /// The connection ends, or what comes on it is no reply.
    Break,
    /// No connection is taken.
    Refusal,
    /// A connection is neither taken nor refused.
    Hang,
    /// It answers with an error.
    Error,
}

const HARMS: usize = Harm::Error as usize + 1;

/// The longest that a request waits for its own time-out, and those before it, ms.
pub const TIMEOUT_MS: u64 = 200;
/// From the end of a fault to a destination's having its traffic back, at most, ms.
pub const RETURN_MS: u64 = 10 * TIMEOUT_MS;
/// From the end of a connection to the last word of it, ms.
const NOTICE_MS: u64 = TIMEOUT_MS;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Blame {
    /// By destination and harm: when it last went on, ms.
    last_ms: Vec<[Option<u64>; HARMS]>,
    pub now_ms: u64,
}

impl Blame {
    pub fn new(destinations: usize) -> Self {
        Self { last_ms: vec![[None; HARMS]; destinations], now_ms: 0 }
    }

    /// A destination does this harm now.
    pub fn goes_on(&mut self, destination: usize, harm: Harm) {
        self.last_ms[destination][harm as usize] = Some(self.now_ms);
    }

    /// Whether the error `line`, to what was asked at `asked_ms`, comes from a fault of one of `destinations`, or, where
    /// there is none, of any. `None` stands for an error that the client is not shown.
    pub fn explains(&self, line: Option<&[u8]>, asked_ms: u64, destinations: &BTreeSet<usize>) -> bool {
        let kinds: &[(Harm, u64)] = match line {
            // One that waits for a connection may run out of time before that does.
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
                self.last_ms[destination][harm as usize].is_some_and(|last| last + lasts_ms >= asked_ms)
            })
        })
    }

    /// Whether a request that was answered with this error was certainly not carried out, and will not be.
    pub fn was_not_sent(line: &[u8]) -> bool {
        line.starts_with(b"SERVER_ERROR Server unavailable")
            || [
                &b"SERVER_ERROR unavailable"[..],
                b"SERVER_ERROR connection error",
                b"SERVER_ERROR connection timeout",
            ]
            .contains(&line)
    }
}
