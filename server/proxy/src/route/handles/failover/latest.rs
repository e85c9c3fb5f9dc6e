//! `LatestRoute`: failover over some of the children, which the host chooses when it compiles the handle.

use serde_json::{Value, json};

use super::node::{Failover, Order};
use crate::config::{Builder, Checked, Child, Config, FailoverErrors, HandleId, Json, WrittenHandle};
use crate::route::compile::{Compiled, Compiler};
use crate::route::handle::RouteHandle;
use crate::route::node_set::NodeId;

/// `LatestRoute`, and `HashRoute` with `"hash_func": "Latest"`.
#[derive(Clone, Debug)]
pub(crate) struct LatestRoute {
    children: Vec<Child>,
    /// How many of them are used.
    count: usize,
    /// Makes another choice.
    salt: String,
    errors: FailoverErrors,
}

impl RouteHandle for LatestRoute {
    const NAMES: &'static [&'static str] = &["LatestRoute"];
    const SHORT_KEY: &'static str = "children";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let children = builder.children_at(json, name)?;
        Self::parse_over(builder, json, children)
    }

    fn children(&self) -> Vec<Child> {
        self.children.clone()
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "children": config.children_json(&self.children),
            "failover_count": self.count,
            "salt": self.salt,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let all = compiler.children(&self.children);
        let order = compiler.order_of_host(all.len(), &self.salt);
        Ok(compiler.push(Failover {
            children: order.iter().take(self.count).map(|&at| all[at]).collect(),
            errors: self.errors.clone(),
            order: Order::Written,
            tries_max: usize::MAX,
            error_tries_max: usize::MAX,
            limit: None,
            exptime_max_s: None,
        }))
    }
}

impl LatestRoute {
    /// Reads all but the children.
    pub(crate) fn parse_over(builder: &mut Builder, json: &Json, children: Vec<Child>) -> Checked<HandleId> {
        let route = Self {
            children,
            count: builder.int_at(json, "failover_count", 1, 10_000)?.unwrap_or(5) as usize,
            salt: builder.text_at(json, "salt")?.unwrap_or_default(),
            errors: builder.failover_errors(json)?,
        };
        builder.push(route, json)
    }
}
