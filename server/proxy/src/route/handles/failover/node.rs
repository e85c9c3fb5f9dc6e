//! The node of the handles that fail over: a request goes to the first child, and to others while the reply
//! is an error.

use std::cell::Cell;
use std::sync::Arc;

use corecached_protocol::{ErrorKind, Reply};

use super::hashed_order::HashedOrder;
use super::salted_order::SaltedOrder;
use crate::config::{FailoverErrors, Limit};
use crate::hash::{KeyPart, Ring, rendezvous};
use crate::request::OwnedRequest;
use crate::route::bucket::Bucket;
use crate::route::frame::{Frame, Parent, Step};
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::{NodeId, RingBelow};
use crate::route::outcome;
use crate::route::refused::Refused;
use crate::route::slab::SlotId;
use crate::route::tree::shorter;

/// To the first child, and to others while the reply is an error.
#[derive(Debug)]
pub(in crate::route) struct Failover {
    pub children: Box<[NodeId]>,
    pub errors: FailoverErrors,
    pub order: Order,
    /// Children that are tried, at most.
    pub tries_max: usize,
    /// Errors, at most; those of ejected destinations are not counted, since nothing was sent.
    pub error_tries_max: usize,
    pub limit: Option<Limit>,
    pub exptime_max_s: Option<i64>,
}

/// In what order the children are tried.
#[derive(Debug)]
pub(in crate::route) enum Order {
    Written,
    /// The first, then those with the fewest errors since their last success.
    LeastFailures,
    /// The first, then by a hash of the key with one salt after the other.
    Hashed(HashedOrder),
    /// The first, which is a pool, then the servers of that pool.
    Salted(SaltedOrder),
    /// The first, then the others by rendezvous of the key and the hash of a tag for each of them.
    Rendezvous {
        tags: Box<[u64]>,
        /// The ring of the pool that child 0 is, if it is one: child `at + 1` is its server `at`, which has failed
        /// then.
        own: Option<Arc<Ring>>,
    },
}

/// What a shard remembers of the children.
#[derive(Debug)]
pub(in crate::route) struct FailoverHistory {
    /// Errors of each child since its last success.
    failures: Box<[Cell<u32>]>,
    bucket: Option<Bucket>,
}

/// One request, and which children it was sent to.
#[derive(Debug)]
pub(in crate::route) struct FailoverProgress {
    /// Children in the order they are tried; empty until the first failure, when it is as written up to
    /// there.
    order: Vec<u32>,
    tried: usize,
    error_tries: usize,
    refused: Refused,
}

impl RouteNode for Failover {
    type State = FailoverHistory;
    type Progress = FailoverProgress;

    fn state(&self) -> FailoverHistory {
        assert!(!self.children.is_empty(), "a failover has a first child");
        FailoverHistory {
            failures: self.children.iter().map(|_| Cell::new(0)).collect(),
            bucket: self.limit.map(Bucket::full),
        }
    }

    fn start(
        &self,
        history: &FailoverHistory,
        step: &mut Step,
        node: NodeId,
        request: OwnedRequest,
        parent: Parent,
    ) {
        if let (Some(bucket), Some(limit)) = (&history.bucket, self.limit) {
            bucket.fill(limit.rate, limit); // tokens come with requests
        }
        let progress = Self::waiting(FailoverProgress {
            order: Vec::new(),
            tried: 1,
            error_tries: 0,
            refused: Refused::Nobody,
        });
        let Some(slot) = step.open(node, request.clone(), parent, progress) else { return };
        if let Some(mut frame) = step.frames.take(slot) {
            frame.start_child(step, slot, self.children[0], request, 0);
            step.frames.put_back(slot, frame);
        }
    }

