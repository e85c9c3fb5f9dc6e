//! `ErrorRoute`: answers every request with an error.

use std::convert::Infallible;

use corecached_protocol::Reply;
use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::OwnedRequest;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::outcome;

/// `ErrorRoute`.
#[derive(Clone, Debug)]
pub(crate) struct ErrorRoute {
    /// What the client is told after `SERVER_ERROR `.
    response: String,
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
        builder.push(Self { response }, json)
    }

    fn children(&self) -> Vec<Child> {
        Vec::new()
    }

    fn show(&self, _: &Config) -> Value {
        json!({"response": self.response})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        Ok(compiler.push(ErrorNode { reply: outcome::local_error(&self.response) }))
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
