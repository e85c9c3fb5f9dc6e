//! Changing requests on their way: keys and exptimes.

use bytes::{BufMut, Bytes, BytesMut};
use corecached_protocol::{Exptime, MetaVerb, Reply};

use super::super::request::{BadKey, OwnedRequest, key_of};
use super::frame::{Frame, Parent, State, Step};
use super::outcome;
use super::tree::{NodeId, shorter};

/// See [`super::super::config::Handle::ModifyKey`].
#[derive(Debug)]
pub(super) struct ModifyKey {
    pub target: NodeId,
    pub set_routing_prefix: Option<Bytes>,
    pub ensure_key_prefix: Option<Bytes>,
    pub replace_key_prefix: Option<Bytes>,
    pub set_key_suffix: Option<Bytes>,
}

impl ModifyKey {
    pub fn start(&self, step: &mut Step, request: OwnedRequest, parent: Parent) {
        match self.modified(&request) {
            Ok(modified) => start_rekeyed(step, self.target, &request, modified, parent),
            Err(BadKey) => step.answer(parent, outcome::bad_key()),
        }
    }

    fn modified(&self, request: &OwnedRequest) -> Result<OwnedRequest, BadKey> {
        let mut key: &[u8] = request.key();
        let mut prefix: &[u8] = b"";
        if let Some(ensure) = self.ensure_key_prefix.as_deref()
            && !key.starts_with(ensure)
        {
            prefix = ensure;
            if let Some(rest) =
                self.replace_key_prefix.as_deref().and_then(|replace| key.strip_prefix(replace))
            {
                key = rest;
            }
        }
        let suffix = self.set_key_suffix.as_deref().unwrap_or_default();
        let modified = if prefix.is_empty() && suffix.is_empty() {
            request.clone()
        } else {
            request.with_key([prefix, key, suffix].concat().into())?
        };
        Ok(match &self.set_routing_prefix {
            Some(routing_prefix) => modified.with_prefix(routing_prefix.clone()),
            None => modified,
        })
    }
}

/// Starts `changed` in place of `request`. Replies to meta commands may show the key: then they will show the client's.
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
    step.open_with(node, request, parent, State::Rekey, [(node, changed)]);
}

/// Puts the client's key back into a reply.
pub(super) fn rekeyed(frame: &mut Frame, step: &mut Step, reply: Reply) {
    let reply = match reply {
        Reply::Meta { line, value } => {
            let command = frame.request.command();
            let key = key_of(&command).unwrap_or_default();
            Reply::Meta { line: with_key(&line, key), value }
        }
        reply => reply,
    };
    frame.answer(step, reply);
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

/// See [`super::super::config::Handle::ModifyExptime`].
#[derive(Debug)]
pub(super) struct ModifyExptime {
    pub target: NodeId,
    pub exptime_s: i64,
    pub min: bool,
}

impl ModifyExptime {
    pub fn start(&self, step: &mut Step, request: OwnedRequest, parent: Parent) {
        let request = match request.exptime() {
            Some(own) if self.min => request.with_exptime(shorter(own, self.exptime_s)),
            Some(_) => request.with_exptime(Exptime(self.exptime_s)),
            None => request,
        };
        step.start(self.target, request, parent);
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use super::super::tests::{Bench, meta};

    #[test]
    fn keys_are_modified_and_checked_again() {
        for (route, asked, sent) in [
            (r#""ensure_key_prefix": "p:""#, "k", "p:k"),
            (r#""ensure_key_prefix": "p:""#, "p:k", "p:k"),
            (r#""ensure_key_prefix": "p:", "replace_key_prefix": "q:""#, "q:k", "p:k"),
            (r#""set_key_suffix": ":s""#, "k", "k:s"),
        ] {
            let mut bench =
                Bench::new(&format!(r#"{{"type": "ModifyKeyRoute", "target": "PoolRoute|a", {route}}}"#));
            bench.ask(&format!("get {asked}"), "");
            bench.reply(&format!("a get {sent}"), Reply::Miss);
            bench.ask(&format!("mg {asked} k"), "");
            let line = format!("HD k{sent}");
            let answer = bench.reply(&format!("a meta-get {sent} k"), meta(&line));
            assert_eq!(answer, Some(meta(&format!("HD k{asked}"))));
            bench.done();
        }
        let mut bench =
            Bench::new(r#"{"type": "ModifyKeyRoute", "target": "PoolRoute|a", "set_key_suffix": "ss"}"#);
        let answer = bench.ask(&format!("get {}", "k".repeat(249)), "");
        assert!(
            matches!(answer, Some(Reply::Error { kind: ErrorKind::BadKey, ref line }) if line == "CLIENT_ERROR bad key")
        );
    }

    #[test]
    fn exptimes_are_set_or_shortened_but_not_of_deletes() {
        for (action, own, sent) in
            [("set", 100, 7), ("set", 0, 7), ("min", 100, 7), ("min", 3, 3), ("min", 0, 7)]
        {
            let mut bench = Bench::new(&format!(
                r#"{{"type": "ModifyExptimeRoute", "target": "PoolRoute|a", "exptime": 7, "action": "{action}"}}"#
            ));
            bench.ask(&format!("set k 0 {own} 1"), "x");
            bench.reply(&format!("a set k {sent} x"), Reply::Stored);
            bench.ask("delete k", "");
            bench.reply("a delete k", Reply::Deleted);
            bench.done();
        }
    }
}
