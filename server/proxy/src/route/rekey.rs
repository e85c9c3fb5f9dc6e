//! Sending a request under another key, with the client's own key in the reply.

use bytes::{BufMut, Bytes, BytesMut};
use corecached_protocol::{MetaVerb, Reply};

use super::frame::{Parent, Step};
use super::node::SharedProgress;
use super::node_set::NodeId;
use crate::request::OwnedRequest;

/// The key was changed on the way: the reply is to show the client's own.
#[derive(Debug)]
pub(super) struct Rekeyed;

impl SharedProgress for Rekeyed {
    fn answer_to(&mut self, request: &OwnedRequest, _: u32, reply: Reply) -> Option<Reply> {
        Some(with_key_of(request, reply))
    }
}

/// Starts `changed` in place of `request`. Replies to meta commands may show the key: then they will show the
/// client's.
pub(super) fn start_rekeyed(
    step: &mut Step,
    node: NodeId,
    request: &OwnedRequest,
    changed: OwnedRequest,
    parent: Parent,
) {
    let shows_key = request.meta().is_some_and(|(verb, flags)| verb == MetaVerb::Debug || flags.has(b'k'));
    if !shows_key || parent == Parent::Nobody {
        return step.start(node, changed, parent);
    }
    step.open_with(node, request, parent, Rekeyed.into(), [(node, changed)]);
}

/// `reply` with the key of `request` in place of the one it shows.
pub(super) fn with_key_of(request: &OwnedRequest, reply: Reply) -> Reply {
    match reply {
        Reply::Meta { line, value } => {
            let command = request.command();
            let key = command.key().unwrap_or_default();
            Reply::Meta { line: with_key(&line, key), value }
        }
        reply => reply,
    }
}

/// `line` with `key` in place of the one it shows.
fn with_key(line: &[u8], key: &[u8]) -> Bytes {
    let mut changed = BytesMut::with_capacity(line.len() + key.len());
    let debug = line.starts_with(b"ME ");
    let value = line.starts_with(b"VA ");
    for (at, word) in line.split(|&byte| byte == b' ').enumerate() {
        if at > 0 {
            changed.put_u8(b' ');
        }
        if debug && at == 1 {
            changed.put_slice(key);
        } else if !debug && at > usize::from(value) && word.first() == Some(&b'k') {
            changed.put_u8(b'k');
            changed.put_slice(key);
        } else {
            changed.put_slice(word);
        }
    }
    changed.freeze()
}
