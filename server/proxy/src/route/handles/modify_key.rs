//! `ModifyKeyRoute`: requests go on under changed keys.

use std::convert::Infallible;

use bytes::Bytes;

use crate::request::{BadKey, OwnedRequest};
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::{outcome, rekey};

/// Changes keys.
#[derive(Debug)]
pub(in crate::route) struct ModifyKey {
    pub target: NodeId,
    pub set_routing_prefix: Option<Bytes>,
    pub ensure_key_prefix: Option<Bytes>,
    pub replace_key_prefix: Option<Bytes>,
    pub set_key_suffix: Option<Bytes>,
}

impl RouteNode for ModifyKey {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        match self.modified(&request) {
            Ok(modified) => rekey::start_rekeyed(step, self.target, &request, modified, parent),
            Err(BadKey) => step.answer(parent, outcome::bad_key()),
        }
    }
}

impl ModifyKey {
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

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use crate::route::tests::{Bench, meta};

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
}
