//! `KeySplitRoute`: hot keys in several copies, `key::N`; copy 0 keeps the key's name.

use corecached_protocol::Reply;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::{BadKey, OperationClass, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::NodeId;
use crate::route::slab::SlotId;
use crate::route::worst::WorstReply;
use crate::route::{outcome, rekey};

/// `KeySplitRoute`.
#[derive(Clone, Debug)]
pub(crate) struct KeySplitRoute {
    target: HandleId,
    /// Copies of each key; 2 to 1000.
    replicas: u32,
    /// Writes go to every copy, else to ours.
    all_sync: bool,
    /// A retrieval that misses our copy asks the first.
    first_hit: bool,
}

impl RouteHandle for KeySplitRoute {
    const NAMES: &'static [&'static str] = &["KeySplitRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let route = Self {
            target: builder.handle_at(json, name, "destination")?,
            replicas: builder
                .int_at(json, "replicas", 2, 1000)?
                .ok_or_else(|| builder.fault(json, "KeySplitRoute.replicas", "", "is missing: 2 to 1000"))?
                as u32,
            all_sync: builder.flag_at(json, "all_sync", false)?,
            first_hit: builder.flag_at(json, "first_hit", false)?,
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.target)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "destination": config.child_json(self.target),
            "replicas": self.replicas,
            "all_sync": self.all_sync,
            "first_hit": self.first_hit,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let node = KeySplit {
            target: compiler.node(self.target),
            replicas: self.replicas,
            own: (compiler.config.options.host_id % u64::from(self.replicas)) as u32,
            all_sync: self.all_sync,
            first_hit: self.first_hit,
        };
        Ok(compiler.push(node))
    }
}

/// Keeps hot keys in several copies.
#[derive(Debug)]
pub(in crate::route) struct KeySplit {
    pub target: NodeId,
    /// Copies of each key.
    pub replicas: u32,
    /// The copy this host uses.
    pub own: u32,
    /// Writes go to every copy, else to ours.
    pub all_sync: bool,
    /// A retrieval that misses our copy asks the first.
    pub first_hit: bool,
}

/// A retrieval of our copy, or of the first one after that missed.
#[derive(Debug)]
pub(in crate::route) struct CopyLookup;

impl KeySplit {
    fn to_all(&self, step: &mut Step, node: NodeId, request: &OwnedRequest, parent: Parent) {
        let copies: Result<Vec<_>, _> = (0..self.replicas).map(|at| copy(request, at)).collect();
        match copies {
            Ok(copies) => {
                let started = copies.into_iter().map(|copy| (self.target, copy));
                step.open_with(node, request, parent, WorstReply::default().into(), started);
            }
            Err(BadKey) => step.answer(parent, outcome::bad_key()),
        }
    }
}

impl RouteNode for KeySplit {
    type State = ();
    type Progress = CopyLookup;

    fn state(&self) {
        debug_assert!(self.own < self.replicas);
    }

    fn start(&self, (): &(), step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let Ok(own) = copy(&request, self.own) else { return step.answer(parent, outcome::bad_key()) };
        match request.class() {
            OperationClass::Delete => self.to_all(step, node, &request, parent),
            OperationClass::Update if self.all_sync => self.to_all(step, node, &request, parent),
            OperationClass::Get if self.first_hit && self.own > 0 => {
                step.open_with(node, &request, parent, Self::waiting(CopyLookup), [(self.target, own)]);
            }
            _ => rekey::start_rekeyed(step, self.target, &request, own, parent),
        }
    }

    fn replied(&self, (): &(), frame: &mut Frame, step: &mut Step, slot: SlotId, child: u32, reply: Reply) {
        if child > 0 || outcome::is_hit(&reply) {
            let reply = rekey::with_key_of(&frame.request, reply);
            return frame.answer(step, reply);
        }
        let request = frame.request.clone();
        frame.start_child(step, slot, self.target, request, 1);
    }
}

fn copy(request: &OwnedRequest, at: u32) -> Result<OwnedRequest, BadKey> {
    if at == 0 {
        return Ok(request.clone());
    }
    request.with_key([&request.key()[..], format!("::{at}").as_bytes()].concat().into())
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use crate::config::Options;
    use crate::route::tests::{Bench, POOLS, options, value};

    #[test]
    fn a_split_key_has_a_copy_for_each_host_and_is_deleted_in_all() {
        let text = format!(
            "{{{POOLS}, \"route\": {{\"type\": \"KeySplitRoute\", \"destination\": \"PoolRoute|a\", \"replicas\": 3, \"all_sync\": true, \"first_hit\": true}}}}"
        );
        for (host_id, own) in [(0, "k"), (1, "k::1"), (5, "k::2")] {
            let mut bench = Bench::with(&text, &Options { host_id, ..options() });
            bench.get();
            assert_eq!(bench.reply(&format!("a get {own}"), value("v")), Some(value("v")));
            for (line, data, sent) in [("delete k", "", "a delete K"), ("set k 0 0 1", "x", "a set K 0 x")] {
                bench.ask(line, data);
                for key in ["k", "k::1", "k::2"] {
                    bench.reply(&sent.replace('K', key), Reply::Stored);
                }
            }
            bench.done();
        }
        let mut bench = Bench::with(&text, &Options { host_id: 1, ..options() });
        bench.get();
        assert_eq!(bench.reply("a get k::1", Reply::Miss), None);
        assert_eq!(bench.reply("a get k", value("v")), Some(value("v")));
        let longest = "k".repeat(250);
        assert!(matches!(
            bench.ask(&format!("get {longest}"), ""),
            Some(Reply::Error { kind: ErrorKind::BadKey, .. })
        ));
        bench.done();
    }
}
