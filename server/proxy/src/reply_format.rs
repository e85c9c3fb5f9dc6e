//! The reply format: how the reply to a command is written to its client. Decided by the command, and kept
//! while the request is pending.

use corecached_protocol::binary::Envelope;
use corecached_protocol::{Command, MetaVerb, Reply, line, text};

use crate::binary::BinaryFormat;

/// The format of the reply to one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyFormat {
    /// One key of a retrieval line: the value, or nothing.
    Retrieve {
        /// The key is the last of its line: `END` follows.
        last: bool,
    },
    /// One line.
    Line,
    /// Nothing: the client sent `noreply`.
    Silence,
    /// A meta reply.
    Meta {
        /// The verb of the command.
        verb: MetaVerb,
        /// The flag `q`: the expected reply is left out.
        quiet: bool,
    },
    /// A reply of the binary protocol.
    Binary(BinaryFormat),
}

impl ReplyFormat {
    /// The format that `command` asks for.
    #[must_use]
    pub(crate) const fn for_command(command: &Command) -> Self {
        match command {
            Command::Retrieve(retrieve) => Self::Retrieve { last: retrieve.last },
            Command::Meta(meta) => Self::Meta { verb: meta.verb, quiet: meta.flags.has(b'q') },
            Command::Binary(binary) => Self::Binary(BinaryFormat::new(binary)),
            _ if command.noreply() => Self::Silence,
            _ => Self::Line,
        }
    }

    /// The format of the answer to `FLUSH` of the binary protocol.
    #[must_use]
    pub(crate) const fn for_binary_flush(quiet: bool, envelope: Envelope) -> Self {
        Self::Binary(BinaryFormat::for_flush(quiet, envelope))
    }

    /// Appends what the client gets for a value of `key`.
    #[inline]
    pub(crate) fn render_value(
        self,
        key: &[u8],
        client_flags: u32,
        cas_unique: Option<u64>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) {
        if let Self::Retrieve { .. } | Self::Binary(_) = self {
            self.render_value_head(key, client_flags, cas_unique, value.len() as u32, out);
            out.extend_from_slice(value);
            self.end_value(out);
        }
    }

    /// Appends what precedes the first byte of a value of `value_len` bytes.
    #[inline]
    pub(crate) fn render_value_head(
        self,
        key: &[u8],
        client_flags: u32,
        cas_unique: Option<u64>,
        value_len: u32,
        out: &mut Vec<u8>,
    ) {
        if let Self::Binary(binary) = self {
            return binary.render_hit(key, client_flags, cas_unique.unwrap_or(0), value_len as usize, out);
        }
        text::encode_value_header(out, key, client_flags, value_len, cas_unique);
    }

