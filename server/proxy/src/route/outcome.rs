//! What a reply means to routes: a hit, a miss, an error; which of two is worse; what a retrieval does
//! besides; and replies that routes make up.

use bytes::{BufMut, Bytes, BytesMut};
use corecached_protocol::{ErrorKind, MetaVerb, Reply};

use crate::config::{ErrorSet, FailoverErrors};
use crate::request::{OperationClass, OwnedRequest};

/// How bad a reply is; the larger the worse.
pub(super) fn rank(reply: &Reply) -> u8 {
    match reply {
        Reply::Value { .. }
        | Reply::Stored
        | Reply::Deleted
        | Reply::Touched
        | Reply::Done
        | Reply::Number(_) => 0,
        Reply::Miss | Reply::NotStored | Reply::Exists | Reply::NotFound => 1,
        Reply::Meta { line, .. } => u8::from(matches!(line.get(..2), Some(b"EN" | b"NF" | b"NS" | b"EX"))),
        Reply::Error { kind, .. } => match kind {
            ErrorKind::Busy
            | ErrorKind::Timeout
            | ErrorKind::ConnectTimeout
            | ErrorKind::Connect
            | ErrorKind::Ejected
            | ErrorKind::Shutdown
            | ErrorKind::TryAgain => 2,
            ErrorKind::BadKey => 3,
            ErrorKind::Remote => 4,
            ErrorKind::Local => 5,
            ErrorKind::Client => 6,
        },
    }
}

/// Replies with equal numbers have the same result, whatever values they carry.
pub(super) fn result(reply: &Reply) -> u8 {
    match reply {
        Reply::Value { .. } => 0,
        Reply::Miss => 1,
        Reply::Stored => 2,
        Reply::NotStored => 3,
        Reply::Exists => 4,
        Reply::NotFound => 5,
        Reply::Deleted => 6,
        Reply::Touched => 7,
        Reply::Done => 8,
        Reply::Number(_) => 9,
        Reply::Meta { line, .. } => match line.get(..2) {
            Some(b"VA") => 10,
            Some(b"EN") => 11,
            Some(b"NF") => 12,
            Some(b"NS") => 13,
            Some(b"EX") => 14,
            _ => 15,
        },
        Reply::Error { kind, .. } => 16 + *kind as u8,
    }
}

/// Whether the key was there, or the command was carried out.
pub(super) fn is_hit(reply: &Reply) -> bool {
    rank(reply) == 0
}

/// The error of a reply.
pub(super) const fn error_kind(reply: &Reply) -> Option<ErrorKind> {
    match reply {
        Reply::Error { kind, .. } => Some(*kind),
        _ => None,
    }
}

/// Whether a failover goes on after `reply` to `request`.
pub(super) fn fails_over(errors: &FailoverErrors, class: OperationClass, reply: &Reply) -> bool {
    error_kind(reply).is_some_and(|kind| errors.for_class(class).has(kind))
}

/// Whether a retrieval shows a value and does nothing else: not a meta get that marks, refreshes or makes an
/// item.
pub(super) fn only_shows(request: &OwnedRequest) -> bool {
    request.meta().is_none_or(|(_, flags)| !flags.has(b'N') && !flags.has(b'R') && !flags.has(b'E'))
}

impl FailoverErrors {
    /// The errors after which a request of `class` goes on to another child.
    pub(super) const fn for_class(&self, class: OperationClass) -> ErrorSet {
        match class {
            OperationClass::Get => self.gets,
            OperationClass::Delete => self.deletes,
            OperationClass::Update | OperationClass::Arithmetic | OperationClass::Touch => self.updates,
        }
    }
}

/// An error of ours: `SERVER_ERROR ` and `text`.
pub(super) fn local_error(text: &str) -> Reply {
    let text = if text.is_empty() { "local error" } else { text };
    Reply::Error { kind: ErrorKind::Local, line: format!("SERVER_ERROR {text}").into() }
}

/// Some bound was reached.
pub(super) const fn busy() -> Reply {
    Reply::Error { kind: ErrorKind::Busy, line: Bytes::from_static(b"SERVER_ERROR 307 busy") }
}

/// The key cannot be sent.
pub(super) const fn bad_key() -> Reply {
    Reply::Error { kind: ErrorKind::BadKey, line: Bytes::from_static(b"CLIENT_ERROR bad key") }
}

/// The routing prefix of the key is not configured: the key can be sent nowhere.
pub(super) const fn no_route() -> Reply {
    Reply::Error { kind: ErrorKind::BadKey, line: Bytes::from_static(b"SERVER_ERROR RootRoute: No rh found") }
}

/// What an empty server would answer.
pub(super) fn null(request: &OwnedRequest) -> Reply {
    let Some((verb, flags)) = request.meta() else {
        return match request.class() {
            OperationClass::Get => Reply::Miss,
            OperationClass::Update => Reply::NotStored,
            OperationClass::Delete | OperationClass::Arithmetic | OperationClass::Touch => Reply::NotFound,
        };
    };
    let code = match verb {
        MetaVerb::Get | MetaVerb::Debug => {
            return Reply::Meta { line: Bytes::from_static(b"EN"), value: None };
        }
        MetaVerb::Set => "NS",
        MetaVerb::Delete | MetaVerb::Arithmetic => "NF",
    };
    // As a server does, with the opaque and the key in the order of the request.
    let mut line = BytesMut::from(code);
    for (letter, token) in flags.iter() {
        match letter {
            b'O' => {
                line.put_slice(b" O");
                line.put_slice(token);
            }
            b'k' => {
                line.put_slice(b" k");
                line.put_slice(request.command().key().unwrap_or_default());
            }
            b'b' => line.put_slice(b" b"),
            _ => {}
        }
    }
    Reply::Meta { line: line.freeze(), value: None }
}
