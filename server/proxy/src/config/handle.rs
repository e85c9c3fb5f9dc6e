//! Route handles, checked: what a configuration's `route` comes to before names are resolved and rings are made.

use corecached_protocol::ErrorKind;

use super::super::hash::{Distribution, KeyPart};
use super::super::request::Operation;
use super::tails::Hedge;

/// A handle in [`super::Config::handles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleId(pub u32);

/// A pool in [`super::Config::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolId(pub u32);

/// One of a handle's children as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Child {
    /// A handle.
    Handle(HandleId),
    /// `"Pool|A"`: every destination of the pool, each a child of its own.
    PoolMembers(PoolId),
}

/// How a `PoolRoute` sends, beside its pool and hash.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolRoute {
    /// Failed deletes are handed out for later delivery, and answered `NOT_FOUND`.
    pub spool_deletes: bool,
    /// Spare servers that find little.
    pub slow_warm_up: Option<SlowWarmUp>,
    /// Copies of each key, on as many servers; 1 to [`REPLICAS_MAX`].
    pub replicas: u32,
    /// Gets that wait are sent to a second copy.
    pub hedge: Option<Hedge>,
    /// A destination gets no more than so many times the average of what is under way.
    pub bounded_load: Option<f64>,
}

/// A route handle.
#[derive(Clone, Debug, PartialEq)]
pub enum Handle {
    /// To the destination of the pool that the key belongs to.
    Pool {
        /// Which pool.
        pool: PoolId,
        /// How keys are laid out over it.
        hash: Hash,
        /// What else is said of it.
        route: PoolRoute,
    },
    /// To a pool, and while the reply is an error to its own servers, by its hash with a salt more.
    SaltedFailover {
        /// The pool's handle.
        route: HandleId,
        /// Whose servers follow.
        pool: PoolId,
        /// What is an error.
        errors: FailoverErrors,
        /// Requests sent at most.
        max_tries: usize,
        /// Errors at most, ejected destinations not counted.
        max_error_tries: usize,
        /// How often.
        limit: Option<Limit>,
    },
    /// Keeps the keys of busy shards, `a:SHARD:b`, in several copies.
    ShardSplits {
        /// Where they are kept.
        target: HandleId,
        /// By shard, as its digits stand in the key.
        splits: Vec<(String, ShardSplit)>,
    },
    /// To the child that the key belongs to.
    Hash {
        /// The children.
        children: Vec<Child>,
        /// How keys are laid out over them.
        hash: Hash,
    },
    /// To the first child, and to others while the reply is an error.
    Failover {
        /// The children.
        children: Vec<Child>,
        /// What is an error.
        errors: FailoverErrors,
        /// In what order.
        policy: FailoverPolicy,
        /// How often.
        limit: Option<Limit>,
        /// Longest life in seconds of what is stored in children other than the first.
        exptime_max_s: Option<i64>,
    },
    /// Failover over some of the children, chosen and ordered by who we are.
    Latest {
        /// The children.
        children: Vec<Child>,
        /// How many of them.
        count: usize,
        /// Makes another choice.
        salt: String,
        /// What is an error.
        errors: FailoverErrors,
    },
    /// Retrievals and deletes to child after child until one has the key.
    MissFailover {
        /// The children.
        children: Vec<Child>,
        /// Of errors and misses the best is the answer, else the last.
        return_best_on_error: bool,
    },
    /// To all children.
    All {
        /// The children.
        children: Vec<Child>,
        /// Which reply is the answer.
        wait: Wait,
    },
    /// To any child.
    Random {
        /// The children.
        children: Vec<Child>,
    },
    /// To one child, chosen by who we are.
    HostId {
        /// The children.
        children: Vec<Child>,
        /// Makes another choice.
        salt: String,
    },
    /// Answers as if nothing were found.
    Null,
    /// Answers with an error.
    Error {
        /// What the client is told behind `SERVER_ERROR `.
        response: String,
    },
    /// By command.
    OperationSelector {
        /// For the others.
        default: Option<HandleId>,
        /// The commands.
        policies: Vec<(Operation, HandleId)>,
    },
    /// By the longest of these that the key begins with.
    PrefixSelector {
        /// Longest first.
        policies: Vec<(String, HandleId)>,
        /// For other keys.
        wildcard: Option<HandleId>,
    },
    /// Fills a cold cache from a warm one.
    WarmUp {
        /// Asked first, and filled.
        cold: HandleId,
        /// Asked on a miss.
        warm: HandleId,
        /// Of what is filled in, seconds; 0 never.
        exptime_s: i64,
    },
    /// Moves keys from one to the other, some at each moment.
    Migrate {
        /// Where keys are.
        from: HandleId,
        /// Where they go.
        to: HandleId,
        /// Unix seconds.
        start_s: i64,
        /// Over how many seconds; at least 1.
        interval_s: i64,
    },
    /// Sends copies of some requests elsewhere.
    Shadow {
        /// Whose replies are the answers.
        target: HandleId,
        /// Where copies go.
        shadows: Vec<Shadow>,
    },
    /// Refuses requests above a rate.
    RateLimit {
        /// For the others.
        target: HandleId,
        /// The rates.
        rates: Rates,
    },
    /// Lets so many requests through at a time; further ones wait.
    OutstandingLimit {
        /// For those let through.
        target: HandleId,
        /// At a time; at least 1.
        max: u32,
    },
    /// A small cache in front of a large one.
    L1L2 {
        /// Asked first, written and filled.
        l1: HandleId,
        /// Asked on a miss.
        l2: HandleId,
        /// Of what is filled in, seconds; 0 never.
        upgrading_exptime_s: i64,
        /// Life in seconds of a mark in l1 that l2 has not got the key either; 0: no marks.
        negative_exptime_s: i64,
        /// Every how many retrievals that meet a mark l2 is asked again; 0: never.
        negative_refresh: u32,
    },
    /// Keeps hot keys in several copies.
    KeySplit {
        /// Where they are kept.
        target: HandleId,
        /// Copies; 2 to 1000.
        replicas: u32,
        /// Writes go to every copy, else to ours.
        all_sync: bool,
        /// A retrieval that misses our copy asks the first.
        first_hit: bool,
    },
    /// Changes keys.
    ModifyKey {
        /// Where they go then.
        target: HandleId,
        /// A new routing prefix.
        set_routing_prefix: Option<String>,
        /// Put in front unless it is there.
        ensure_key_prefix: Option<String>,
        /// What `ensure_key_prefix` replaces.
        replace_key_prefix: Option<String>,
        /// Put behind.
        set_key_suffix: Option<String>,
    },
    /// To the child that the key belongs to, less to those that have much to do.
    LoadBalancer {
        /// The children.
        children: Vec<Child>,
        /// How load comes in.
        algorithm: Balance,
        /// Hashed behind the key.
        salt: String,
        /// How long figures are good, ms; at least 1.
        ttl_ms: u32,
        /// Children asked at most while the reply is an error.
        tries_max: usize,
        /// What is an error.
        errors: FailoverErrors,
    },
    /// Stores large values in chunks.
    BigValue {
        /// Where.
        target: HandleId,
        /// Bytes of a chunk, and of the largest value that is stored whole; at least 1.
        threshold: u32,
        /// Chunks sent for at a time; 0: all.
        batch: u32,
    },
    /// Holds requests and replies back.
    Latency {
        /// Who answers.
        target: HandleId,
        /// From the request to its being sent on, ms.
        before_ms: u32,
        /// From its reply to the answer, ms.
        after_ms: u32,
        /// From the request to the answer at least, ms.
        total_ms: u32,
    },
    /// Answers `SERVER_ERROR timeout` after this many ms.
    Blackhole {
        /// `--server-timeout`, and a second where that has no limit.
        after_ms: u32,
    },
    /// Writes a log line for each request and its reply.
    Logging {
        /// Who answers.
        target: HandleId,
        /// Lines a second of each core.
        lines: Limit,
    },
    /// Changes exptimes.
    ModifyExptime {
        /// Where they go then.
        target: HandleId,
        /// Seconds; 0 never.
        exptime_s: i64,
        /// Only where it is the shorter one.
        min: bool,
    },
}

