//! `shard_splits` of a pool: the keys of a busy shard, `a:SHARD:b`, in several copies. Copy 0 keeps the key's name, the
//! others have two letters after the shard; each host uses one copy.

use std::collections::HashMap;
use std::convert::Infallible;

use crate::config::ShardSplit;
use crate::hash::murmur::murmur64a;
use crate::request::{BadKey, OperationClass, OwnedRequest};
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::worst::WorstReply;
use crate::route::{outcome, rekey};

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
    /// How many copies this host uses. While the number changes, each host turns to the new one at its own moment.
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
