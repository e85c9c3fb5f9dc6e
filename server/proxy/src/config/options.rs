//! What the command line says about routing.

/// What the command line says about routing.
#[derive(Clone, Debug)]
pub struct Options {
    /// `-R`: where keys without a routing prefix go, `/region/cluster/`.
    pub route_prefix: String,
    /// `--server-timeout`, ms: to connect, and to answer, where a pool does not say.
    pub server_timeout_ms: u32,
    /// The times for replies of pools by how far away they say that they are.
    pub distance_timeouts: DistanceTimeouts,
    /// `--group-remote-errors`: clients are told of one error only, whatever it was.
    pub group_errors: bool,
    /// `--send-invalid-route-to-default`
    pub send_invalid_route_to_default: bool,
    /// A retrieval that failed is answered with a miss; off with `--disable-miss-on-get-errors`.
    pub miss_on_get_errors: bool,
    /// `incr` and `decr` that failed are answered `NOT_FOUND`; off with `--disable-miss-on-arith-errors`.
    pub miss_on_arithmetic_errors: bool,
    /// Failed deletes are kept for later and answered `NOT_FOUND`; off with `--asynclog-disable`.
    pub spool_deletes: bool,
    /// `--enable-logging-route`: every request is logged, as under a `LoggingRoute`.
    pub log_all: bool,
    /// `shard_splits` of pools are used; off with `--disable-shard-split-route`.
    pub shard_splits: bool,
    /// `--big-value-split-threshold`, bytes: larger values are stored in chunks, as under a `BigValueRoute`;
    /// 0: none are.
    pub big_value_threshold: u32,
    /// `--big-value-batch-size`: chunks sent for at a time; 0: all.
    pub big_value_batch: u32,
    /// `--zone`: where this proxy is, by the names that pools give their servers' zones; empty when it is not
    /// known.
    pub zone: String,
    /// `--warm-resize-ms`: the window of pools that do not give one; 0: none.
    pub warm_resize_ms: u32,
    /// Tells this host from others where a route chooses by host.
    pub host_id: u64,
    /// `--config-params` and the options, for `%name%`.
    pub params: Vec<(String, String)>,
}

/// Milliseconds for replies of pools with `region` and `cluster`, compared with `-R`; 0: as they say themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct DistanceTimeouts {
    /// `--within-cluster-timeout-ms`: of pools with both in common.
    pub within_cluster_ms: u32,
    /// `--cross-cluster-timeout-ms`: of pools with the region in common.
    pub cross_cluster_ms: u32,
    /// `--cross-region-timeout-ms`: of all others.
    pub cross_region_ms: u32,
}

impl Options {
    /// The default of `big_value_batch`: mcrouter's.
    pub const BIG_VALUE_BATCH: u32 = 10;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            route_prefix: "/././".into(),
            server_timeout_ms: 1000,
            distance_timeouts: DistanceTimeouts::default(),
            group_errors: false,
            send_invalid_route_to_default: false,
            miss_on_get_errors: true,
            miss_on_arithmetic_errors: true,
            spool_deletes: true,
            zone: String::new(),
            log_all: false,
            big_value_threshold: 0,
            big_value_batch: Self::BIG_VALUE_BATCH,
            shard_splits: true,
            warm_resize_ms: 0,
            host_id: 0,
            params: Vec::new(),
        }
    }
}

/// Region and cluster of a routing prefix.
pub(super) fn prefix_parts(prefix: &str) -> impl Iterator<Item = &str> {
    prefix.split('/').filter(|part| !part.is_empty())
}

/// `prefix` as `/region/cluster/`; `None` unless it has just these two parts.
pub(crate) fn normal_prefix(prefix: &str) -> Option<String> {
    let parts: Vec<&str> = prefix.strip_prefix('/')?.trim_end_matches('/').split('/').collect();
    match parts[..] {
        [region, cluster] if !region.is_empty() && !cluster.is_empty() => {
            Some(format!("/{region}/{cluster}/"))
        }
        _ => None,
    }
}
