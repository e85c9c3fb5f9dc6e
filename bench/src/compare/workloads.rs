//! The workloads of a comparison.

use crate::load::{ConnectionPlan, Items, Pace, Plan, Traffic};
use crate::popularity::Popularity;
use crate::sizes::Sizes;
use crate::wire::Protocol;

/// Sets of keys and values that workloads share. Each server is filled with a set once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Data {
    /// 1 M values of 100 bytes.
    Small,
    /// 300 k values of 1 KiB.
    Middle,
    /// 4 k values of 64 KiB.
    Large,
    /// 100 k values of 100 bytes, for proxies: few, so that the caches behind them need little CPU.
    SmallProxied,
    /// 10 k values of 8 KiB, for proxies.
    LargeProxied,
}

impl Data {
    /// Returns the number of the first key, the number of keys, and the bytes of a value.
    const fn keys_and_size(self) -> (u32, u32, u32) {
        match self {
            Self::Small => (0, 1_000_000, 100),
            Self::Middle => (1 << 24, 300_000, 1 << 10),
            Self::Large => (1 << 25, 4_000, 64 << 10),
            Self::SmallProxied => (0, 100_000, 100),
            Self::LargeProxied => (1 << 24, 10_000, 8 << 10),
        }
    }
}

/// The commands that a workload uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// get and set.
    Text,
    /// mg and ms.
    Meta,
    /// mg and ms for the reference, get and set for all others. memcached before 1.6.35 makes a system call
    /// for each pipelined get, but not for mg: this compares its fastest commands with corecached's plain
    /// ones.
    MetaToReference,
}

/// The rate at which a workload sends requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Closed loop: as fast as requests are answered.
    Saturated,
    /// Open loop at half of the throughput that the reference reaches in w1.
    HalfOfReference,
    /// Open loop at this many requests a second.
    PerSecond(u32),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Name, such as `w1`.
    pub name: &'static str,
    /// Description for tables.
    pub what: &'static str,
    /// Keys and values.
    pub data: Data,
    /// Commands that it uses.
    pub spoken: Spoken,
    /// Number of connections.
    pub connections: usize,
    /// Number of requests sent together on a connection.
    pub depth: usize,
    /// Number of keys in a get.
    pub keys_per_get: usize,
    /// Share of requests that are sets, 0 to 1.
    pub set_share: f64,
    /// Zipf exponent of the popularity of keys; 0 is uniform.
    pub zipf: f64,
    /// Rate of requests.
    pub rate: Rate,
}

/// w1, the workload that the others are variations of.
const W1: Workload = Workload {
    name: "w1",
    what: "50 connections, 90/10 get/set of 100 B, no pipelining",
    data: Data::Small,
    spoken: Spoken::Text,
    connections: 50,
    depth: 1,
    keys_per_get: 1,
    set_share: 0.1,
    zipf: 0.0,
    rate: Rate::Saturated,
};

/// All workloads for caches, in the order of the table.
pub const ALL: [Workload; 12] = [
    W1,
    Workload { name: "w2", what: "w1, pipeline 16", depth: 16, ..W1 },
    Workload {
        name: "w2m",
        what: "w2, the reference by mg and ms",
        depth: 16,
        spoken: Spoken::MetaToReference,
        ..W1
    },
    Workload { name: "w3", what: "multiget of 50 keys", keys_per_get: 50, set_share: 0.0, ..W1 },
    Workload { name: "w4", what: "w1, 1 KiB values", data: Data::Middle, ..W1 },
    Workload { name: "w5", what: "w1, 64 KiB values", data: Data::Large, ..W1 },
    Workload { name: "w6", what: "w1, 1000 connections", connections: 1000, ..W1 },
    Workload { name: "w7", what: "w1, sets only", set_share: 1.0, ..W1 },
    Workload { name: "w8", what: "w1 by mg and ms", spoken: Spoken::Meta, ..W1 },
    Workload { name: "w8p", what: "w8, pipeline 16", spoken: Spoken::Meta, depth: 16, ..W1 },
    Workload { name: "w9", what: "w1, Zipf 0.99", zipf: 0.99, ..W1 },
    Workload {
        name: "half",
        what: "w1, open loop at half of the reference's w1",
        rate: Rate::HalfOfReference,
        ..W1
    },
];

/// Names of the workloads of a quick comparison.
pub const QUICK: [&str; 6] = ["w1", "w2", "w3", "w6", "w7", "half"];

/// p1, the workload that the others for proxies are variations of.
const P1: Workload = Workload {
    name: "p1",
    what: "50 connections, gets of 100 B, no pipelining",
    data: Data::SmallProxied,
    set_share: 0.0,
    ..W1
};

/// All workloads for proxies, in the order of the table.
pub const PROXIED: [Workload; 7] = [
    P1,
    Workload { name: "p2", what: "p1, pipeline 16", depth: 16, ..P1 },
    Workload { name: "p3", what: "p1, multiget of 10 keys", keys_per_get: 10, ..P1 },
    Workload { name: "p4", what: "p1, 8 KiB values", data: Data::LargeProxied, ..P1 },
    Workload { name: "p5", what: "p1, sets only", set_share: 1.0, ..P1 },
    Workload { name: "p6", what: "p1, 1000 connections", connections: 1000, ..P1 },
    Workload { name: OPEN, what: "p1, open loop at 10 000 requests/s", rate: Rate::PerSecond(10_000), ..P1 },
];

/// Name of the workload for proxies under which a cache is also measured directly.
pub const OPEN: &str = "open";

/// Names of the workloads of a quick comparison of proxies.
pub const PROXIED_QUICK: [&str; 6] = ["p1", "p2", "p3", "p4", "p5", OPEN];

impl Workload {
    /// Returns `plan` changed to this workload. `half_rate_per_s` is the rate of [`Rate::HalfOfReference`].
    #[must_use]
    pub fn plan(&self, plan: &Plan, is_reference: bool, half_rate_per_s: f64, sleep: bool) -> Plan {
        let (first_key, keys, value_bytes) = self.data.keys_and_size();
        let meta = match self.spoken {
            Spoken::Text => false,
            Spoken::Meta => true,
            Spoken::MetaToReference => is_reference,
        };
        Plan {
            traffic: Traffic {
                protocol: if meta { Protocol::Meta } else { Protocol::Text },
                keys_per_get: self.keys_per_get,
                set_share: self.set_share,
                ..plan.traffic
            },
            items: Items {
                first_key,
                keys,
                value_sizes: Sizes::Fixed(value_bytes),
                popularity: if self.zipf > 0.0 { Popularity::Zipf(self.zipf) } else { Popularity::Uniform },
                ..plan.items.clone()
            },
            connections: ConnectionPlan {
                count: self.connections,
                depth: self.depth,
                ..plan.connections.clone()
            },
            pace: match self.rate {
                Rate::Saturated => Pace::Closed,
                Rate::HalfOfReference => Pace::Open { rate_per_s: half_rate_per_s, sleep },
                Rate::PerSecond(rate_per_s) => Pace::Open { rate_per_s: rate_per_s.into(), sleep },
            },
            ..plan.clone()
        }
    }
}