    fn replied(
        &self,
        history: &FailoverHistory,
        frame: &mut Frame,
        step: &mut Step,
        slot: SlotId,
        child: u32,
        reply: Reply,
    ) {
        let class = frame.request.class();
        let failures = &history.failures[child as usize];
        if !outcome::fails_over(&self.errors, class, &reply) {
            failures.set(0);
            return frame.answer(step, reply);
        }
        failures.set(failures.get().saturating_add(1));
        let Some(progress) = Self::in_progress(&mut frame.progress) else { return };
        let was_sent = outcome::error_kind(&reply) != Some(ErrorKind::Ejected);
        if was_sent {
            progress.error_tries += 1;
        }
        if progress.order.is_empty() {
            progress.order = self.full_order(frame.request.key(), Some(&history.failures));
            progress.order.truncate(self.tries_max);
        }
        let exhausted =
            progress.tried >= progress.order.len() || progress.error_tries >= self.error_tries_max;
        progress.refused.heard(child, &reply);
        let again = if exhausted { progress.refused.ask_again() } else { None };
        if let Some(child) = again {
            let request = self.request_for(child, &frame.request);
            return frame.start_child(step, slot, self.children[child as usize], request, child);
        }
        // A destination that is known to be dead costs the next one nothing that it would not get anyway.
        let is_limited = was_sent && history.bucket.as_ref().is_some_and(|bucket| !bucket.take());
        if exhausted || is_limited {
            return frame.answer(step, reply);
        }
        let next = progress.order[progress.tried];
        progress.tried += 1;
        let request = self.request_for(next, &frame.request);
        frame.start_child(step, slot, self.children[next as usize], request, next);
    }

    /// With a limit nobody knows: its last token may be taken meanwhile.
    fn has_another(&self, progress: &FailoverProgress, request: &OwnedRequest) -> bool {
        let order = match &self.order {
            _ if !progress.order.is_empty() => progress.order.len(),
            Order::Salted(salted) => salted.servers as usize,
            // One of them may be where child 0 sends to.
            Order::Hashed(HashedOrder { own: Some(_), .. }) | Order::Rendezvous { own: Some(_), .. } => {
                self.children.len() - 1
            }
            _ => self.children.len(),
        };
        self.limit.is_none()
            && self.errors.for_class(request.class()).has(ErrorKind::Busy)
            && progress.tried < order.min(self.tries_max)
            && progress.error_tries + 1 < self.error_tries_max
    }

    fn ring_below(&self) -> RingBelow {
        match &self.order {
            Order::Salted(SaltedOrder { own: Some(ring), .. })
            | Order::Hashed(HashedOrder { own: Some(ring), .. }) => RingBelow::Ring(Arc::clone(ring)),
            _ => RingBelow::None,
        }
    }
}

impl Failover {
    /// What `child` gets: others than the first get a shorter TTL for what they store.
    fn request_for(&self, child: u32, request: &OwnedRequest) -> OwnedRequest {
        match (self.exptime_max_s, request.exptime()) {
            (Some(max_s), Some(own)) if child > 0 => request.with_exptime(shorter(own, max_s)),
            _ => request.clone(),
        }
    }

    /// All children in the order they are tried after the first failed.
    fn full_order(&self, key: &[u8], failures: Option<&[Cell<u32>]>) -> Vec<u32> {
        let count = self.children.len() as u32;
        let mut order: Vec<u32> = (0..count).collect();
        match (&self.order, failures) {
            (Order::LeastFailures, Some(failures)) => {
                order[1..].sort_by_key(|&child| failures[child as usize].get());
            }
            (Order::Salted(salted), _) => return salted.order(key),
            (Order::Hashed(hashed), _) => return hashed.order(key),
            (Order::Rendezvous { tags, own }, _) => {
                rendezvous::rendezvous_order(KeyPart::hash_stop().part_of(key), tags, &mut order);
                let own = own.as_ref().map(|ring| ring.pick(key) as u32);
                order.retain(|&child| Some(child) != own);
                order.iter_mut().for_each(|child| *child += 1);
                order.insert(0, 0);
            }
            _ => {}
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use crate::config::Options;
    use crate::route::tests::{Bench, POOLS, TIMEOUT, error, options, value};

    #[test]
    fn failover_goes_on_while_the_reply_is_an_error() {
        let mut bench = Bench::new(
            r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#,
        );
        assert_eq!(bench.get(), None);
        assert_eq!(bench.reply("a get k", Reply::Miss), Some(Reply::Miss)); // a miss is no error
        bench.get();
        assert_eq!(bench.reply("a get k", error(TIMEOUT)), None);
        assert_eq!(bench.reply("b get k", error(ErrorKind::Ejected)), None);
        assert_eq!(bench.reply("c get k", value("v")), Some(value("v")));
        bench.get();
        for host in ["a", "b"] {
            assert_eq!(bench.reply(&format!("{host} get k"), error(TIMEOUT)), None);
        }
        let last = error(ErrorKind::Connect);
        assert_eq!(bench.reply("c get k", last.clone()), Some(last)); // the last error, not the first
        bench.get();
        let client = error(ErrorKind::Client);
        assert_eq!(bench.reply("a get k", client.clone()), Some(client)); // another server would say the same
        bench.done();
    }

    #[test]
    fn failover_errors_are_those_configured_for_the_class_of_request() {
        let mut bench = Bench::new(
            r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b"],
                "failover_errors": {"gets": ["tko"], "updates": [], "deletes": ["timeout"]}}"#,
        );
        for (line, data, kind, goes_on) in [
            ("get k", "", ErrorKind::Ejected, true),
            ("get k", "", TIMEOUT, false),
            ("set k 0 0 1", "x", ErrorKind::Ejected, false),
            ("delete k", "", TIMEOUT, true),
            ("delete k", "", ErrorKind::Ejected, false),
        ] {
            bench.ask(line, data);
            let sent = bench.waiting()[0].to_owned();
            assert_eq!(bench.reply(&sent, error(kind)).is_none(), goes_on, "{line} {kind:?}");
            if goes_on {
                bench.reply(&sent.replacen('a', "b", 1), Reply::Miss);
            }
        }
        bench.done();
    }

    #[test]
    fn failover_tries_are_bounded_but_ejected_destinations_do_not_count() {
        let mut bench = Bench::new(
            r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c", "PoolRoute|d"],
                "failover_policy": {"type": "InOrderPolicy", "max_tries": 2}}"#,
        );
        bench.get();
        assert_eq!(bench.reply("a get k", error(ErrorKind::Ejected)), None);
        assert_eq!(bench.reply("b get k", error(TIMEOUT)), None);
        assert!(bench.reply("c get k", error(TIMEOUT)).is_some());
        bench.done();
    }

