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

/// Of which keys copies are made.
#[derive(Clone, Debug)]
enum ShadowedKeys {
    /// Of these.
    Named(Vec<String>),
    /// Of those of some servers of a pool whose hash lies in a part.
    Part {
        /// The indices of the servers, from the one up to the other.
        servers: (u32, u32),
        /// Part of 2^32, from the one to the other, both from 0 to 1.
        hashes: (f64, f64),
    },
}

/// Where copies of some requests go, and of which.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    target: HandleId,
    keys: ShadowedKeys,
    /// The part of what is left, at random, from 0 to 1.
    requests_fraction: f64,
}

impl RouteHandle for ShadowRoute {
    const NAMES: &'static [&'static str] = &["ShadowRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let part = if json.get("children").is_some() { "children" } else { Builder::target_part(json) };
        let target = builder.handle_at(json, name, part)?;
        let shadows = Shadow::parse_all(builder, json)?;
        builder.push(Self { target, shadows }, json)
    }

    fn children(&self) -> Vec<Child> {
        let shadows = self.shadows.iter().map(|shadow| shadow.target);
        std::iter::once(self.target).chain(shadows).map(Child::Handle).collect()
    }

    fn show(&self, config: &Config) -> Value {
        let shadow = |shadow: &Shadow| {
            let mut shown = json!({
                "target": config.child_json(shadow.target),
                "requests_fraction": shadow.requests_fraction,
            });
            match &shadow.keys {
                ShadowedKeys::Named(keys) => shown["keys_to_shadow"] = json!(keys),
                ShadowedKeys::Part { servers, hashes } => {
                    shown["index_range"] = json!([servers.0, servers.1]);
                    shown["key_fraction_range"] = json!([hashes.0, hashes.1]);
                }
            }
            shown
        };
        let shadows: Vec<Value> = self.shadows.iter().map(shadow).collect();
        json!({"target": config.child_json(self.target), "shadows": shadows})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let target = compiler.node(self.target);
        let hash = |part: f64| (part * f64::from(u32::MAX)) as u32;
        let shadow = |shadow: &Shadow| ShadowNode {
            target: compiler.node(shadow.target),
            keys: match &shadow.keys {
                ShadowedKeys::Named(keys) => {
                    NodeKeys::Named(keys.iter().map(|key| key.as_bytes().into()).collect())
                }
                &ShadowedKeys::Part { servers, hashes } => {
                    NodeKeys::Part { servers, hashes: (hash(hashes.0), hash(hashes.1)) }
                }
            },
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
            let servers = match &builder.numbers_at(one, "index_range", f64::from(u32::MAX))?[..] {
                [] => None,
                &[from, to] if from <= to => Some((from as u32, to as u32)),
                _ => return Err(builder.wrong(one, "shadows.index_range", "must be [from, to]")),
            };
            let hashes = match &builder.numbers_at(one, "key_fraction_range", 1.0)?[..] {
                [] => None,
                &[from, to] if from <= to => Some((from, to)),
                _ => {
                    let remedy = "must be [from, to] within 0 to 1";
                    return Err(builder.wrong(one, "shadows.key_fraction_range", remedy));
                }
            };
            let named = builder.texts_at(one, "keys_to_shadow")?;
            let keys = match (named.is_empty(), servers, hashes) {
                (false, None, None) => ShadowedKeys::Named(named),
                (false, ..) => {
                    let remedy = "stands alone: leave out index_range and key_fraction_range";
                    return Err(builder.wrong(one, "shadows.keys_to_shadow", remedy));
                }
                (true, Some(servers), Some(hashes)) => ShadowedKeys::Part { servers, hashes },
                // As in mcrouter, of which the other part is empty then.
                (true, ..) => {
                    tracing::warn!(
                        "a shadow copies nothing: give it index_range and key_fraction_range, or keys_to_shadow"
                    );
                    continue;
                }
            };
            shadows.push(Self {
                target,
                keys,
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
    pub keys: NodeKeys,
    /// The part of what is left, from 0 to 1.
    pub requests_fraction: f64,
}

/// Of which keys copies are made.
#[derive(Debug)]
pub(in crate::route) enum NodeKeys {
    /// Of these, by what is hashed of them.
    Named(HashSet<Box<[u8]>>),
    /// Of those of the servers from the one index up to the other, with hashes from the one to the other.
    Part { servers: (u32, u32), hashes: (u32, u32) },
}

impl RouteNode for Shadows {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        let mut copies = Vec::new();
        if step.calls.len() < step.calls_with_shadows_max {
            let part = self.key_part.part_of(request.key());
            let hash = spooky::spooky32(part, 0);
            let server = self.ring.as_ref().map_or(0, |ring| ring.pick(request.key()) as u32);
            copies.extend(self.shadows.iter().filter(|shadow| {
                let is_named = match &shadow.keys {
                    NodeKeys::Named(keys) => keys.contains(part),
                    NodeKeys::Part { servers, hashes } => {
                        (servers.0..servers.1).contains(&server) && (hashes.0..=hashes.1).contains(&hash)
                    }
                };
                is_named && (shadow.requests_fraction >= 1.0 || step.random.f64() < shadow.requests_fraction)
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
    use crate::route::tests::{Bench, TIMEOUT, error, options, value};

    #[test]
    fn shadows_get_copies_of_their_share_and_no_say() {
        let mut bench = Bench::new(
            r#"{"type": "PoolRoute", "pool": "a", "shadows": [
                {"target": "PoolRoute|b", "index_range": [0, 1], "key_fraction_range": [0, 0.5]},
                {"target": "PoolRoute|c", "keys_to_shadow": ["k7"]},
                {"target": "PoolRoute|d", "index_range": [0, 1], "key_fraction_range": [0, 1], "requests_fraction": 0}]}"#,
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

    #[test]
    fn a_shadow_copies_what_is_named_and_nothing_by_default() {
        for (shadow, copied) in [
            ("", false),
            (r#", "index_range": [0, 9]"#, false),
            (r#", "key_fraction_range": [0, 1]"#, false),
            (r#", "index_range": [0, 1], "key_fraction_range": [0, 1]"#, true),
            // The second index is the first that is left out.
            (r#", "index_range": [0, 0], "key_fraction_range": [0, 1]"#, false),
            (r#", "index_range": [1, 2], "key_fraction_range": [0, 1]"#, false),
            (r#", "keys_to_shadow": ["k"]"#, true),
            (r#", "keys_to_shadow": ["k|#|more"]"#, false),
        ] {
            for target in [r#""target": "PoolRoute|a""#, r#""children": ["PoolRoute|a"]"#] {
                let mut bench = Bench::new(&format!(
                    r#"{{"type": "ShadowRoute", {target}, "shadows": [{{"target": "PoolRoute|b"{shadow}}}]}}"#
                ));
                bench.ask("get k|#|more", "");
                assert_eq!(bench.waiting().len(), 1 + usize::from(copied), "{shadow}");
                for sent in bench.waiting().into_iter().map(str::to_owned).collect::<Vec<_>>() {
                    bench.reply(&sent, value("v"));
                }
                bench.done();
            }
        }
    }

    #[test]
    fn shadows_of_a_pool_follow_its_servers() {
        let mut bench = Bench::with(
            r#"{"pools": {"two": {"servers": ["a:1", "b:1"]}, "c": {"servers": ["c:1"]}},
                "route": {"type": "PoolRoute", "pool": "two", "shadows": [
                    {"target": "PoolRoute|c", "index_range": [1, 2], "key_fraction_range": [0, 1]}]}}"#,
            &options(),
        );
        let mut servers = [0, 0];
        for key in 0..50 {
            bench.ask(&format!("get k{key}"), "");
            let sent: Vec<String> = bench.waiting().into_iter().map(str::to_owned).collect();
            let second = sent.iter().any(|sent| sent.starts_with('b'));
            assert_eq!(sent.len(), 1 + usize::from(second), "{sent:?}");
            servers[usize::from(second)] += 1;
            for sent in sent {
                bench.reply(&sent, value("v"));
            }
        }
        assert!(servers[0] > 10 && servers[1] > 10, "{servers:?}");
        bench.done();
    }
}
