//! `ErrorRoute`: answers every request with an error.

use std::convert::Infallible;

use corecached_protocol::{ErrorKind, Reply};
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::OwnedRequest;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::outcome;
use crate::upstream::failure;

/// `ErrorRoute`.
#[derive(Clone, Debug)]
pub(crate) struct ErrorRoute {
    /// What the client is told after `SERVER_ERROR `; empty: what the kind of the error says.
    response: String,
    /// The kind of the error, by which other handles decide.
    kind: ErrorKind,
}

impl RouteHandle for ErrorRoute {
    const NAMES: &'static [&'static str] = &["ErrorRoute"];
    const SHORT_KEY: &'static str = "response";

    fn parse(builder: &mut Builder, &WrittenHandle { json, .. }: &WrittenHandle) -> Checked<HandleId> {
        let response = builder.text_at(json, "response")?.unwrap_or_default();
        if let Some(value) = json.get("response")
            && !response.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        {
            return Err(builder.wrong(value, "ErrorRoute.response", "must be one line of ASCII"));
        }
        let kind = match json.get("result") {
            Some(result) => builder.error_kind(result, "ErrorRoute.result")?,
            None => ErrorKind::Local,
        };
        builder.push(Self { response, kind }, json)
    }

    fn children(&self) -> Vec<Child> {
        Vec::new()
    }

    fn show(&self, _: &Config) -> Value {
        json!({"response": self.response, "result": format!("{:?}", self.kind)})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let reply = match (self.kind, self.response.is_empty()) {
            (ErrorKind::Local, _) => outcome::local_error(&self.response),
            (kind, true) => failure(kind),
            (kind, false) => Reply::Error { kind, line: format!("SERVER_ERROR {}", self.response).into() },
        };
        Ok(compiler.push(ErrorNode { reply }))
    }
}

/// Answers with an error.
#[derive(Debug)]
pub(in crate::route) struct ErrorNode {
    pub reply: Reply,
}

impl RouteNode for ErrorNode {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, _: OwnedRequest, parent: Parent) {
        step.answer(parent, self.reply.clone());
    }
}

#[cfg(test)]
mod tests {
    use corecached_protocol::{ErrorKind, Reply};

    use crate::route::tests::Bench;

    #[test]
    fn an_error_is_of_the_kind_that_its_result_names() {
        for (route, kind, line) in [
            (r#""ErrorRoute|text""#, ErrorKind::Local, "SERVER_ERROR text"),
            (r#"{"type": "ErrorRoute", "result": "timeout"}"#, ErrorKind::Timeout, "SERVER_ERROR timeout"),
            (
                r#"{"type": "ErrorRoute", "result": "mc_res_tko"}"#,
                ErrorKind::Ejected,
                "SERVER_ERROR unavailable",
            ),
            (
                r#"{"type": "ErrorRoute", "result": "BUSY", "response": "b"}"#,
                ErrorKind::Busy,
                "SERVER_ERROR b",
            ),
        ] {
            let mut bench = Bench::new(route);
            assert_eq!(bench.get(), Some(Reply::Error { kind, line: line.into() }), "{route}");
            bench.done();
        }
        // Others fail over by it.
        let mut bench = Bench::new(
            r#"{"type": "FailoverRoute", "children": [{"type": "ErrorRoute", "result": "client_error"}, "PoolRoute|a"]}"#,
        );
        assert!(matches!(bench.get(), Some(Reply::Error { kind: ErrorKind::Client, .. })));
        bench.done();
    }
}
