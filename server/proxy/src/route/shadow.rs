//! Copies of some requests for other places, whose replies nobody sees.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::hash::{KeyPart, Ring, spooky};
use super::super::request::OwnedRequest;
use super::frame::{Parent, Step};
use super::tree::NodeId;

/// See [`super::super::config::Handle::Shadow`].
#[derive(Debug)]
pub(super) struct Shadows {
    pub target: NodeId,
    /// Of a pool: which place of it a key belongs to.
    pub ring: Option<Arc<Ring>>,
    pub shadows: Box<[Shadow]>,
    pub key_part: KeyPart,
}

#[derive(Debug)]
pub(super) struct Shadow {
    pub target: NodeId,
    pub index_range: Option<(u32, u32)>,
    /// Hashes from the one up to the other, of 2^32.
    pub hashes: (u64, u64),
    pub keys: HashSet<Box<[u8]>>,
    pub requests_fraction: f64,
}

impl Shadows {
    /// `calls_max`: from so many requests under way on, no copies are made.
    pub fn start(&self, step: &mut Step, request: OwnedRequest, parent: Parent, calls_max: usize) {
        let mut copies = Vec::new();
        if step.calls.len() < calls_max {
            let hash = u64::from(spooky::spooky32(self.key_part.of(request.key()), 0));
            let place = self.ring.as_ref().map_or(0, |ring| ring.pick(request.key()) as u32);
            copies.extend(self.shadows.iter().filter(|shadow| {
                shadow.index_range.is_none_or(|(from, to)| (from..=to).contains(&place))
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
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, TIMEOUT, error, value};

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
