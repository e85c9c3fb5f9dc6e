//! What a proxy counts: what it was asked for, and each destination.

use std::collections::BTreeMap;
use std::fmt;

use super::{Labels, Sheet};
use crate::proxy::stats::{Server, Totals};
use crate::server::Shared;

pub(super) fn write(sheet: &mut Sheet<'_>, shared: &Shared) -> fmt::Result {
    let answers = shared.descriptions.read();
    let totals = Totals::of(&answers);
    // Pools may know a server with different timeouts: one row for all of them.
    let mut destinations: BTreeMap<&str, Server> = BTreeMap::new();
    for (address, server) in &totals.servers {
        destinations.entry(short(address)).or_default().add(*server);
    }
    sheet.counter(
        "corecached_proxy_config_failures",
        "Configurations that were wrong",
        shared.config_failures.load(std::sync::atomic::Ordering::Relaxed) as u64,
    )?;
    let wrong = shared.config_failures.load(std::sync::atomic::Ordering::Relaxed) as u64;
    sheet.counters(
        "corecached_proxy_config_reloads",
        "Changed configurations that were read, by what came of them",
        [(vec![("result", "good")], shared.chronicle.reloads()), (vec![("result", "wrong")], wrong)],
    )?;
    let layout = shared.chronicle.layout();
    sheet.gauges(
        "corecached_proxy_pool_members",
        "Members of each pool, as found",
        layout
            .iter()
            .flat_map(|layout| layout.sizes())
            .map(|(pool, size)| (vec![("pool", pool)], size as u64)),
    )?;
    let spared = |name| totals.counters.get(name).copied().unwrap_or(0);
    sheet.counter(
        "corecached_proxy_single_flight_joined",
        "Gets answered with the reply to another",
        spared("single_flight_joined"),
    )?;
    sheet.counter(
        "corecached_proxy_hot_key_hits",
        "Gets answered with a kept value of a hot key",
        spared("hot_key_hits"),
    )?;
    sheet.gauge("corecached_proxy_hot_keys", "Keys that are watched for being hot", spared("hot_keys"))?;
    sheet.gauge(
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
    sheet.counters("corecached_proxy_commands", "Commands of clients", counters("cmd_", "command"))?;
    sheet.counters(
        "corecached_proxy_results",
        "Requests to destinations that failed, by how",
        counters("result_", "result"),
    )?;
    sheet.gauge(
        "corecached_proxy_requests_under_way",
        "Commands without an answer yet",
        totals.counters.get("proxy_reqs_processing").copied().unwrap_or(0),
    )?;
    let outcomes = totals
        .counters
        .iter()
        .filter_map(|(name, &value)| Some((vec![("outcome", name.strip_prefix("resize_")?)], value)));
    sheet.counters(
        "corecached_proxy_resize_keys",
        "Keys looked for on earlier servers of a pool, and what came of it",
        outcomes,
    )?;
    let hedges = totals
        .counters
        .iter()
        .filter_map(|(name, &value)| Some((vec![("outcome", name.strip_prefix("hedge_")?)], value)));
    sheet.counters(
        "corecached_proxy_hedges",
        "Gets to be sent to a second copy, and what came of it",
        hedges,
    )?;
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
        sheet.counter(name, help, totals.counters.get(counter).copied().unwrap_or(0))?;
    }
    let state = |state, is: fn(&Server) -> bool| {
        (vec![("state", state)], destinations.values().filter(|server| is(server)).count() as u64)
    };
    sheet.gauges(
        "corecached_proxy_destinations",
        "Destinations by state",
        [
            state("up", Server::is_up),
            state("new", Server::is_new),
            state("closed", Server::is_closed),
            state("ejected", Server::is_ejected),
        ],
    )?;
    let label = |address| -> Labels<'_> { vec![("destination", address)] };
    let rows = |of: fn(&Server) -> u64| {
        destinations.iter().map(move |(&address, server)| (label(address), of(server)))
    };
    sheet.gauges(
        "corecached_proxy_destination_ejected",
        "Whether any shard has ejected it",
        rows(|s| s.is_ejected().into()),
    )?;
    sheet.gauges(
        "corecached_proxy_destination_pending",
        "Requests that wait to be sent",
        rows(|s| s.pending),
    )?;
    sheet.gauges(
        "corecached_proxy_destination_inflight",
        "Requests sent that have no reply yet",
        rows(|s| s.inflight),
    )?;
    sheet.gauges(
        "corecached_proxy_destination_concurrency_limit",
        "Gets that may be under way to it, over all shards; 0 without adaptive concurrency",
        rows(|s| s.concurrency_limit),
    )?;
    sheet.counters(
        "corecached_proxy_destination_requests",
        "Requests taken to be sent",
        rows(|s| s.requests),
    )?;
    sheet.counters("corecached_proxy_destination_replies", "Replies", rows(|s| s.replies))?;
    sheet.counters(
        "corecached_proxy_destination_failures",
        "Requests that failed, and errors it answered",
        rows(|s| s.failures),
    )?;
    sheet.counters("corecached_proxy_destination_found", "Values it answered", rows(|s| s.found))?;
    sheet.counters("corecached_proxy_destination_not_found", "Misses it answered", rows(|s| s.not_found))?;
    sheet.counters(
        "corecached_proxy_destination_connects",
        "Connections made to it",
        rows(|s| s.connects),
    )?;
    let waited =
        destinations.iter().map(|(&address, server)| (label(address), server.reply_ms as f64 / 1000.0));
    sheet.seconds(
        "corecached_proxy_destination_reply_seconds",
        "Time from request to reply, over all replies",
        waited,
    )
}

/// `10.0.0.1:11211` of `10.0.0.1:11211:ascii:plain:notcompressed-1000`, which is how mcrouter's stats write it.
pub(in super::super) fn short(address: &str) -> &str {
    address.split_once(":ascii:").map_or(address, |(short, _)| short)
}
