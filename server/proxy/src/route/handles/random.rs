//! `RandomRoute`: each request goes to any child.

use std::convert::Infallible;

use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::request::OwnedRequest;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::RouteNode;
use crate::route::node_set::NodeId;

/// `RandomRoute`.
#[derive(Clone, Debug)]
pub(crate) struct RandomRoute {
    children: Vec<Child>,
}

impl RouteHandle for RandomRoute {
    const NAMES: &'static [&'static str] = &["RandomRoute"];
    const SHORT_KEY: &'static str = "children";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let route = Self { children: builder.children_at(json, name)? };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        self.children.clone()
    }

    fn show(&self, config: &Config) -> Value {
        json!({"children": config.children_json(&self.children)})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let children = compiler.children(&self.children);
        Ok(compiler.push(Random { children }))
    }
}

/// To a child chosen at random.
#[derive(Debug)]
pub(in crate::route) struct Random {
    pub children: Box<[NodeId]>,
}

impl RouteNode for Random {
    type State = ();
    type Progress = Infallible;

    fn state(&self) {
        debug_assert!(!self.children.is_empty());
    }

    fn start(&self, (): &(), step: &mut Step, _: NodeId, request: OwnedRequest, parent: Parent) {
        let chosen = self.children[step.random.usize(..self.children.len())];
        step.start(chosen, request, parent);
    }
}
