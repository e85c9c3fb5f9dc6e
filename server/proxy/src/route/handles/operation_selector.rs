//! `OperationSelectorRoute`, `PrefixPolicyRoute` and `RoutingGroupRoute`: choosing by command.

use std::convert::Infallible;

use crate::request::{Operation, OwnedRequest};
use crate::route::frame::{Parent, Step};
use crate::route::node::RouteNode;
use crate::route::node_set::{Next, NodeId};
use crate::route::tree::Tree;

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
