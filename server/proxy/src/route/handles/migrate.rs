//! `MigrateRoute`: keys move from one handle to another, each at its own moment of an interval.

use std::convert::Infallible;

use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::hash::{KeyPart, spooky};
use crate::request::{OperationClass, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::worst::WorstReply;

/// `MigrateRoute`.
#[derive(Clone, Debug)]
pub(crate) struct MigrateRoute {
    /// Where keys are.
    from: HandleId,
    /// Where they go.
    to: HandleId,
    /// Unix seconds.
    start_s: i64,
    /// Over how many seconds; at least 1.
    interval_s: i64,
}

impl RouteHandle for MigrateRoute {
    const NAMES: &'static [&'static str] = &["MigrateRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let route = Self {
            from: builder.handle_at(json, name, "from")?,
            to: builder.handle_at(json, name, "to")?,
            start_s: builder.int_at(json, "start_time", 0, i64::from(u32::MAX))?.ok_or_else(|| {
                builder.fault(json, "MigrateRoute.start_time", "", "is missing: unix seconds")
            })?,
            interval_s: builder.int_at(json, "interval", 1, i64::from(u32::MAX))?.unwrap_or(3600),
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.from), Child::Handle(self.to)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "from": config.child_json(self.from),
            "to": config.child_json(self.to),
            "start_time": self.start_s,
            "interval": self.interval_s,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let node = Migrate {
            from: compiler.node(self.from),
            to: compiler.node(self.to),
            start_s: self.start_s,
            interval_s: self.interval_s.max(1),
            key_part: KeyPart::hash_stop(),
        };
        Ok(compiler.push(node))
    }
}

/// Moves keys from one node to the other, some at each moment.
#[derive(Debug)]
pub(in crate::route) struct Migrate {
    pub from: NodeId,
    pub to: NodeId,
    /// Unix seconds.
    pub start_s: i64,
    /// At least 1.
    pub interval_s: i64,
    pub key_part: KeyPart,
}

impl RouteNode for Migrate {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {
        debug_assert!(self.interval_s >= 1);
    }

    fn start(&self, (): &(), step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let now_s = (step.now_ms / 1000) as i64;
        let between =
            now_s >= self.start_s && now_s < self.start_s.saturating_add(self.interval_s.saturating_mul(2));
        if request.class() == OperationClass::Delete && between {
            // Proxies whose clocks differ may have the key in either place.
            let both = [self.from, self.to].map(|child| (child, request.clone()));
            return step.open_with(node, &request, parent, WorstReply::default().into(), both);
        }
        let hash = i64::from(spooky::spooky32(self.key_part.part_of(request.key()), 0));
        let moved = now_s >= self.start_s.saturating_add(hash % self.interval_s);
        step.start(if moved { self.to } else { self.from }, request, parent);
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use crate::route::tests::Bench;

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
