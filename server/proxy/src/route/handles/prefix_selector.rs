//! `PrefixSelectorRoute`: choosing by the prefix of the key.

use std::convert::Infallible;

use serde_json::{Map, Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::{Operation, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::{Next, NodeId};
use crate::route::tree::Tree;

/// `PrefixSelectorRoute`.
#[derive(Clone, Debug)]
pub(crate) struct PrefixSelectorRoute {
    /// The longest prefix first.
    policies: Vec<(String, HandleId)>,
    /// For other keys.
    wildcard: Option<HandleId>,
}

impl RouteHandle for PrefixSelectorRoute {
    const NAMES: &'static [&'static str] = &["PrefixSelectorRoute"];

    fn parse(builder: &mut Builder, written: &WrittenHandle) -> Checked<HandleId> {
        let json = written.json;
        if !written.top {
            let remedy = "may only stand directly under a route";
            return Err(builder.fault(json, written.key, written.name, remedy));
        }
        let mut policies: Vec<(String, HandleId)> = Vec::new();
        if let Some(written) = json.get("policies") {
            for (prefix, handle) in builder.object(written, "PrefixSelectorRoute.policies")? {
                let handle = builder.handle(handle, &format!("policies.{prefix}"), false)?;
                policies.push((prefix.clone(), handle));
            }
        }
        policies.sort_by(|one, other| other.0.len().cmp(&one.0.len()).then(one.0.cmp(&other.0)));
        let wildcard = match json.get("wildcard") {
            Some(wildcard) => Some(builder.handle(wildcard, "PrefixSelectorRoute.wildcard", false)?),
            None => None,
        };
        builder.push(Self { policies, wildcard }, json)
    }

    fn children(&self) -> Vec<Child> {
        let policies = self.policies.iter().map(|&(_, handle)| handle);
        self.wildcard.into_iter().chain(policies).map(Child::Handle).collect()
    }

    fn show(&self, config: &Config) -> Value {
        let policy = |(prefix, handle): &(String, HandleId)| (prefix.clone(), config.child_json(*handle));
        let policies: Map<String, Value> = self.policies.iter().map(policy).collect();
        json!({"policies": policies, "wildcard": self.wildcard.map(|handle| config.child_json(handle))})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let wildcard = match self.wildcard {
            Some(handle) => compiler.node(handle),
            None => compiler.error_node("no route for this key"),
        };
        let policy =
            |(prefix, handle): &(String, HandleId)| (prefix.as_bytes().into(), compiler.node(*handle));
        let policies = self.policies.iter().map(policy).collect();
        Ok(compiler.push(PrefixSelector { policies, wildcard }))
    }
}

/// By the longest of some prefixes that the key begins with.
#[derive(Debug)]
pub(in crate::route) struct PrefixSelector {
    /// The longest first.
    pub policies: Box<[(Box<[u8]>, NodeId)]>,
    /// For other keys.
    pub wildcard: NodeId,
}

impl PrefixSelector {
    #[inline]
    fn child(&self, key: &[u8]) -> NodeId {
        let found = self.policies.iter().find(|(prefix, _)| key.starts_with(prefix));
        found.map_or(self.wildcard, |&(_, node)| node)
    }
}

impl RouteNode for PrefixSelector {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {
        debug_assert!(self.policies.is_sorted_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len())));
    }

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        step.start(self.child(request.key()), request, parent);
    }

    #[inline]
    fn direct(&self, _: &Tree, key: &[u8], _: Operation) -> Next {
        Next::Node(self.child(key))
    }

    fn usual(&self, key: &[u8], _: Operation) -> Next {
        Next::Node(self.child(key))
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use crate::route::tests::Bench;

    #[test]
    fn the_longest_key_prefix_wins() {
        let mut bench = Bench::new(
            r#"{"type": "PrefixSelectorRoute", "policies": {"a": "PoolRoute|a", "ab": "PoolRoute|b"}, "wildcard": "PoolRoute|c"}"#,
        );
        for (key, host) in [("a", "a"), ("ax", "a"), ("ab", "b"), ("abc", "b"), ("b", "c")] {
            bench.ask(&format!("get {key}"), "");
            bench.reply(&format!("{host} get {key}"), Reply::Miss);
        }
        bench.done();
    }
}