    /// Appends what precedes the first byte of the value of a reply to a meta command.
    #[inline]
    pub(crate) fn render_meta_head(self, key: &[u8], line: &[u8], value_len: u32, out: &mut Vec<u8>) {
        if let Self::Binary(binary) = self {
            return binary.render_meta_head(key, line, value_len as usize, out);
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends what the client gets for a reply to a meta command.
    #[inline]
    pub(crate) fn render_meta(self, key: &[u8], line: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
        if let Self::Binary(binary) = self {
            return binary.render_meta(key, line, value, out);
        }
        if let Self::Meta { verb, quiet: true } = self
            && is_expected(verb, line)
        {
            return;
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
        if let Some(value) = value {
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends what follows the last byte of a value.
    #[inline]
    pub(crate) fn end_value(self, out: &mut Vec<u8>) {
        if let Self::Binary(_) = self {
            return;
        }
        out.extend_from_slice(b"\r\n");
        if let Self::Retrieve { last: true } = self {
            out.extend_from_slice(line::END);
        }
    }

    /// Appends what the client gets for `reply`. `key` is the key as the client sent it.
    pub(crate) fn render(self, key: &[u8], reply: &Reply, out: &mut Vec<u8>) {
        match (self, reply) {
            (Self::Silence, _) => {}
            (Self::Binary(binary), reply) => binary.render(key, reply, out),
            (Self::Retrieve { last }, reply) => {
                match reply {
                    Reply::Value { client_flags, cas_unique, value } => {
                        self.render_value(key, *client_flags, *cas_unique, value, out);
                    }
                    // An error ends the whole line, whatever keys follow.
                    Reply::Error { .. } => render_line(reply, out),
                    _ if last => out.extend_from_slice(line::END),
                    _ => {}
                }
            }
            (_, Reply::Meta { line, value }) => self.render_meta(key, line, value.as_deref(), out),
            _ => render_line(reply, out),
        }
    }
}

/// Whether the flag `q` leaves the reply with this `line` out: a miss of `mg`, and success of the others.
fn is_expected(verb: MetaVerb, line: &[u8]) -> bool {
    let code = line.get(..2).unwrap_or_default();
    match verb {
        MetaVerb::Get => code == b"EN",
        MetaVerb::Set | MetaVerb::Delete | MetaVerb::Arithmetic => code == b"HD" || code == b"VA",
        MetaVerb::Debug => false,
    }
}

fn render_line(reply: &Reply, out: &mut Vec<u8>) {
    let constant: &[u8] = match reply {
        Reply::Stored => line::STORED,
        Reply::NotStored => line::NOT_STORED,
        Reply::Exists => line::EXISTS,
        Reply::NotFound => line::NOT_FOUND,
        Reply::Deleted => line::DELETED,
        Reply::Touched => line::TOUCHED,
        Reply::Done => line::OK,
        // Retrievals have a format of their own, and no other command is answered so.
        Reply::Miss | Reply::Value { .. } => line::END,
        Reply::Number(number) => return text::encode_number(out, *number),
        Reply::Meta { line, .. } | Reply::Error { line, .. } => {
            out.extend_from_slice(line);
            b"\r\n"
        }
    };
    out.extend_from_slice(constant);
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Limits, Parsed, Parser};

    use super::*;

    fn check(command: &str, reply: &Reply, expected: &str) {
        let input = format!("{command}\r\n");
        let Ok(Parsed::Complete { value: command, .. }) =
            Parser::new().parse(input.as_bytes(), &Limits::default())
        else {
            panic!("{command}");
        };
        let mut out = Vec::new();
        ReplyFormat::for_command(&command).render(b"k", reply, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected, "{input:?}");
    }

    #[test]
    fn a_reply_has_the_format_that_its_command_asks_for() {
        let value = |cas_unique| Reply::Value { client_flags: 7, cas_unique, value: "abc".into() };
        let error = Reply::Error { kind: ErrorKind::Timeout, line: "SERVER_ERROR timeout".into() };
        let meta = |line: &'static str| Reply::Meta { line: line.into(), value: None };
        check("get k", &value(None), "VALUE k 7 3\r\nabc\r\nEND\r\n");
        check("gets k", &value(Some(9)), "VALUE k 7 3 9\r\nabc\r\nEND\r\n");
        check("get k l", &value(None), "VALUE k 7 3\r\nabc\r\n");
        check("get k l", &Reply::Miss, "");
        check("get k", &Reply::Miss, "END\r\n");
        check("get k", &error, "SERVER_ERROR timeout\r\n");
        check("set k 0 0 1", &Reply::Stored, "STORED\r\n");
        check("set k 0 0 1", &error, "SERVER_ERROR timeout\r\n");
        check("set k 0 0 1 noreply", &Reply::Stored, "");
        check("delete k noreply", &error, "");
        check("incr k 1", &Reply::Number(12), "12\r\n");
        check("mg k v", &Reply::Meta { line: "VA 1".into(), value: Some("x".into()) }, "VA 1\r\nx\r\n");
        check("mg k v q", &meta("EN"), "");
        check("mg k q", &meta("HD"), "HD\r\n");
        check("ms k 1 q", &meta("HD"), "");
        check("ms k 1 q", &meta("NS"), "NS\r\n");
        check("md k q", &error, "SERVER_ERROR timeout\r\n");
    }
}
