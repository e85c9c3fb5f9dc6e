//! `PrefixSelectorRoute`: choosing by the prefix of the key.

use std::convert::Infallible;

use crate::request::{Operation, OwnedRequest};
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::{Next, NodeId};
use crate::route::tree::Tree;

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
