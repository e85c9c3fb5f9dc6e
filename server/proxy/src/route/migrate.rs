//! MigrateRoute: keys move from one place to another, each at its own moment of an interval.

use super::super::hash::{KeyPart, spooky};
use super::super::request::{OperationClass, OwnedRequest};
use super::all::to_all;
use super::frame::{Parent, State, Step};
use super::tree::NodeId;

/// See [`super::super::config::Handle::Migrate`].
#[derive(Debug)]
pub(super) struct Migrate {
    pub from: NodeId,
    pub to: NodeId,
    pub start_s: i64,
    /// At least 1.
    pub interval_s: i64,
    pub key_part: KeyPart,
}

impl Migrate {
    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let now_s = (step.now_ms / 1000) as i64;
        let between =
            now_s >= self.start_s && now_s < self.start_s.saturating_add(self.interval_s.saturating_mul(2));
        if request.class() == OperationClass::Delete && between {
            // Proxies whose clocks differ may have the key in either place.
            return to_all(step, node, &[self.from, self.to], &request, parent, State::Worst(None));
        }
        let hash = i64::from(spooky::spooky32(self.key_part.of(request.key()), 0));
        let moved = now_s >= self.start_s.saturating_add(hash % self.interval_s);
        step.start(if moved { self.to } else { self.from }, request, parent);
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use super::super::tests::Bench;

    #[test]
    fn keys_migrate_each_at_its_moment_and_deletes_go_to_both() {
        let mut bench = Bench::new(
            r#"{"type": "MigrateRoute", "from": "PoolRoute|a", "to": "PoolRoute|b", "start_time": 1000, "interval": 100}"#,
        );
        let moved = |bench: &mut Bench, now_s: u64| {
            bench.now_ms = now_s * 1000;
            let mut moved = 0;
            for key in 0..200 {
                bench.ask(&format!("get k{key}"), "");
                let sent = bench.waiting()[0].to_owned();
                moved += usize::from(sent.starts_with('b'));
                bench.reply(&sent, Reply::Miss);
            }
            moved
        };
        assert_eq!(moved(&mut bench, 999), 0);
        let half = moved(&mut bench, 1050);
        assert!((60..140).contains(&half), "{half}");
        assert_eq!(moved(&mut bench, 1100), 200);
        for (now_s, hosts) in [(999, 1), (1000, 2), (1199, 2), (1200, 1)] {
            bench.now_ms = now_s * 1000;
            bench.ask("delete k", "");
            assert_eq!(bench.waiting().len(), hosts, "{now_s}");
            while let Some(sent) = bench.waiting().first().map(|&sent| sent.to_owned()) {
                bench.reply(&sent, Reply::Deleted);
            }
        }
        bench.done();
    }
}
