//! `BlackholeRoute`: answers as a server that takes everything and says nothing.

use std::convert::Infallible;

use corecached_protocol::ErrorKind;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::OwnedRequest;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step, Work};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::upstream;

/// The time where `--server-timeout` has no limit: mcrouter's default.
const UNLIMITED_MS: u32 = 1000;

/// `BlackholeRoute`.
#[derive(Clone, Debug)]
pub(crate) struct BlackholeRoute {
    /// `--server-timeout`.
    after_ms: u32,
}

impl RouteHandle for BlackholeRoute {
    const NAMES: &'static [&'static str] = &["BlackholeRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, .. }: &WrittenHandle) -> Checked<HandleId> {
        let after_ms = match builder.options.server_timeout_ms {
            0 => UNLIMITED_MS,
            after_ms => after_ms,
        };
        builder.push(Self { after_ms }, json)
    }

    fn children(&self) -> Vec<Child> {
        Vec::new()
    }

    fn show(&self, _: &Config) -> Value {
        json!({"timeout_ms": self.after_ms})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        Ok(compiler.push(Blackhole { after_ms: u64::from(self.after_ms) }))
    }
}

/// Answers `SERVER_ERROR timeout` after a time.
#[derive(Debug)]
pub(in crate::route) struct Blackhole {
    pub after_ms: u64,
}

impl RouteNode for Blackhole {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, _: OwnedRequest, parent: Parent) {
        if parent != Parent::Nobody {
            let at_ms = step.now_ms.saturating_add(self.after_ms);
            step.later(at_ms, Work::Deliver { parent, reply: upstream::failure(ErrorKind::Timeout) });
        }
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use crate::config::Options;
    use crate::route::tests::{Bench, POOLS, options};
    use crate::route::{Execution, ExecutionLimits};

    #[test]
    fn a_black_hole_answers_as_a_server_that_says_nothing() {
        let text = format!("{{{POOLS}, \"route\": \"BlackholeRoute\"}}");
        let mut bench = Bench::with(&text, &Options { server_timeout_ms: 50, ..options() });
        bench.get();
        assert_eq!(bench.pass(49), None);
        let answer = bench.pass(1);
        assert!(matches!(answer, Some(Reply::Error { kind: ErrorKind::Timeout, .. })), "{answer:?}");
        bench.done();
    }

    #[test]
    fn what_waits_for_its_time_has_a_bound_and_comes_in_order() {
        let mut bench = Bench::new("\"BlackholeRoute\"");
        bench.execution =
            Execution::new(&ExecutionLimits { calls_max: 2, frames_max: 10, calls_with_shadows_max: 1 }, 1);
        bench.get();
        bench.get();
        assert!(matches!(bench.get(), Some(Reply::Error { kind: ErrorKind::Busy, .. })));
        assert_eq!(bench.execution.next_deadline_ms(), Some(bench.now_ms + 1000));
        bench.now_ms += 1000;
        bench.execution.tick(bench.now_ms, &mut bench.actions);
        assert_eq!(bench.actions.len(), 2);
        bench.actions.clear();
        assert_eq!(bench.execution.next_deadline_ms(), None);
        bench.done();
    }
}
