//! `shard_splits` of a pool: the keys of a busy shard, `a:SHARD:b`, in several copies. Copy 0 keeps the key's
//! name, the others have two letters after the shard; each host uses one copy.

use std::collections::HashMap;
use std::convert::Infallible;

use serde_json::{Map, Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, Json, JsonNode, WrittenHandle};
use crate::hash::murmur::murmur64a;
use crate::request::{BadKey, OperationClass, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::worst::WorstReply;
use crate::route::{outcome, rekey};

/// `shard_splits` of a pool. There is no such type in the configuration.
#[derive(Clone, Debug)]
pub(crate) struct ShardSplitRoute {
    pub target: HandleId,
    /// By shard, as its digits are written in keys.
    pub splits: Vec<(String, ShardSplit)>,
}

/// In how many copies the keys of a shard are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardSplit {
    /// Copies up to the change.
    old: u32,
    /// Copies from then on.
    new: u32,
    /// When hosts begin to turn to the new number, unix seconds; always, if the number does not change.
    start_s: i64,
    /// Seconds within which all have done so.
    period_s: i64,
}

impl ShardSplit {
    /// The most copies that two letters can tell apart.
    const MAX: u32 = 26 * 26 + 1;

    /// So many copies all the time.
    const fn constant(copies: u32) -> Self {
        Self { old: copies, new: copies, start_s: 0, period_s: 0 }
    }

    /// Copies that any host may use.
    const fn copies_max(&self) -> u32 {
        if self.old > self.new { self.old } else { self.new }
    }

    /// Reads `shard_splits` of a pool's handle.
    pub(crate) fn parse_all(builder: &Builder, json: &Json) -> Checked<Vec<(String, Self)>> {
        let Some(written) = json.get("shard_splits") else { return Ok(Vec::new()) };
        let mut splits = Vec::new();
        for (shard, split) in builder.object(written, "shard_splits")? {
            let key = format!("shard_splits.{shard}");
            let most = i64::from(Self::MAX);
            if shard.is_empty() || !shard.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(builder.fault(split, &key, shard, "must be the number of a shard"));
            }
            let split = match split.node {
                JsonNode::Int(copies) if (1..=most).contains(&copies) => Self::constant(copies as u32),
                JsonNode::Int(copies) if copies > most => {
                    let fault =
                        builder.fault(split, &key, &copies.to_string(), "is more than 677, which is taken");
                    tracing::warn!("{fault}");
                    Self::constant(Self::MAX)
                }
                JsonNode::Object(_) => {
                    let part = |name: &str, min: i64, max: i64| -> Checked<i64> {
                        let missing =
                            || builder.fault(split, &format!("{key}.{name}"), "", "is missing: a number");
                        builder.int_at(split, name, min, max)?.ok_or_else(missing)
                    };
                    Self {
                        old: part("old_split_size", 1, most)? as u32,
                        new: part("new_split_size", 1, most)? as u32,
                        start_s: part("split_start", 0, i64::from(u32::MAX))?,
                        period_s: part("migration_period", 0, i64::from(u32::MAX))?,
                    }
                }
                _ => {
                    let remedy = "must be a whole number from 1 to 677, or an object with old_split_size";
                    return Err(builder.wrong(split, &key, remedy));
                }
            };
            splits.push((shard.clone(), split));
        }
        Ok(splits)
    }
}

impl RouteHandle for ShardSplitRoute {
    const NAMES: &'static [&'static str] = &[];

    fn parse(builder: &mut Builder, written: &WrittenHandle) -> Checked<HandleId> {
        Err(builder.fault(
            written.json,
            written.key,
            written.name,
            "is written as \"shard_splits\" of a pool",
        ))
    }

    fn name(&self) -> &'static str {
        "ShardSplitRoute"
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.target)]
    }

    fn show(&self, config: &Config) -> Value {
        let split = |(shard, split): &(String, ShardSplit)| {
            let split = json!({
                "old_split_size": split.old,
                "new_split_size": split.new,
                "split_start": split.start_s,
                "migration_period": split.period_s,
            });
            (shard.clone(), split)
        };
        let splits: Map<String, Value> = self.splits.iter().map(split).collect();
        json!({"target": config.child_json(self.target), "shard_splits": splits})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let node = ShardSplits {
            target: compiler.node(self.target),
            splits: self.splits.iter().map(|(shard, split)| (shard.as_bytes().into(), *split)).collect(),
            host_id: compiler.config.options.host_id,
        };
        Ok(compiler.push(node))
    }
}

/// Keeps the keys of busy shards in several copies.
#[derive(Debug)]
pub(in crate::route) struct ShardSplits {
    pub target: NodeId,
    /// By the shard's digits.
    pub splits: HashMap<Box<[u8]>, ShardSplit>,
    pub host_id: u64,
}

