//! `ModifyKeyRoute`: requests go on under changed keys.

use std::convert::Infallible;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle, normal_prefix};
use crate::request::{BadKey, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::{outcome, rekey};

/// `ModifyKeyRoute`.
#[derive(Clone, Debug)]
pub(crate) struct ModifyKeyRoute {
    target: HandleId,
    /// A new routing prefix.
    set_routing_prefix: Option<String>,
    /// Put in front of the key unless it is there.
    ensure_key_prefix: Option<String>,
    /// What `ensure_key_prefix` replaces.
    replace_key_prefix: Option<String>,
    /// Put after the key.
    set_key_suffix: Option<String>,
}

impl RouteHandle for ModifyKeyRoute {
    const NAMES: &'static [&'static str] = &["ModifyKeyRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let part = |builder: &Builder, key: &str| -> Checked<Option<String>> {
            let text = builder.text_at(json, key)?;
            match &text {
                Some(text) if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) || text.len() > 250 => {
                    let key = format!("ModifyKeyRoute.{key}");
                    Err(builder.fault(json, &key, text, "must be a part of a key"))
                }
                _ => Ok(text),
            }
        };
        let set_routing_prefix = match builder.text_at(json, "set_routing_prefix")? {
            None => None,
            Some(prefix) if prefix.is_empty() => Some(prefix),
            Some(prefix) => Some(normal_prefix(&prefix).ok_or_else(|| {
                let remedy = "must be \"/region/cluster/\"";
                builder.fault(json, "ModifyKeyRoute.set_routing_prefix", &prefix, remedy)
            })?),
        };
        let (ensure, replace) = (part(builder, "ensure_key_prefix")?, part(builder, "replace_key_prefix")?);
        if replace.is_some() && ensure.is_none() {
            let remedy = "needs ensure_key_prefix, which comes in its place";
            return Err(builder.fault(json, "ModifyKeyRoute.replace_key_prefix", "", remedy));
        }
        let route = Self {
            target: builder.handle_at(json, name, "target")?,
            set_routing_prefix,
            ensure_key_prefix: ensure,
            replace_key_prefix: replace,
            set_key_suffix: part(builder, "set_key_suffix")?,
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.target)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "target": config.child_json(self.target),
            "set_routing_prefix": self.set_routing_prefix,
            "ensure_key_prefix": self.ensure_key_prefix,
            "replace_key_prefix": self.replace_key_prefix,
            "set_key_suffix": self.set_key_suffix,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let bytes = |text: &Option<String>| text.clone().map(Into::into);
        let node = ModifyKey {
            target: compiler.node(self.target),
            set_routing_prefix: bytes(&self.set_routing_prefix),
            ensure_key_prefix: bytes(&self.ensure_key_prefix),
            replace_key_prefix: bytes(&self.replace_key_prefix),
            set_key_suffix: bytes(&self.set_key_suffix),
        };
        Ok(compiler.push(node))
    }
}

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
