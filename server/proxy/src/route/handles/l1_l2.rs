//! `L1L2CacheRoute`: a small cache in front of a large one.

use corecached_protocol::Exptime;
use serde_json::{Value, json};

use super::lookaside::Lookaside;
use crate::config::{Builder, Checked, Child, Config, HandleId, WrittenHandle};
use crate::route::compile::{Compiled, Compiler};
use crate::route::handle::RouteHandle;
use crate::route::node_set::NodeId;

/// `L1L2CacheRoute`.
#[derive(Clone, Debug)]
pub(crate) struct L1L2CacheRoute {
    /// Asked first, written and filled.
    l1: HandleId,
    /// Asked on a miss.
    l2: HandleId,
    /// The TTL of what is filled in, seconds; 0 never.
    upgrading_exptime_s: i64,
    /// The TTL in seconds of a mark in l1 that l2 has not got the key either; 0: it stays.
    negative_exptime_s: i64,
    /// l2 is looked up again for one in this many retrievals that meet a mark; 0: no marks.
    negative_refresh: u32,
}

impl RouteHandle for L1L2CacheRoute {
    const NAMES: &'static [&'static str] = &["L1L2CacheRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let route = Self {
            l1: builder.handle_at(json, name, "l1")?,
            l2: builder.handle_at(json, name, "l2")?,
            upgrading_exptime_s: builder.int_at(json, "upgradingL1Exptime", 0, i64::MAX)?.ok_or_else(
                || builder.fault(json, "L1L2CacheRoute.upgradingL1Exptime", "", "is missing: seconds"),
            )?,
            negative_exptime_s: builder.int_at(json, "ncacheExptime", 0, i64::MAX)?.unwrap_or(0),
            negative_refresh: builder.int_at(json, "ncacheUpdatePeriod", 0, i64::from(u32::MAX))?.unwrap_or(0)
                as u32,
        };
        builder.push(route, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.l1), Child::Handle(self.l2)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "l1": config.child_json(self.l1),
            "l2": config.child_json(self.l2),
            "upgradingL1Exptime": self.upgrading_exptime_s,
            "ncacheExptime": self.negative_exptime_s,
            "ncacheUpdatePeriod": self.negative_refresh,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let node = Lookaside {
            front: compiler.node(self.l1),
            back: compiler.node(self.l2),
            exptime: Exptime(self.upgrading_exptime_s),
            answers_from_back: true,
            back_on_error: true,
            mark_s: self.negative_exptime_s,
            mark_refresh: self.negative_refresh,
        };
        Ok(compiler.push(node))
    }
}
