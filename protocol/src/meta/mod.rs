//! The meta commands: their grammar, their base64 keys and their replies.

mod encode;
mod flags;
mod key;
mod parse;

pub use encode::{MetaCode, MetaDebug, MetaItem, encode_debug, encode_header, is_hidden};
pub use key::MetaKey;
pub(crate) use parse::{parse, verb};