    #[test]
    fn failover_by_least_failures_asks_the_healthiest_next() {
        let mut bench = Bench::new(
            r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"],
                "failover_policy": {"type": "LeastFailuresPolicy", "max_tries": 3}}"#,
        );
        bench.get();
        bench.reply("a get k", error(TIMEOUT));
        bench.reply("b get k", error(TIMEOUT));
        bench.reply("c get k", Reply::Miss);
        bench.get();
        bench.reply("a get k", error(TIMEOUT)); // always first
        assert_eq!(bench.reply("c get k", Reply::Miss), Some(Reply::Miss));
        bench.done();
    }

    #[test]
    fn failover_by_hash_visits_every_child_once_and_keys_differ() {
        let mut bench = Bench::new(
            r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c", "PoolRoute|d"],
                "failover_policy": {"type": "DeterministicOrderPolicy", "max_tries": 9}}"#,
        );
        let mut orders = std::collections::HashSet::new();
        for key in 0..30 {
            bench.ask(&format!("get k{key}"), "");
            let mut order = String::new();
            while let Some(sent) = bench.waiting().first().map(|&sent| sent.to_owned()) {
                order.push_str(&sent[..1]);
                bench.reply(&sent, error(TIMEOUT));
            }
            let mut sorted: Vec<char> = order.chars().collect();
            sorted.sort_unstable();
            assert_eq!((sorted.into_iter().collect::<String>().as_str(), &order[..1]), ("abcd", "a"));
            orders.insert(order);
        }
        assert!(orders.len() > 2, "{orders:?}");
        bench.done();
    }

    #[test]
    fn failover_by_rendezvous_begins_with_the_first_and_goes_on_by_the_key_before_its_hash_stop() {
        let mut bench = Bench::new(
            r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c", "PoolRoute|d"],
                "failover_policy": {"type": "RendezvousPolicy", "tags": ["x", "y", "z"]}}"#,
        );
        let mut seconds = std::collections::HashSet::new();
        for key in 0..30 {
            let mut orders = [String::new(), String::new()];
            for (order, stop) in orders.iter_mut().zip(["", "|#|more"]) {
                bench.ask(&format!("get k{key}{stop}"), "");
                while let Some(sent) = bench.waiting().first().map(|&sent| sent.to_owned()) {
                    order.push_str(&sent[..1]);
                    bench.reply(&sent, error(TIMEOUT));
                }
                assert!(order.len() == 4 && order.starts_with('a'), "{order}");
            }
            assert_eq!(orders[0], orders[1]);
            seconds.insert(orders[0][1..2].to_owned());
        }
        assert_eq!(seconds.len(), 3);
        bench.done();
    }

    #[test]
    fn a_dead_server_takes_no_token_of_a_limited_failover() {
        let mut bench = Bench::new(
            r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b"], "failover_limit": {"rate": 0, "burst": 1}}"#,
        );
        for _ in 0..5 {
            bench.get();
            assert_eq!(bench.reply("a get k", error(ErrorKind::Ejected)), None);
            bench.reply("b get k", Reply::Miss);
        }
        for expected in [None, Some(error(TIMEOUT))] {
            bench.get();
            let is_token_left = expected.is_none();
            assert_eq!(bench.reply("a get k", error(TIMEOUT)), expected);
            if is_token_left {
                bench.reply("b get k", Reply::Miss);
            }
        }
        bench.done();
    }

    #[test]
    fn a_hashed_order_counts_every_child_in_its_tries_and_errors_apart() {
        for (policy, replies, sent) in [
            (r#""max_tries": 2, "max_error_tries": 2"#, [TIMEOUT, TIMEOUT, TIMEOUT], 2),
            (r#""max_tries": 3, "max_error_tries": 1"#, [TIMEOUT, TIMEOUT, TIMEOUT], 1),
            (r#""max_tries": 3, "max_error_tries": 1"#, [ErrorKind::Ejected, TIMEOUT, TIMEOUT], 2),
            // Ejected destinations count among the children that are tried.
            (r#""max_tries": 2, "max_error_tries": 2"#, [ErrorKind::Ejected; 3], 2),
        ] {
            let mut bench = Bench::new(&format!(
                r#"{{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c", "PoolRoute|d"],
                    "failover_policy": {{"type": "DeterministicOrderPolicy", {policy}}}}}"#
            ));
            bench.get();
            let mut count = 0;
            while let Some(sent) = bench.waiting().first().map(|&sent| sent.to_owned()) {
                bench.reply(&sent, error(replies[count]));
                count += 1;
            }
            assert_eq!(count, sent, "{policy} {replies:?}");
            bench.done();
        }
    }

    #[test]
    fn failover_stops_when_its_tokens_are_spent() {
        let mut bench = Bench::new(
            r#"{"type": "FailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b"], "failover_limit": {"rate": 0.5, "burst": 1}}"#,
        );
        let mut went_on = Vec::new();
        for _ in 0..5 {
            bench.get();
            let answer = bench.reply("a get k", error(TIMEOUT));
            went_on.push(answer.is_none());
            if answer.is_none() {
                bench.reply("b get k", Reply::Miss);
            }
        }
        assert_eq!(went_on, [true, false, true, false, true]);
        bench.done();
    }

    #[test]
    fn a_gutter_keeps_what_is_stored_for_a_short_time_only() {
        let mut bench = Bench::new(
            r#"{"type": "FailoverWithExptimeRoute", "normal": "PoolRoute|a", "failover": "PoolRoute|b", "failover_exptime": 60}"#,
        );
        for (own, gutter) in [("0", "60"), ("30", "30"), ("3600", "60"), ("-1", "-1")] {
            bench.ask(&format!("set k 0 {own} 1"), "x");
            assert_eq!(bench.reply(&format!("a set k {own} x"), error(TIMEOUT)), None);
            assert_eq!(bench.reply(&format!("b set k {gutter} x"), Reply::Stored), Some(Reply::Stored));
        }
        bench.get();
        bench.reply("a get k", error(TIMEOUT));
        assert_eq!(bench.reply("b get k", Reply::Miss), Some(Reply::Miss));
        bench.done();
    }

    #[test]
    fn latest_sticks_to_one_child_a_host_and_fails_over() {
        let text = format!(
            "{{{POOLS}, \"route\": {{\"type\": \"LatestRoute\", \"failover_count\": 2, \"children\": [\"PoolRoute|a\", \"PoolRoute|b\", \"PoolRoute|c\", \"PoolRoute|d\"]}}}}"
        );
        let mut firsts = std::collections::HashSet::new();
        for host_id in 0..20 {
            let mut bench = Bench::with(&text, &Options { host_id, ..options() });
            bench.get();
            let first = bench.waiting()[0].to_owned();
            bench.reply(&first, Reply::Miss);
            bench.ask("get other", "");
            assert_eq!(bench.waiting()[0][..1], first[..1]);
            firsts.insert(first.clone());
            bench.reply(&first.replace(" k", " other"), error(TIMEOUT));
            let second = bench.waiting()[0].to_owned();
            assert_ne!(second[..1], first[..1]);
            assert!(bench.reply(&second, error(TIMEOUT)).is_some()); // only two of the four
            bench.done();
        }
        assert!(firsts.len() > 1);
    }
}
