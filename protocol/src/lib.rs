//! The memcached protocols: bytes to commands and replies, and back. The crate does no I/O, keeps no items
//! and holds no `unsafe`. It allocates nothing on its own but the bytes of a [`Reply`] and of an
//! [`OwnedCommand`]; encoders append to a `Vec<u8>` of the caller.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`Parser`] | the parser of one connection: the only way from bytes to commands |
//! | [`Command`] | one request of a client, borrowed from the bytes it was parsed from |
//! | [`CommandHead`], [`OwnedCommand`] | forms of a keyed command that outlive those bytes |
//! | [`ParseError`], [`Rejected`] | why a line is refused, what answers it, and where the next line begins |
//! | [`data_block`] | the value that follows a storage line |
//! | [`mod@line`] | every reply that is a constant |
//! | [`text`], [`meta`] | the grammar of the classic and of the meta commands, and their other replies |
//! | [`binary`] | the same for the binary protocol |
//! | [`client`] | the side of a proxy: writes commands to the wire and reads replies from it |
//! | [`Reply`] | one reply of a destination to a proxy |
//! | [`number`] | reading and writing of decimal digits |
//!
//! This is how a server reads commands and writes replies, which it appends to the output of the connection:
//!
//! ```
//! use corecached_protocol::{Command, Limits, Parsed, Parser, line};
//!
//! let (mut parser, limits) = (Parser::new(), Limits::default());
//! let (mut input, mut output) = (&b"get a b\r\nbogus\r\nget"[..], Vec::new());
//! loop {
//!     match parser.parse(input, &limits) {
//!         Ok(Parsed::Complete { value, consumed }) => {
//!             input = &input[consumed..];
//!             if let Command::Retrieve(one) = value && one.last {
//!                 output.extend_from_slice(line::END);
//!             }
//!         }
//!         Ok(Parsed::NeedMore) => break,
//!         Err(rejected) => {
//!             input = &input[rejected.consumed..];
//!             if !rejected.noreply {
//!                 output.extend_from_slice(rejected.error.line());
//!             }
//!         }
//!     }
//! }
//! assert_eq!(input, b"get");
//! assert_eq!(output, b"END\r\nERROR\r\n");
//! ```
#![forbid(unsafe_code)]

pub mod binary;
pub mod client;
mod command;
mod data;
mod error;
mod exptime;
pub mod line;
pub mod meta;
pub mod number;
mod parser;
mod reply;
mod scan;
pub mod text;
mod words;

pub use binary::{Binary, BinaryControl, BinaryControlVerb, BinaryVerb};
pub use command::*;
pub use data::{BadDataChunk, data_block};
pub use error::{ParseError, Rejected};
pub use exptime::*;
pub use meta::MetaKey;
pub use parser::{Limits, Parser, Wire};
pub use reply::{ErrorKind, Reply};

/// Largest value length that a storage line may announce, in bytes: value and CRLF together still fit a
/// signed 32-bit number. A line that announces more is refused as [`ParseError::BadValueLen`], and no bytes
/// are skipped after it.
pub const VALUE_LEN_MAX: u32 = (1 << 31) - 3;

const _: () = assert!(VALUE_LEN_MAX + 2 == i32::MAX as u32);

/// Longest key as sent, in bytes; a base64 key of a meta command is counted before it is decoded.
pub const KEY_BYTES_MAX: usize = 250;

/// The result of parsing the front of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The input begins with all of it.
    Complete {
        /// What was parsed.
        value: T,
        /// Bytes of the input that were used up; the next call begins after them.
        consumed: usize,
    },
    /// The input ends too early. Nothing was consumed: parse again, from the same byte, when more bytes have
    /// arrived.
    NeedMore,
}
