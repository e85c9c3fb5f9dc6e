//! The binary protocol: requests and replies of a header of 24 bytes and a body, with numbers in big endian
//! order.
//!
//! It is deprecated since memcached 1.6.0, but many clients still speak it. A connection is binary when its
//! first byte is [`REQUEST_MAGIC`]. The module `parse` holds the grammar of requests and `encode` writes the
//! replies; this file has the types of both.

mod encode;
mod parse;

pub use encode::*;
pub(crate) use parse::parse;

use crate::exptime::Exptime;

/// First byte of every request.
pub const REQUEST_MAGIC: u8 = 0x80;
/// First byte of every reply.
pub const REPLY_MAGIC: u8 = 0x81;
/// Length of a header in bytes.
pub const HEADER_BYTES: usize = 24;
/// Most bytes of a body that are part of a [`Binary`] or a [`BinaryControl`]: extras and key, or the whole
/// body of a request without a key.
pub const BODY_BYTES_MAX: usize = 1024;
/// The exptime of `INCR` and `DECR` that asks not to create a missing item.
pub const DO_NOT_CREATE: u32 = u32::MAX;

/// The result of a request, as its reply shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// The request succeeded.
    Ok = 0x00,
    /// There is no such item, or no such stat.
    NotFound = 0x01,
    /// There is such an item already, or it has another cas unique.
    Exists = 0x02,
    /// The value is larger than the item size limit.
    TooLarge = 0x03,
    /// The parts of the request do not fit its opcode. The connection closes.
    Invalid = 0x04,
    /// `APPEND`, `PREPEND`: there is no item, or the value would become too large.
    NotStored = 0x05,
    /// `INCR`, `DECR`: the stored value is not a number.
    NonNumeric = 0x06,
    /// The client is not authenticated, or it sent `FLUSH` where that is switched off.
    AuthError = 0x20,
    /// SASL needs another step.
    AuthContinue = 0x21,
    /// There is no such opcode.
    UnknownCommand = 0x81,
    /// There is no memory for the item, and none can be freed.
    OutOfMemory = 0x82,
    /// The request failed on the way to the server that has the key: of a proxy only, as are those after it.
    InternalError = 0x84,
    /// That server has too much to do.
    Busy = 0x85,
    /// That server cannot be reached now, or did not answer in time.
    TemporaryFailure = 0x86,
}

impl Status {
    /// The text that is the body of a reply with this status, unless the reply carries something else.
    #[must_use]
    pub const fn text(self) -> &'static [u8] {
        match self {
            Self::Ok | Self::AuthContinue => b"",
            Self::NotFound => b"Not found",
            Self::Exists => b"Data exists for key.",
            Self::TooLarge => b"Too large.",
            Self::Invalid => b"Invalid arguments",
            Self::NotStored => b"Not stored.",
            Self::NonNumeric => b"Non-numeric server-side value for incr or decr",
            Self::AuthError => b"Auth failure.",
            Self::UnknownCommand => b"Unknown command",
            Self::OutOfMemory => b"Out of memory",
            Self::InternalError => b"Internal error",
            Self::Busy => b"Busy",
            Self::TemporaryFailure => b"Temporary failure",
        }
    }
}

/// The fields of a request that its reply repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The opcode as sent, which differs between a quiet request and a plain one.
    pub opcode: u8,
    /// A number by which the client recognizes the reply.
    pub opaque: u32,
}

/// A request on a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binary<'a> {
    /// The operation.
    pub verb: BinaryVerb,
    /// Whether the expected result is not answered: for reads a miss, for other verbs success.
    pub quiet: bool,
    /// Whether the reply names the key: reads only.
    pub with_key: bool,
    /// The fields that the reply repeats.
    pub envelope: Envelope,
    /// The key, 1 to [`crate::KEY_BYTES_MAX`] bytes with any values.
    pub key: &'a [u8],
    /// The cas unique that the item must have; 0 for any.
    pub compare_cas: u64,
    /// A number that is stored with the value and means nothing to the server: `SET`, `ADD` and `REPLACE`
    /// only, else 0.
    pub client_flags: u32,
    /// The exptime as sent, 0 for verbs without one; see [`Binary::exptime`]. [`DO_NOT_CREATE`] has a meaning
    /// of its own for `INCR` and `DECR`.
    pub expires: u32,
    /// The number to add or to subtract: `INCR` and `DECR` only, else 0.
    pub delta: u64,
    /// The number of the item that `INCR` or `DECR` creates on a miss; 0 for other verbs.
    pub initial: u64,
    /// Length of the value in bytes, at most [`crate::VALUE_LEN_MAX`]. The value follows the key, and nothing
    /// ends it.
    pub value_len: u32,
}

impl Binary<'_> {
    /// The exptime of the item.
    #[must_use]
    pub fn exptime(&self) -> Exptime {
        Exptime(i64::from(self.expires))
    }
}

/// The operations on a key. Whether the request is quiet, and whether its reply names the key, are fields of
/// [`Binary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum BinaryVerb {
    Get,
    Touch,
    GetAndTouch,
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Delete,
    Increment,
    Decrement,
}

impl BinaryVerb {
    /// Whether a value follows the key, which may be empty.
    #[must_use]
    pub const fn has_value(self) -> bool {
        matches!(self, Self::Set | Self::Add | Self::Replace | Self::Append | Self::Prepend)
    }
}

/// A request without a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinaryControl<'a> {
    /// The operation.
    pub verb: BinaryControlVerb<'a>,
    /// Whether success is not answered.
    pub quiet: bool,
    /// The fields that the reply repeats.
    pub envelope: Envelope,
}

/// The operations without a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BinaryControlVerb<'a> {
    /// `NOOP`: the request is answered and has no other effect.
    Noop,
    /// `VERSION`: the reply carries the version of the server.
    Version,
    /// `QUIT`: the connection closes.
    Quit,
    /// `FLUSH`: all items are invalidated, at once or later.
    Flush {
        /// The exptime as sent; 0, which is at once, when none was sent.
        expires: u32,
    },
    /// `STAT`: one reply for each stat, and an empty one after the last.
    Stat {
        /// The words that would follow `stats` in a text command.
        words: &'a [u8],
    },
    /// `SASL_LIST_MECHS`: the reply names the mechanisms of SASL.
    SaslList,
    /// `SASL_AUTH` or `SASL_STEP`: the first or a later step of SASL.
    SaslStep {
        /// The name of the mechanism, such as `PLAIN`.
        mechanism: &'a [u8],
        /// The data of the step, in the format of the mechanism.
        data: &'a [u8],
    },
    /// A request that is refused.
    Refused {
        /// The reason, which the reply shows.
        status: Status,
        /// Bytes after those consumed that belong to the request: skip them before the next parse.
        swallow: u32,
        /// Whether to close the connection after the reply.
        close: bool,
    },
}