/// How keys are laid out over children.
#[derive(Clone, Debug, PartialEq)]
pub struct Hash {
    /// The scheme.
    pub distribution: Distribution,
    /// What of the key is hashed.
    pub key_part: KeyPart,
    /// Hashed behind it.
    pub salt: String,
    /// By place; empty: those of the pool, if there is one.
    pub weights: Vec<f64>,
    /// By place; empty: those of the pool, if there is one.
    pub tags: Vec<String>,
}

/// Whose reply a handle that sends to all children answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The worst of all.
    Worst,
    /// None: as if nothing were found, at once.
    None,
    /// The first that is no error.
    Fastest,
    /// The first child's.
    Initial,
    /// The one that more than half agree on.
    Majority,
}

/// Most copies of each key that a pool may keep.
pub const REPLICAS_MAX: u32 = 8;

/// How a load balancer heeds load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// A child keeps the less of its keys the more it has to do; the rest go on as if it were not there.
    WeightedHashing,
    /// A key has two children, and goes to the one with less to do.
    TwoRandomChoices,
}

impl Balance {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WeightedHashing => "weighted-hashing",
            Self::TwoRandomChoices => "two-random-choices",
        }
    }
}

/// How servers that find little are spared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowWarmUp {
    /// Who gets what they do not.
    pub failover: HandleId,
    /// When, and how much.
    pub settings: WarmUpSettings,
}

