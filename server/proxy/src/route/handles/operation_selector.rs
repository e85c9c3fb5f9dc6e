//! `OperationSelectorRoute`, `PrefixPolicyRoute` and `RoutingGroupRoute`: choosing by command.

use std::convert::Infallible;

use serde_json::{Map, Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, Json, WrittenHandle};
use crate::request::{Operation, OperationClass, OwnedRequest};
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::{Next, NodeId};
use crate::route::tree::Tree;

/// `OperationSelectorRoute`, `PrefixPolicyRoute` and `RoutingGroupRoute`.
#[derive(Clone, Debug)]
pub(crate) struct OperationSelectorRoute {
    /// For operations that are not among `policies`.
    default: Option<HandleId>,
    /// The last one of an operation counts.
    policies: Vec<(Operation, HandleId)>,
}

impl RouteHandle for OperationSelectorRoute {
    const NAMES: &'static [&'static str] =
        &["OperationSelectorRoute", "PrefixPolicyRoute", "RoutingGroupRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let default = match json.get("default_policy") {
            Some(default) => Some(builder.handle(default, &format!("{name}.default_policy"), false)?),
            None => None,
        };
        let mut policies = Vec::new();
        if let Some(written) = json.get("operation_policies") {
            for (name, handle) in builder.object(written, "operation_policies")? {
                let key = format!("operation_policies.{name}");
                let target = builder.handle(handle, &key, false)?;
                match Operation::named(name) {
                    Some(operation) => policies.push((operation, target)),
                    // Facebook's own commands, which no client can send here.
                    None if matches!(
                        name.as_str(),
                        "lease-get" | "lease-set" | "flushall" | "flushre" | "metaget" | "version"
                    ) => {}
                    None => return Err(builder.fault(handle, &key, name, "is no command")),
                }
            }
        }
        let mut route = Self { default, policies };
        if name == "RoutingGroupRoute" {
            route.parse_groups(builder, json)?;
        }
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        let policies = self.policies.iter().map(|&(_, handle)| handle);
        self.default.into_iter().chain(policies).map(Child::Handle).collect()
    }

    fn show(&self, config: &Config) -> Value {
        let policy = |&(operation, handle): &(Operation, HandleId)| {
            (format!("{operation:?}").to_lowercase(), config.child_json(handle))
        };
        let policies: Map<String, Value> = self.policies.iter().map(policy).collect();
        let default = self.default.map(|handle| config.child_json(handle));
        json!({"default_policy": default, "operation_policies": policies})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let default = match self.default {
            Some(handle) => compiler.node(handle),
            None => compiler.error_node("no route for this command"),
        };
        let mut by_operation = [default; Operation::NAMES.len()];
        for &(operation, handle) in &self.policies {
            by_operation[operation as usize] = compiler.node(handle);
        }
        Ok(compiler.push(OperationSelector { by_operation }))
    }
}

impl OperationSelectorRoute {
    /// `routing_group_policies`: all operations of a class at once.
    fn parse_groups(&mut self, builder: &mut Builder, json: &Json) -> Checked<()> {
        let Some(written) = json.get("routing_group_policies") else { return Ok(()) };
        for (name, handle) in builder.object(written, "routing_group_policies")? {
            let key = format!("routing_group_policies.{name}");
            let class = match name.as_str() {
                "get_like" => OperationClass::Get,
                "update_like" => OperationClass::Update,
                "delete_like" => OperationClass::Delete,
                "arithmetic_like" => OperationClass::Arithmetic,
                _ => {
                    let remedy = "must be get_like, update_like, delete_like or arithmetic_like";
                    return Err(builder.fault(handle, &key, name, remedy));
                }
            };
            let target = builder.handle(handle, &key, false)?;
            let members = Operation::NAMES.iter().map(|&(_, operation)| operation);
            let members = members.filter(|operation| operation.class() == class);
            self.policies.extend(members.map(|operation| (operation, target)));
        }
        Ok(())
    }
}

/// By command.
#[derive(Debug)]
pub(in crate::route) struct OperationSelector {
    pub by_operation: [NodeId; Operation::NAMES.len()],
}

impl RouteNode for OperationSelector {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        step.start(self.by_operation[request.operation() as usize], request, parent);
    }

    #[inline]
    fn direct(&self, _: &Tree, _: &[u8], operation: Operation) -> Next {
        Next::Node(self.by_operation[operation as usize])
    }

    fn usual(&self, _: &[u8], operation: Operation) -> Next {
        Next::Node(self.by_operation[operation as usize])
    }

    fn late_delete(&self, _: &[u8], _: u64) -> Next {
        Next::Node(self.by_operation[Operation::Delete as usize])
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::Reply;

    use crate::route::tests::Bench;

    #[test]
    fn operations_are_selected_by_name() {
        let mut bench = Bench::new(
            r#"{"type": "OperationSelectorRoute", "default_policy": "PoolRoute|a",
                "operation_policies": {"set": "PoolRoute|b", "delete": "PoolRoute|c", "gets": "PoolRoute|d"}}"#,
        );
        for (line, data, sent) in [
            ("get k", "", "a get k"),
            ("set k 0 0 1", "x", "b set k 0 x"),
            ("ms k 1", "x", "b meta-set k x"),
            ("add k 0 0 1", "x", "a add k 0 x"),
            ("delete k", "", "c delete k"),
            ("md k", "", "c meta-delete k"),
            ("gets k", "", "d gets k"),
            ("mg k c", "", "d meta-gets k c"),
        ] {
            bench.ask(line, data);
            bench.reply(sent, Reply::Miss);
        }
        bench.done();
    }

    #[test]
    fn operations_are_selected_by_class() {
        let mut bench = Bench::new(
            r#"{"type": "RoutingGroupRoute", "default_policy": "PoolRoute|a",
                "routing_group_policies": {"update_like": "PoolRoute|b", "arithmetic_like": "PoolRoute|c"}}"#,
        );
        for (line, data, sent) in [
            ("get k", "", "a get k"),
            ("cas k 0 0 1 5", "x", "b cas k 0 x"),
            ("decr k 1", "", "c decr k"),
            ("touch k 1", "", "a touch k 1"),
        ] {
            bench.ask(line, data);
            bench.reply(sent, Reply::Miss);
        }
        bench.done();
    }
}
