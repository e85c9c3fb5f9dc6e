//! The classic commands: their grammar, and those of their replies that are not constants.

mod encode;
mod parse;

pub use encode::{encode_number, encode_stat, encode_value_header, encode_version};
pub(crate) use parse::{Retrieval, data_block_bytes, parse, parse_value_len, plain_set};
