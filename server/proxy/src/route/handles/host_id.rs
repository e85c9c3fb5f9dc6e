//! `HostIdRoute`: all requests go to one child, which differs from host to host. It has no node of its own.

use serde_json::{Value, json};

use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::route::compile::{Compiled, Compiler};
use crate::route::handle::RouteHandle;
use crate::route::node_set::NodeId;

/// `HostIdRoute`.
#[derive(Clone, Debug)]
pub(crate) struct HostIdRoute {
    children: Vec<Child>,
    /// Makes another choice.
    salt: String,
}

impl RouteHandle for HostIdRoute {
    const NAMES: &'static [&'static str] = &["HostIdRoute"];
    const SHORT_KEY: &'static str = "children";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let route = Self {
            children: builder.children_at(json, name)?,
            salt: builder.text_at(json, "salt")?.unwrap_or_default(),
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        self.children.clone()
    }

    fn show(&self, config: &Config) -> Value {
        json!({"children": config.children_json(&self.children), "salt": self.salt})
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let children = compiler.children(&self.children);
        Ok(children[compiler.order_of_host(children.len(), &self.salt)[0]])
    }
}
