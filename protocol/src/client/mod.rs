//! The side of a proxy: writing of commands to the wire, and reading of replies from it.
//!
//! ```
//! use corecached_protocol::client::{Expected, ReplyEvent, ReplyParser, encode};
//! use corecached_protocol::{Command, Parsed, Reply, Retrieve};
//!
//! let get = Retrieve { key: b"k", with_cas: false, touch: None, last: true };
//! let mut out = Vec::new();
//! encode(&Command::Retrieve(get), b"", &mut out);
//! assert_eq!(out, b"get k\r\n");
//!
//! let mut parser = ReplyParser::new(64 * 1024);
//! let expected = Expected::Values { with_cas: false };
//! let miss = parser.parse(b"END\r\n", expected, [get.key]).unwrap();
//! assert_eq!(miss, Parsed::Complete { value: ReplyEvent::Reply(Reply::Miss), consumed: 0 });
//! let end = parser.parse(b"END\r\n", expected, []).unwrap();
//! assert_eq!(end, Parsed::Complete { value: ReplyEvent::End, consumed: 5 });
//! ```

mod encode;
mod expected;
mod reply_parser;
mod retrieval_line;
#[cfg(test)]
mod tests;

pub use encode::{encode, encode_as_sent, encode_line};
pub use expected::Expected;
pub use reply_parser::{Framing, REPLY_LINE_BYTES_MAX, ReplyEvent, ReplyParser};
pub use retrieval_line::RetrievalLine;
