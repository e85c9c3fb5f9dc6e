//! `MissFailoverRoute`: retrievals and deletes go to child after child until one has the key.

use corecached_protocol::Reply;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::{OperationClass, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::NodeId;
use crate::route::outcome;
use crate::route::slab::SlotId;

/// `MissFailoverRoute`.
#[derive(Clone, Debug)]
pub(crate) struct MissFailoverRoute {
    children: Vec<Child>,
    /// The best of all errors and misses is the answer, else the last one.
    return_best_on_error: bool,
}

impl RouteHandle for MissFailoverRoute {
    const NAMES: &'static [&'static str] = &["MissFailoverRoute"];
    const SHORT_KEY: &'static str = "children";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let route = Self {
            children: builder.children_at(json, name)?,
            return_best_on_error: builder.flag_at(json, "return_best_on_error", false)?,
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        self.children.clone()
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "children": config.children_json(&self.children),
            "return_best_on_error": self.return_best_on_error,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let children = compiler.children(&self.children);
        Ok(compiler.push(MissFailover { children, best: self.return_best_on_error }))
    }
}

/// Retrievals and deletes to child after child until one has the key.
#[derive(Debug)]
pub(in crate::route) struct MissFailover {
    pub children: Box<[NodeId]>,
    /// The best of all errors and misses is the answer, else the last one.
    pub best: bool,
}

/// The best reply so far to one request.
#[derive(Debug)]
pub(in crate::route) struct BestReply(Option<Reply>);

impl RouteNode for MissFailover {
    type State = ();
    type Progress = BestReply;

    fn state(&self) {
        debug_assert!(!self.children.is_empty());
    }

    fn start(&self, (): &(), step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let first = self.children[0];
        if !matches!(request.class(), OperationClass::Get | OperationClass::Delete) {
            return step.start(first, request, parent);
        }
        step.open_with(node, &request, parent, Self::waiting(BestReply(None)), [(first, request.clone())]);
    }

    fn replied(&self, (): &(), frame: &mut Frame, step: &mut Step, slot: SlotId, child: u32, reply: Reply) {
        let Some(BestReply(best)) = Self::in_progress(&mut frame.progress) else { return };
        if outcome::is_hit(&reply) {
            return frame.answer(step, reply);
        }
        let reply = match best.take() {
            Some(best) if self.best && outcome::rank(&best) <= outcome::rank(&reply) => best,
            _ => reply,
        };
        match self.children.get(child as usize + 1) {
            Some(&next) => {
                *best = Some(reply);
                let request = frame.request.clone();
                frame.start_child(step, slot, next, request, child + 1);
            }
            None => frame.answer(step, reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use crate::route::tests::{Bench, TIMEOUT, error, value};

    #[test]
    fn miss_failover_asks_on_until_a_hit_and_writes_to_the_first() {
        let route =
            r#"{"type": "MissFailoverRoute", "children": ["PoolRoute|a", "PoolRoute|b", "PoolRoute|c"]}"#;
        let mut bench = Bench::new(route);
        bench.get();
        assert_eq!(bench.reply("a get k", Reply::Miss), None);
        assert_eq!(bench.reply("b get k", value("v")), Some(value("v")));
        bench.ask("delete k", "");
        bench.reply("a delete k", Reply::NotFound);
        bench.reply("b delete k", Reply::NotFound);
        assert_eq!(bench.reply("c delete k", error(TIMEOUT)), Some(error(TIMEOUT)));
        bench.ask("set k 0 0 1", "x");
        assert_eq!(bench.reply("a set k 0 x", Reply::NotStored), Some(Reply::NotStored));
        bench.done();

        let mut bench = Bench::new(&route.replace("]}", "], \"return_best_on_error\": true}"));
        bench.get();
        bench.reply("a get k", error(TIMEOUT));
        bench.reply("b get k", Reply::Miss);
        assert_eq!(bench.reply("c get k", error(TIMEOUT)), Some(Reply::Miss));
        bench.done();
    }
}
