//! Bytes to commands and replies, both directions. No I/O, no storage, no unsafe; no allocation, but for
//! the bytes of a [`Reply`].
//!
//! | module | what it is |
//! | --- | --- |
//! | [`Parser`] | where a connection stands between two commands; the one way in |
//! | [`Command`] | what a client asked for, borrowed from the bytes it came in |
//! | [`ParseError`], [`Rejected`] | what was wrong with a line, its answer, and where the next line begins |
//! | [`data_block`] | the value that follows a storage line |
//! | [`mod@line`] | every reply that is a constant |
//! | [`text`], [`meta`] | replies with something to fill in, and the grammar of the two families |
//! | [`binary`] | the same for the binary protocol |
//! | [`client`] | the side of a proxy: commands to the wire, replies from it |
//! | [`Reply`] | what a destination answers to a proxy |
//! | [`number`] | decimal digits, both ways |
//!
//! A server reads commands like this; a reply goes to the output of the connection, a `Vec<u8>`.
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

/// Largest value length a storage line may announce, in bytes: with its CRLF it still fits a signed 32-bit number.
/// A larger one is a bad line, not a large value, and nothing of it is skipped.
pub const VALUE_LEN_MAX: u32 = (1 << 31) - 3;

/// Longest key in bytes, in base64 before decoding.
pub const KEY_BYTES_MAX: usize = 250;

/// What came of looking at the front of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// It is all there.
    Complete {
        /// What was read.
        value: T,
        /// Bytes of the input that it took; the next look begins behind them.
        consumed: usize,
    },
    /// The input is a proper beginning: look again, from the same byte, when there is more of it.
    NeedMore,
}
