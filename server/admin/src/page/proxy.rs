//! Metrics of a proxy: the commands of its clients, its configuration, and its destinations.

use std::collections::BTreeMap;
use std::fmt;

use super::{Labels, MetricsWriter};
use corecached_proxy::ProxyView;
use corecached_proxy::stats::{DestinationStats, Totals};

pub(super) fn write(writer: &mut MetricsWriter<'_>, proxy: &ProxyView) -> fmt::Result {
    let totals = Totals::new(&proxy.reports.read());
    // Pools may name one server with different timeouts. It has one sample, which adds all of them.
    let mut destinations: BTreeMap<&str, DestinationStats> = BTreeMap::new();
    for (address, server) in &totals.destinations {
        destinations.entry(short(address)).or_default().add(server);
    }
    writer.counter(
        "corecached_proxy_config_failures",
        "Configurations that were wrong",
        proxy.config_failures(),
    )?;
    let wrong = proxy.config_failures();
    writer.counters(
        "corecached_proxy_config_reloads",
        "Changed configurations that were read, by result",
        [(vec![("result", "good")], proxy.control_log.reloads()), (vec![("result", "wrong")], wrong)],
    )?;
    let layout = proxy.control_log.layout();
    writer.gauges(
        "corecached_proxy_pool_members",
        "Members of each pool, as found",
        layout
            .iter()
            .flat_map(|layout| layout.sizes())
            .map(|(pool, size)| (vec![("pool", pool)], size as u64)),
    )?;
    let spared = |name| totals.counters.get(name).copied().unwrap_or(0);
    writer.counter(
        "corecached_proxy_single_flight_joined",
        "Gets answered with the reply to another",
        spared("single_flight_joined"),
    )?;
    writer.counter(
        "corecached_proxy_hot_key_hits",
        "Gets answered with a kept value of a hot key",
        spared("hot_key_hits"),
    )?;
    writer.gauge("corecached_proxy_hot_keys", "Keys that are watched for being hot", spared("hot_keys"))?;
    writer.gauge(
        "corecached_proxy_hot_key_bytes",
        "Bytes of hot keys' values kept",
        spared("hot_key_bytes"),
    )?;
    let counters = |head: &'static str, label: &'static str| {
        totals.counters.iter().filter_map(move |(name, &value)| {
            let name = name.strip_prefix(head)?.strip_suffix("_count")?;
            Some((vec![(label, name)], value))
        })
    };
    writer.counters("corecached_proxy_commands", "Commands of clients", counters("cmd_", "command"))?;
    writer.counters(
        "corecached_proxy_results",
        "Requests to destinations that failed, by how",
        counters("result_", "result"),
    )?;
    writer.gauge(
        "corecached_proxy_requests_under_way",
        "Commands without an answer yet",
        totals.counters.get("proxy_reqs_processing").copied().unwrap_or(0),
    )?;
    let outcomes = totals
        .counters
        .iter()
        .filter_map(|(name, &value)| Some((vec![("outcome", name.strip_prefix("resize_")?)], value)));
    writer.counters(
        "corecached_proxy_resize_keys",
        "Keys looked for on earlier servers of a pool, by outcome",
        outcomes,
    )?;
    let hedges = totals
        .counters
        .iter()
        .filter_map(|(name, &value)| Some((vec![("outcome", name.strip_prefix("hedge_")?)], value)));
    writer.counters("corecached_proxy_hedges", "Gets to be sent to a second copy, by outcome", hedges)?;
    for (name, help, counter) in [
        (
            "corecached_proxy_bounded_load_moved",
            "Requests that went past a server with too much under way",
            "bounded_load_moved",
        ),
        (
            "corecached_proxy_adaptive_concurrency_refused",
            "Gets refused for a destination that is slow",
            "adaptive_concurrency_refused",
        ),
    ] {
        writer.counter(name, help, totals.counters.get(counter).copied().unwrap_or(0))?;
    }
    let state = |state, is: fn(&DestinationStats) -> bool| {
        (vec![("state", state)], destinations.values().filter(|server| is(server)).count() as u64)
    };
    writer.gauges(
        "corecached_proxy_destinations",
        "Destinations by state",
        [
            state("up", DestinationStats::is_up),
            state("new", DestinationStats::is_new),
            state("closed", DestinationStats::is_closed),
            state("ejected", DestinationStats::is_ejected),
        ],
    )?;
    let label = |address| -> Labels<'_> { vec![("destination", address)] };
    let rows = |of: fn(&DestinationStats) -> u64| {
        destinations.iter().map(move |(&address, server)| (label(address), of(server)))
    };
    writer.gauges(
        "corecached_proxy_destination_ejected",
        "Whether any shard has ejected it",
        rows(|s| s.is_ejected().into()),
    )?;
    writer.gauges(
        "corecached_proxy_destination_pending",
        "Requests without a reply, sent or not",
        rows(|s| s.pending),
    )?;
    writer.gauges(
        "corecached_proxy_destination_inflight",
        "Requests sent that have no reply yet",
        rows(|s| s.inflight),
    )?;
    writer.gauges(
        "corecached_proxy_destination_concurrency_limit",
        "Gets that may be under way to it, over all shards; 0 without adaptive concurrency",
        rows(|s| s.concurrency_limit),
    )?;
    writer.counters(
        "corecached_proxy_destination_requests",
        "Requests taken to be sent",
        rows(|s| s.requests),
    )?;
    writer.counters("corecached_proxy_destination_replies", "Replies", rows(|s| s.replies))?;
    writer.counters(
        "corecached_proxy_destination_failures",
        "Requests that failed, and errors it answered",
        rows(|s| s.failures),
    )?;
    writer.counters("corecached_proxy_destination_found", "Values it answered", rows(|s| s.found))?;
    writer.counters("corecached_proxy_destination_not_found", "Misses it answered", rows(|s| s.not_found))?;
    writer.counters(
        "corecached_proxy_destination_connects",
        "Connections made to it",
        rows(|s| s.connects),
    )?;
    let waited =
        destinations.iter().map(|(&address, server)| (label(address), server.reply_ms as f64 / 1000.0));
    writer.seconds(
        "corecached_proxy_destination_reply_seconds",
        "Time from request to reply, over all replies",
        waited,
    )
}

/// The `HOST:PORT` of a destination that is written as in mcrouter's stats, such as
/// `10.0.0.1:11211:ascii:plain:notcompressed-1000`.
pub(crate) fn short(address: &str) -> &str {
    address.split_once(":ascii:").map_or(address, |(short, _)| short)
}