impl RouteNode for ShardSplits {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let found = shard(request.key()).and_then(|(digits, end)| Some((self.splits.get(digits)?, end)));
        let Some((split, end)) = found else { return step.start(self.target, request, parent) };
        if request.class() == OperationClass::Delete {
            // Any host may have stored it, and one whose clock differs under the other number of copies.
            let copies: Result<Vec<_>, _> =
                (0..split.copies_max()).map(|at| copy(&request, end, at)).collect();
            return match copies {
                Ok(copies) => {
                    let started = copies.into_iter().map(|copy| (self.target, copy));
                    step.open_with(node, &request, parent, WorstReply::default().into(), started);
                }
                Err(BadKey) => step.answer(parent, outcome::bad_key()),
            };
        }
        let own = self.host_id % u64::from(self.copies(split, (step.now_ms / 1000) as i64));
        match copy(&request, end, own as u32) {
            Ok(own) => rekey::start_rekeyed(step, self.target, &request, own, parent),
            Err(BadKey) => step.answer(parent, outcome::bad_key()),
        }
    }
}

impl ShardSplits {
    /// How many copies this host uses. While the number changes, each host turns to the new one at its own
    /// moment.
    fn copies(&self, split: &ShardSplit, now_s: i64) -> u32 {
        let share = murmur64a(&self.host_id.to_le_bytes(), 0) % split.period_s.max(1) as u64;
        if now_s >= split.start_s.saturating_add(share as i64) { split.new } else { split.old }
    }
}

/// The digits between the first two colons of `key`, and where they end.
fn shard(key: &[u8]) -> Option<(&[u8], usize)> {
    let start = memchr::memchr(b':', key)? + 1;
    let len = memchr::memchr(b':', &key[start..])?;
    let digits = &key[start..start + len];
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some((digits, start + len))
}

/// Copy `at` of the key whose shard ends at `end`: `aa`, `ba` to `za`, `ab` and so on after it.
fn copy(request: &OwnedRequest, end: usize, at: u32) -> Result<OwnedRequest, BadKey> {
    let Some(letters) = at.checked_sub(1) else { return Ok(request.clone()) };
    let (before, after) = request.key().split_at(end);
    let letters = [b'a' + (letters % 26) as u8, b'a' + (letters / 26) as u8];
    request.with_key([before, &letters, after].concat().into())
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use crate::config::Options;
    use crate::route::tests::{Bench, POOLS, meta, options};

    fn bench(splits: &str, host_id: u64) -> Bench {
        let route = format!(r#"{{"type": "PoolRoute", "pool": "a", "shard_splits": {splits}}}"#);
        Bench::with(&format!("{{{POOLS}, \"route\": {route}}}"), &Options { host_id, ..options() })
    }

    #[test]
    fn each_host_uses_one_copy_of_a_split_shard_and_others_are_left_alone() {
        for (host_id, own) in [(0, "u:7:x"), (1, "u:7aa:x"), (2, "u:7ba:x"), (27, "u:7ab:x"), (30, "u:7:x")] {
            let mut bench = bench(r#"{"7": 30, "9": 1}"#, host_id);
            for (key, sent) in [
                ("u:7:x", own),
                ("u:8:x", "u:8:x"),
                ("u:9:x", "u:9:x"),
                ("u:7", "u:7"),
                ("u:7x:x", "u:7x:x"),
                ("7:u:7:", "7:u:7:"),
            ] {
                bench.ask(&format!("set {key} 0 0 1"), "v");
                assert_eq!(bench.reply(&format!("a set {sent} 0 v"), Reply::Stored), Some(Reply::Stored));
            }
            bench.ask("mg u:7:x k", "");
            let shown = bench.reply(&format!("a meta-get {own} k"), meta(&format!("HD k{own}")));
            assert_eq!(shown, Some(meta("HD ku:7:x")));
            bench.done();
        }
    }

    #[test]
    fn a_delete_goes_to_every_copy_and_answers_the_worst() {
        let mut bench = bench(r#"{"7": 3}"#, 1);
        bench.ask("delete u:7:x", "");
        assert_eq!(bench.waiting(), ["a delete u:7:x", "a delete u:7aa:x", "a delete u:7ba:x"]);
        bench.reply("a delete u:7:x", Reply::Deleted);
        bench.reply("a delete u:7aa:x", Reply::NotFound);
        assert_eq!(bench.reply("a delete u:7ba:x", Reply::Deleted), Some(Reply::NotFound));
        bench.done();
    }

    #[test]
    fn hosts_turn_to_a_new_number_of_copies_one_by_one() {
        let splits = r#"{"7": {"old_split_size": 1, "new_split_size": 600, "split_start": 1000, "migration_period": 100}}"#;
        let turned = |now_s: u64| {
            let turned = |host_id: u64| {
                let mut bench = bench(splits, host_id);
                bench.now_ms = now_s * 1000;
                bench.ask("get u:7:x", "");
                bench.waiting()[0] != "a get u:7:x"
            };
            (1..100).filter(|&host_id| turned(host_id)).count()
        };
        assert_eq!(turned(999), 0);
        let half = turned(1050);
        assert!((25..75).contains(&half), "{half}");
        assert_eq!(turned(1100), 99);
    }

    #[test]
    fn a_key_without_room_for_the_letters_is_refused() {
        let mut bench = bench(r#"{"7": 2}"#, 1);
        let key = format!("u:7:{}", "x".repeat(246));
        for command in ["get", "delete"] {
            let answer = bench.ask(&format!("{command} {key}"), "");
            assert!(matches!(answer, Some(Reply::Error { kind: ErrorKind::BadKey, .. })), "{answer:?}");
        }
        bench.done();
    }
}
