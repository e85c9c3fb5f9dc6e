//! The route handles, each in a file of its own, and the list of them.
//!
//! A handle's file imports the layers that handles are made of, `frame`, `node`, `tree` and `compile`, and those do not
//! import it back: they know the enums below by the names in `node_set`.

pub(in crate::route) mod all;
pub(in crate::route) mod big_value;
pub(in crate::route) mod blackhole;
pub(in crate::route) mod bounded_load;
pub(in crate::route) mod destination;
pub(in crate::route) mod error;
pub(in crate::route) mod failover;
pub(in crate::route) mod hash;
pub(in crate::route) mod key_split;
pub(in crate::route) mod latency;
mod list;
pub(in crate::route) mod load_balancer;
pub(in crate::route) mod logging;
pub(in crate::route) mod lookaside;
pub(in crate::route) mod migrate;
pub(in crate::route) mod miss_failover;
pub(in crate::route) mod modify_exptime;
pub(in crate::route) mod modify_key;
pub(in crate::route) mod null;
pub(in crate::route) mod operation_selector;
pub(in crate::route) mod outstanding;
pub(in crate::route) mod prefix_selector;
pub(in crate::route) mod random;
pub(in crate::route) mod rate_limit;
pub(in crate::route) mod replicated;
pub(in crate::route) mod resize;
pub(in crate::route) mod shadow;
pub(in crate::route) mod shard_split;
pub(in crate::route) mod slow_warm_up;
pub(in crate::route) mod spool;

use corecached_protocol::Reply;

use super::frame::{Frame, Parent, Step};
use super::node::{Listed, RouteNode, SharedProgress};
use super::node_set::{Next, NodeId, NodeSet, Nodes, RingBelow};
use super::rekey::Rekeyed;
use super::slab::SlotId;
use super::tree::Tree;
use super::worst::WorstReply;
use crate::request::{Operation, OwnedRequest};

list::handles! {
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