/// When a server is spared, and how much it gets then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUpSettings {
    /// A hit rate below this one begins it.
    pub enable_threshold: f64,
    /// One above this ends it.
    pub disable_threshold: f64,
    /// The share of its retrievals that it gets with no hits.
    pub start: f64,
    /// That share grows by this times the hit rate.
    pub step: f64,
    /// Retrievals that are needed to speak of a rate.
    pub min_requests: u32,
}

/// In how many copies the keys of a shard are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSplit {
    /// Up to the change.
    pub old: u32,
    /// From then on.
    pub new: u32,
    /// When hosts begin to turn to the new number, unix seconds; always, if the number does not change.
    pub start_s: i64,
    /// Seconds within which all have done so.
    pub period_s: i64,
}

impl ShardSplit {
    /// The most that two letters can tell apart.
    pub const MAX: u32 = 26 * 26 + 1;

    /// So many all the time.
    #[must_use]
    pub const fn constant(copies: u32) -> Self {
        Self { old: copies, new: copies, start_s: 0, period_s: 0 }
    }

    /// Copies that any host may use.
    #[must_use]
    pub const fn copies_max(&self) -> u32 {
        if self.old > self.new { self.old } else { self.new }
    }
}

/// In what order a failover tries its children.
#[derive(Clone, Debug, PartialEq)]
pub enum FailoverPolicy {
    /// As written.
    InOrder {
        /// Requests sent at most.
        max_tries: usize,
    },
    /// The first, then those with the fewest failures of late.
    LeastFailures {
        /// Requests sent at most.
        max_tries: usize,
    },
    /// The first, then by hash of the key with salts 1, 2, 3.
    Deterministic {
        /// Requests sent at most.
        max_tries: usize,
        /// Errors at most, ejected destinations not counted.
        max_error_tries: usize,
        /// How the key is hashed.
        hash: Hash,
    },
    /// By rendezvous of the key and these tags.
    Rendezvous {
        /// By place.
        tags: Vec<String>,
    },
}

/// Which errors make a failover go on, by class of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverErrors {
    /// Of retrievals.
    pub gets: ErrorSet,
    /// Of commands that store, count or touch.
    pub updates: ErrorSet,
    /// Of deletes.
    pub deletes: ErrorSet,
}

/// A set of [`ErrorKind`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorSet(u16);

