//! `NullRoute` and `DevNullRoute`: answers as a server that has nothing.

use std::convert::Infallible;

use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::OwnedRequest;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;
use crate::route::outcome;

/// Answers as if nothing were found.
#[derive(Clone, Debug)]
pub(crate) struct Null;

impl RouteHandle for Null {
    const NAMES: &'static [&'static str] = &["NullRoute", "DevNullRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, .. }: &WrittenHandle) -> Checked<HandleId> {
        builder.push(Self, json)
    }

    fn children(&self) -> Vec<Child> {
        Vec::new()
    }

    fn show(&self, _: &Config) -> Value {
        json!({})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        Ok(compiler.push(Self))
    }
}

impl RouteNode for Null {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {}

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        step.answer(parent, outcome::null(&request));
    }
}
