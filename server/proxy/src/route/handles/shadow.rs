//! `ShadowRoute`: copies of some requests go elsewhere too; nobody sees the replies to them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, Json, WrittenHandle};
use crate::hash::{KeyPart, Ring, spooky};
use crate::request::{Operation, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::{Next, NodeId};

/// `ShadowRoute`, and `shadows` of a pool.
#[derive(Clone, Debug)]
pub(crate) struct ShadowRoute {
    /// Replies to it are the answers.
    pub target: HandleId,
    pub shadows: Vec<Shadow>,
}

/// Where copies of some requests go, and of which.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    target: HandleId,
    /// Only requests to these servers of a pool, from the one index to the other.
    index_range: Option<(u32, u32)>,
    /// Only keys whose hash lies in this part of 2^32, from 0 to 1.
    key_fraction: (f64, f64),
    /// Only these keys, if any are named.
    keys: Vec<String>,
    /// The part of what is left, at random, from 0 to 1.
    requests_fraction: f64,
}

impl RouteHandle for ShadowRoute {
    const NAMES: &'static [&'static str] = &["ShadowRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let target = builder.handle_at(json, name, Builder::target_part(json))?;
        let shadows = Shadow::parse_all(builder, json)?;
        builder.push(Self { target, shadows }, json)
    }

    fn children(&self) -> Vec<Child> {
        let shadows = self.shadows.iter().map(|shadow| shadow.target);
        std::iter::once(self.target).chain(shadows).map(Child::Handle).collect()
    }

    fn show(&self, config: &Config) -> Value {
        let shadow = |shadow: &Shadow| {
            json!({
                "target": config.child_json(shadow.target),
                "index_range": shadow.index_range.map(|(from, to)| [from, to]),
                "key_fraction_range": [shadow.key_fraction.0, shadow.key_fraction.1],
                "keys_to_shadow": shadow.keys,
                "requests_fraction": shadow.requests_fraction,
            })
        };
        let shadows: Vec<Value> = self.shadows.iter().map(shadow).collect();
        json!({"target": config.child_json(self.target), "shadows": shadows})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let target = compiler.node(self.target);
        let whole = 2_f64.powi(32);
        let shadow = |shadow: &Shadow| ShadowNode {
            target: compiler.node(shadow.target),
            index_range: shadow.index_range,
            hashes: ((shadow.key_fraction.0 * whole) as u64, (shadow.key_fraction.1 * whole) as u64),
            keys: shadow.keys.iter().map(|key| key.as_bytes().into()).collect(),
            requests_fraction: shadow.requests_fraction,
        };
        let shadows = self.shadows.iter().map(shadow).collect();
        let ring = compiler.ring_below(target);
        Ok(compiler.push(Shadows { target, ring, shadows, key_part: KeyPart::hash_stop() }))
    }
}

impl Shadow {
    /// `shadows` of a handle.
    pub(crate) fn parse_all(builder: &mut Builder, json: &Json) -> Checked<Vec<Self>> {
        let Some(list) = json.get("shadows") else { return Ok(Vec::new()) };
        let mut shadows = Vec::new();
        for one in builder.list(list, "shadows")? {
            let target = builder.handle_at(one, "shadows", "target")?;
            let index_range = match &builder.numbers_at(one, "index_range", f64::from(u32::MAX))?[..] {
                [] => None,
                &[from, to] if from <= to => Some((from as u32, to as u32)),
                _ => return Err(builder.wrong(one, "shadows.index_range", "must be [from, to]")),
            };
            let fraction = builder.numbers_at(one, "key_fraction_range", 1.0)?;
            let rv = builder.numbers_at(one, "key_fraction_range_rv", 1.0)?;
            let key_fraction = match (&fraction[..], &rv[..]) {
                ([], []) => (0.0, 1.0),
                (&[from, to], []) | ([], &[from, to]) if from <= to => (from, to),
                _ => {
                    let remedy = "must be [from, to] within 0 to 1";
                    return Err(builder.wrong(one, "shadows.key_fraction_range", remedy));
                }
            };
            shadows.push(Self {
                target,
                index_range,
                key_fraction,
                keys: builder.texts_at(one, "keys_to_shadow")?,
                requests_fraction: builder.number_at(one, "requests_fraction", 1.0, 0.0, 1.0)?,
            });
        }
        Ok(shadows)
    }
}

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
            let hash = u64::from(spooky::spooky32(self.key_part.part_of(request.key()), 0));
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