impl ErrorSet {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// mcrouter's default: all but a bad key and what the client did wrong.
    pub const DEFAULT: Self = Self::EMPTY
        .with(ErrorKind::Busy)
        .with(ErrorKind::Timeout)
        .with(ErrorKind::ConnectTimeout)
        .with(ErrorKind::Connect)
        .with(ErrorKind::Ejected)
        .with(ErrorKind::Shutdown)
        .with(ErrorKind::TryAgain)
        .with(ErrorKind::Remote)
        .with(ErrorKind::Local);

    /// This and `kind`.
    #[must_use]
    pub const fn with(self, kind: ErrorKind) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    /// Whether `kind` is in it.
    #[must_use]
    pub const fn has(self, kind: ErrorKind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }
}

impl Default for FailoverErrors {
    fn default() -> Self {
        Self { gets: ErrorSet::DEFAULT, updates: ErrorSet::DEFAULT, deletes: ErrorSet::DEFAULT }
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Tokens a second; of a failover, tokens a request, from 0 to 1.
    pub rate: f64,
    /// Tokens it holds at most.
    pub burst: f64,
}

impl Limit {
    /// Of the lines of a `LoggingRoute`, unless it says otherwise.
    pub const LINES: Self = Self { rate: 10.0, burst: 100.0 };
}

/// Rates of requests, by class; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Rates {
    /// Retrievals.
    pub gets: Option<Limit>,
    /// Commands that store, count or touch.
    pub sets: Option<Limit>,
    /// Deletes.
    pub deletes: Option<Limit>,
}

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq)]
pub struct Shadow {
    /// Where.
    pub target: HandleId,
    /// Of a pool: only for its destinations from this place to that.
    pub index_range: Option<(u32, u32)>,
    /// Only keys whose hash lies in this part of 2^32, from 0 to 1.
    pub key_fraction: (f64, f64),
    /// Only these keys, if any are named.
    pub keys: Vec<String>,
    /// Of what is left, this part at random, from 0 to 1.
    pub requests_fraction: f64,
}

impl Handle {
    /// The name of its type in the configuration.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Pool { .. } => "PoolRoute",
            Self::SaltedFailover { .. } => "SaltedFailoverRoute",
            Self::ShardSplits { .. } => "ShardSplitRoute",
            Self::Hash { .. } => "HashRoute",
            Self::Failover { exptime_max_s: Some(_), .. } => "FailoverWithExptimeRoute",
            Self::Failover { .. } => "FailoverRoute",
            Self::Latest { .. } => "LatestRoute",
            Self::MissFailover { .. } => "MissFailoverRoute",
            Self::All { wait: Wait::Worst, .. } => "AllSyncRoute",
            Self::All { wait: Wait::None, .. } => "AllAsyncRoute",
            Self::All { wait: Wait::Fastest, .. } => "AllFastestRoute",
            Self::All { wait: Wait::Initial, .. } => "AllInitialRoute",
            Self::All { wait: Wait::Majority, .. } => "AllMajorityRoute",
            Self::Random { .. } => "RandomRoute",
            Self::HostId { .. } => "HostIdRoute",
            Self::Null => "NullRoute",
            Self::Error { .. } => "ErrorRoute",
            Self::OperationSelector { .. } => "OperationSelectorRoute",
            Self::PrefixSelector { .. } => "PrefixSelectorRoute",
            Self::WarmUp { .. } => "WarmUpRoute",
            Self::Migrate { .. } => "MigrateRoute",
            Self::Shadow { .. } => "ShadowRoute",
            Self::RateLimit { .. } => "RateLimitRoute",
            Self::OutstandingLimit { .. } => "OutstandingLimitRoute",
            Self::L1L2 { .. } => "L1L2CacheRoute",
            Self::KeySplit { .. } => "KeySplitRoute",
            Self::ModifyKey { .. } => "ModifyKeyRoute",
            Self::ModifyExptime { .. } => "ModifyExptimeRoute",
            Self::LoadBalancer { .. } => "LoadBalancerRoute",
            Self::BigValue { .. } => "BigValueRoute",
            Self::Latency { .. } => "LatencyInjectionRoute",
            Self::Blackhole { .. } => "BlackholeRoute",
            Self::Logging { .. } => "LoggingRoute",
        }
    }
}
