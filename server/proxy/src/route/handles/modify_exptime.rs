//! `ModifyExptimeRoute`: requests go on with another exptime.

use std::convert::Infallible;

use corecached_protocol::Exptime;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::OwnedRequest;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::tree::shorter;

/// `ModifyExptimeRoute`.
#[derive(Clone, Debug)]
pub(crate) struct ModifyExptimeRoute {
    target: HandleId,
    /// Seconds; 0 never.
    exptime_s: i64,
    /// Only where it is the shorter one.
    min: bool,
}

impl RouteHandle for ModifyExptimeRoute {
    const NAMES: &'static [&'static str] = &["ModifyExptimeRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let route = Self {
            target: builder.handle_at(json, name, "target")?,
            exptime_s: builder.int_at(json, "exptime", i64::from(i32::MIN), i64::MAX)?.ok_or_else(|| {
                builder.fault(json, "ModifyExptimeRoute.exptime", "", "is missing: seconds")
            })?,
            min: match builder.text_at(json, "action")?.as_deref() {
                None | Some("set") => false,
                Some("min") => true,
                Some(action) => {
                    let remedy = "must be \"set\" or \"min\"";
                    return Err(builder.fault(json, "ModifyExptimeRoute.action", action, remedy));
                }
            },
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.target)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "target": config.child_json(self.target),
            "exptime": self.exptime_s,
            "action": if self.min { "min" } else { "set" },
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let target = compiler.node(self.target);
        Ok(compiler.push(ModifyExptime { target, exptime_s: self.exptime_s, min: self.min }))
    }
}

/// Changes exptimes.
#[derive(Debug)]
pub(in crate::route) struct ModifyExptime {
    pub target: NodeId,
    /// Seconds; 0 never.
    pub exptime_s: i64,
    /// Only where it is the shorter one.
    pub min: bool,
}

impl RouteNode for ModifyExptime {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        let request = match request.exptime() {
            Some(own) if self.min => request.with_exptime(shorter(own, self.exptime_s)),
            Some(_) => request.with_exptime(Exptime(self.exptime_s)),
            None => request,
        };
        step.start(self.target, request, parent);
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use crate::route::tests::Bench;

    #[test]
    fn exptimes_are_set_or_shortened_but_not_of_deletes() {
        for (action, own, sent) in
            [("set", 100, 7), ("set", 0, 7), ("min", 100, 7), ("min", 3, 3), ("min", 0, 7)]
        {
            let mut bench = Bench::new(&format!(
                r#"{{"type": "ModifyExptimeRoute", "target": "PoolRoute|a", "exptime": 7, "action": "{action}"}}"#
            ));
            bench.ask(&format!("set k 0 {own} 1"), "x");
            bench.reply(&format!("a set k {sent} x"), Reply::Stored);
            bench.ask("delete k", "");
            bench.reply("a delete k", Reply::Deleted);
            bench.done();
        }
    }
}
