//! `WarmUpRoute`: fills a cold cache from a warm one.

use corecached_protocol::Exptime;
use serde_json::{Value, json};

use super::lookaside::Lookaside;
use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::route::compile::{Compiled, Compiler};
use crate::route::handle::RouteHandle;
use crate::route::node_set::NodeId;

/// `WarmUpRoute`.
#[derive(Clone, Debug)]
pub(crate) struct WarmUpRoute {
    /// Asked first, and filled.
    cold: HandleId,
    /// Asked on a miss.
    warm: HandleId,
    /// The TTL of what is filled in, seconds; 0 never.
    exptime_s: i64,
}

impl RouteHandle for WarmUpRoute {
    const NAMES: &'static [&'static str] = &["WarmUpRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        if builder.flag_at(json, "enable_metaget", false)? {
            let remedy = "is not supported: give \"exptime\", the life of what is filled in";
            return Err(builder.fault(json, "WarmUpRoute.enable_metaget", "true", remedy));
        }
        let route = Self {
            cold: builder.handle_at(json, name, "cold")?,
            warm: builder.handle_at(json, name, "warm")?,
            exptime_s: builder.int_at(json, "exptime", i64::from(i32::MIN), i64::MAX)?.unwrap_or(0),
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.cold), Child::Handle(self.warm)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "cold": config.child_json(self.cold),
            "warm": config.child_json(self.warm),
            "exptime": self.exptime_s,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let node = Lookaside {
            front: compiler.node(self.cold),
            back: compiler.node(self.warm),
            exptime: Exptime(self.exptime_s),
            answers_from_back: false,
            back_on_error: true,
            mark_s: 0,
            mark_refresh: 0,
        };
        Ok(compiler.push(node))
    }
}
