//! `FailoverRoute` and `FailoverWithExptimeRoute`.

use serde_json::{Value, json};

use super::node::Failover;
use super::policy::{CompiledPolicy, FailoverPolicy};
use crate::config::{Builder, Checked, Child, Config, FailoverErrors, HandleId, Limit, WrittenHandle};
use crate::route::compile::{Compiled, Compiler};
use crate::route::handle::RouteHandle;
use crate::route::node_set::NodeId;

const WITH_EXPTIME: &str = "FailoverWithExptimeRoute";

/// `FailoverRoute` and `FailoverWithExptimeRoute`: to the first child, and to others while the reply is an
/// error.
#[derive(Clone, Debug)]
pub(crate) struct FailoverRoute {
    children: Vec<Child>,
    errors: FailoverErrors,
    policy: FailoverPolicy,
    /// How often it fails over.
    limit: Option<Limit>,
    /// The longest TTL in seconds of what is stored in children other than the first.
    exptime_max_s: Option<i64>,
}

impl RouteHandle for FailoverRoute {
    const NAMES: &'static [&'static str] = &["FailoverRoute", WITH_EXPTIME];
    const SHORT_KEY: &'static str = "children";

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let with_exptime = name == WITH_EXPTIME;
        let children = if with_exptime {
            let mut children = vec![Child::Handle(builder.handle_at(json, name, "normal")?)];
            if let Some(failover) = json.get("failover") {
                children.extend(builder.children(failover, "FailoverWithExptimeRoute.failover", false)?);
            }
            children
        } else {
            builder.children_at(json, name)?
        };
        let errors = builder.failover_errors(json)?;
        let policy =
            if with_exptime { FailoverPolicy::IN_ORDER } else { FailoverPolicy::parse(builder, json)? };
        let limit = builder.failover_limit(json)?;
        let exptime_max_s = match with_exptime {
            true => Some(builder.int_at(json, "failover_exptime", 0, i64::MAX)?.unwrap_or(60)),
            false => None,
        };
        builder.push(Self { children, errors, policy, limit, exptime_max_s }, json)
    }

    fn name(&self) -> &'static str {
        if self.exptime_max_s.is_some() { WITH_EXPTIME } else { "FailoverRoute" }
    }

    fn children(&self) -> Vec<Child> {
        self.children.clone()
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "children": config.children_json(&self.children),
            "failover_policy": format!("{:?}", self.policy),
            "failover_limit": self.limit.map(Limit::json),
            "failover_exptime": self.exptime_max_s,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let children = compiler.children(&self.children);
        let CompiledPolicy { order, tries_max, error_tries_max } =
            self.policy.compile(compiler, &children, self.name())?;
        Ok(compiler.push(Failover {
            children,
            errors: self.errors.clone(),
            order,
            tries_max,
            error_tries_max,
            limit: self.limit,
            exptime_max_s: self.exptime_max_s,
        }))
    }
}
