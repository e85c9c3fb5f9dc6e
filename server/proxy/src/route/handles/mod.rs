//! The route handles, each in a file of its own, and the list of them.
//!
//! A new handle needs its file, a line with `mod`, a line in the list, and its page in the docs. The compiler
//! asks for what [`RouteHandle`] and [`RouteNode`] do not give by themselves.
//!
//! A handle's file imports the layers that handles are made of, `frame`, `node`, `tree` and `compile`, and
//! those do not import it back: they know the enums below by the names in `node_set`.

mod all;
pub(super) mod big_value;
mod blackhole;
mod bounded_load;
mod destination;
mod error;
mod failover;
mod hash;
mod host_id;
mod key_split;
mod l1_l2;
mod latency;
mod list;
mod load_balancer;
pub(super) mod logging;
mod lookaside;
mod migrate;
mod miss_failover;
mod modify_exptime;
mod modify_key;
mod null;
mod operation_selector;
mod outstanding;
mod pool;
mod prefix_selector;
mod random;
mod rate_limit;
mod replicated;
mod resize;
mod shadow;
mod shard_split;
mod slow_warm_up;
mod spool;
mod warm_up;

use corecached_protocol::Reply;
use serde_json::Value;

use super::compile::{Compiled, Compiler};
use super::frame::{Frame, Parent, Step};
use super::handle::RouteHandle;
use super::node::{Listed, RouteNode, SharedProgress};
use super::node_set::{DestinationId, Next, NodeId, NodeSet, Nodes, RingBelow};
use super::outcome;
use super::rekey::Rekeyed;
use super::slab::SlotId;
use super::tree::Tree;
use super::worst::WorstReply;
use crate::config::{Builder, Checked, Child, Config, HandleId, HandleSet, Handles, PoolUse, WrittenHandle};
use crate::request::{Operation, OwnedRequest};

list::handles! {
    // What may be written in a configuration.
    handles {
        All: all::AllRoute,
        BigValue: big_value::BigValueRoute,
        Blackhole: blackhole::BlackholeRoute,
        Error: error::ErrorRoute,
        Failover: failover::failover_route::FailoverRoute,
        Hash: hash::HashRoute,
        HostId: host_id::HostIdRoute,
        KeySplit: key_split::KeySplitRoute,
        L1L2: l1_l2::L1L2CacheRoute,
        Latency: latency::LatencyInjectionRoute,
        Latest: failover::latest::LatestRoute,
        LoadBalancer: load_balancer::LoadBalancerRoute,
        Logging: logging::LoggingRoute,
        Migrate: migrate::MigrateRoute,
        MissFailover: miss_failover::MissFailoverRoute,
        ModifyExptime: modify_exptime::ModifyExptimeRoute,
        ModifyKey: modify_key::ModifyKeyRoute,
        Null: null::Null,
        OperationSelector: operation_selector::OperationSelectorRoute,
        Outstanding: outstanding::OutstandingLimitRoute,
        Pool: pool::PoolRoute,
        PrefixSelector: prefix_selector::PrefixSelectorRoute,
        Random: random::RandomRoute,
        RateLimit: rate_limit::RateLimitRoute,
        SaltedFailover: failover::salted::SaltedFailoverRoute,
        Shadow: shadow::ShadowRoute,
        ShardSplit: shard_split::ShardSplitRoute,
        WarmUp: warm_up::WarmUpRoute,
    }
    // What a tree is made of.
    nodes {
        All: all::All,
        BigValue: big_value::BigValue,
        Blackhole: blackhole::Blackhole,
        BoundedLoad: bounded_load::BoundedLoad,
        Destination: destination::DestinationNode,
        Error: error::ErrorNode,
        Failover: failover::node::Failover,
        Hash: hash::HashNode,
        KeySplit: key_split::KeySplit,
        Latency: latency::Latency,
        LoadBalancer: load_balancer::LoadBalancer,
        Logging: logging::Logging,
        Lookaside: lookaside::Lookaside,
        Migrate: migrate::Migrate,
        MissFailover: miss_failover::MissFailover,
        ModifyExptime: modify_exptime::ModifyExptime,
        ModifyKey: modify_key::ModifyKey,
        Null: null::Null,
        OperationSelector: operation_selector::OperationSelector,
        Outstanding: outstanding::Outstanding,
        PrefixSelector: prefix_selector::PrefixSelector,
        Random: random::Random,
        RateLimit: rate_limit::RateLimit,
        Replicated: replicated::Replicated,
        Resize: resize::Resize,
        Shadow: shadow::Shadows,
        ShardSplit: shard_split::ShardSplits,
        SlowWarmUp: slow_warm_up::SlowWarmUp,
        Spool: spool::Spool,
    }
    // Ways of waiting that several of them share.
    shared {
        Rekeyed: Rekeyed,
        WorstReply: WorstReply,
    }
}

// What the layers below make by themselves, whatever the configuration names.

impl Handle {
    /// The handle of an empty route.
    pub(crate) fn null() -> Self {
        null::Null.into()
    }
}

impl Node {
    /// A destination.
    pub(super) fn destination(id: DestinationId, keep_routing_prefix: bool) -> Self {
        destination::DestinationNode { id, keep_routing_prefix }.into_node()
    }

    /// A node that answers with an error.
    pub(super) fn error(text: &str) -> Self {
        error::ErrorNode { reply: outcome::local_error(text) }.into_node()
    }
}
