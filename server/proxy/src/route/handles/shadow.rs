//! `ShadowRoute`: copies of some requests go elsewhere too; nobody sees the replies to them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use crate::hash::{KeyPart, Ring, spooky};
use crate::request::{Operation, OwnedRequest};
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::{Next, NodeId};

/// Sends copies of some requests elsewhere.
#[derive(Debug)]
pub(in crate::route) struct Shadows {
    pub target: NodeId,
    /// The ring of the pool below, if there is one: tells which of its servers a key belongs to.
    pub ring: Option<Arc<Ring>>,
    pub shadows: Box<[ShadowNode]>,
    pub key_part: KeyPart,
}

/// Where copies of some requests go, and of which.
#[derive(Debug)]
pub(in crate::route) struct ShadowNode {
    pub target: NodeId,
    /// Only requests to these servers of the pool, from the one index to the other.
    pub index_range: Option<(u32, u32)>,
    /// Only keys with hashes from the one up to the other, of 2^32.
    pub hashes: (u64, u64),
    /// Only these keys, if there are any.
    pub keys: HashSet<Box<[u8]>>,
    /// The part of what is left, from 0 to 1.
    pub requests_fraction: f64,
}

impl RouteNode for Shadows {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        let mut copies = Vec::new();
        if step.calls.len() < step.calls_with_shadows_max {
            let hash = u64::from(spooky::spooky32(self.key_part.of(request.key()), 0));
            let server = self.ring.as_ref().map_or(0, |ring| ring.pick(request.key()) as u32);
            copies.extend(self.shadows.iter().filter(|shadow| {
                shadow.index_range.is_none_or(|(from, to)| (from..=to).contains(&server))
                    && (shadow.hashes.0..shadow.hashes.1).contains(&hash)
                    && (shadow.keys.is_empty() || shadow.keys.contains(request.key().as_ref()))
                    && (shadow.requests_fraction >= 1.0 || step.random.f64() < shadow.requests_fraction)
            }));
        }
        step.start(self.target, request.clone(), parent);
        for shadow in copies {
            step.start(shadow.target, request.clone(), Parent::Nobody);
        }
    }

    fn usual(&self, _: &[u8], _: Operation) -> Next {
        Next::Node(self.target)
    }

    fn late_delete(&self, _: &[u8], _: u64) -> Next {
        Next::Node(self.target)
    }
}

#[cfg(test)]
mod tests {
    use crate::route::tests::{Bench, TIMEOUT, error, value};

    #[test]
    fn shadows_get_copies_of_their_share_and_no_say() {
        let mut bench = Bench::new(
            r#"{"type": "PoolRoute", "pool": "a", "shadows": [{"target": "PoolRoute|b", "key_fraction_range": [0, 0.5]},
                {"target": "PoolRoute|c", "keys_to_shadow": ["k7"]}, {"target": "PoolRoute|d", "requests_fraction": 0}]}"#,
        );
        let (mut half, mut named) = (0, 0);
        for key in 0..200 {
            bench.ask(&format!("get k{key}"), "");
            assert_eq!(bench.reply(&format!("a get k{key}"), value("v")), Some(value("v")));
            for sent in bench.waiting().into_iter().map(str::to_owned).collect::<Vec<_>>() {
                half += usize::from(sent.starts_with('b'));
                named += usize::from(sent.starts_with("c get k7"));
                assert!(!sent.starts_with('d'));
                assert_eq!(bench.reply(&sent, error(TIMEOUT)), None);
            }
        }
        assert!((60..140).contains(&half), "{half}");
        assert_eq!(named, 1);
        bench.done();
    }
}
