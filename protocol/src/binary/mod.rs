//! The binary protocol: requests and replies of a header of 24 bytes and a body, numbers big endian.
//!
//! Deprecated since memcached 1.6.0, and what many clients still speak. A connection is binary when its first byte is
//! [`REQUEST_MAGIC`]. Grammar in `parse`, replies in `encode`; what is here names the parts of both.

mod encode;
mod parse;

pub use encode::*;
pub(crate) use parse::parse;

use crate::exptime::Exptime;

/// First byte of every request.
pub const REQUEST_MAGIC: u8 = 0x80;
/// First byte of every reply.
pub const REPLY_MAGIC: u8 = 0x81;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 24;
/// Longest body, in bytes, of the requests that are read whole: those that carry no value.
pub const BODY_BYTES_MAX: usize = 1024;
/// The exptime of `INCR` and `DECR` that asks not to create a missing item.
pub const DO_NOT_CREATE: u32 = u32::MAX;

/// What a reply says of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// Done.
    Ok = 0x00,
    /// There is no such item, or no such stat.
    NotFound = 0x01,
    /// There is one already, or its cas unique differs.
    Exists = 0x02,
    /// The value is over the item size limit.
    TooLarge = 0x03,
    /// The parts of the request do not fit its opcode. The connection closes.
    Invalid = 0x04,
    /// `APPEND`, `PREPEND`: nothing to add to, or too much of it.
    NotStored = 0x05,
    /// `INCR`, `DECR`: the stored value is no number.
    NonNumeric = 0x06,
    /// Not authenticated, or `FLUSH` where it is switched off.
    AuthError = 0x20,
    /// SASL wants another step.
    AuthContinue = 0x21,
    /// No such opcode.
    UnknownCommand = 0x81,
    /// No room, and none can be made.
    OutOfMemory = 0x82,
}

impl Status {
    /// The body of a reply of this status that carries nothing else.
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
        }
    }
}

/// What a reply repeats of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// As sent, quiet or not.
    pub opcode: u8,
    /// The client's own.
    pub opaque: u32,
}

/// A request on a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binary<'a> {
    /// What to do.
    pub verb: BinaryVerb,
    /// Reads: a miss is not answered. Others: success is not answered.
    pub quiet: bool,
    /// Reads: the reply names the key.
    pub with_key: bool,
    /// For the reply.
    pub envelope: Envelope,
    /// 1 to 250 bytes, of any kind.
    pub key: &'a [u8],
    /// Other than 0: only an item of this cas unique.
    pub compare_cas: u64,
    /// `SET`, `ADD`, `REPLACE`: opaque to the server.
    pub client_flags: u32,
    /// As sent; see [`Binary::exptime`].
    pub expires: u32,
    /// `INCR`, `DECR`
    pub delta: u64,
    /// `INCR`, `DECR` of a missing item: the number it is created with.
    pub initial: u64,
    /// Bytes of the value, which follow the key without anything behind them.
    pub value_len: u32,
}

impl Binary<'_> {
    /// When the item dies.
    #[must_use]
    pub fn exptime(&self) -> Exptime {
        Exptime(i64::from(self.expires))
    }
}

/// Requests on a key, quiet or not, with the key in the reply or not.
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
    /// Whether a value follows the key.
    #[must_use]
    pub const fn has_value(self) -> bool {
        matches!(self, Self::Set | Self::Add | Self::Replace | Self::Append | Self::Prepend)
    }
}

/// A request without a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinaryControl<'a> {
    /// What to do.
    pub verb: BinaryControlVerb<'a>,
    /// Success is not answered.
    pub quiet: bool,
    /// For the reply.
    pub envelope: Envelope,
}

/// What requests without a key ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BinaryControlVerb<'a> {
    /// Answered, and nothing else.
    Noop,
    /// The version.
    Version,
    /// Close the connection.
    Quit,
    /// Everything dies, at once or at an exptime.
    Flush {
        /// As sent; 0 when not sent.
        expires: u32,
    },
    /// One packet a stat, and an empty one.
    Stat {
        /// As behind `stats` in text.
        words: &'a [u8],
    },
    /// The mechanisms of SASL.
    SaslList,
    /// A first or a further step of SASL.
    SaslStep {
        /// `PLAIN`
        mechanism: &'a [u8],
        /// What the mechanism makes of it.
        data: &'a [u8],
    },
    /// A request that is none.
    Refused {
        /// Why.
        status: Status,
        /// Bytes behind those consumed that belong to it.
        swallow: u32,
        /// The connection closes.
        close: bool,
    },
}
