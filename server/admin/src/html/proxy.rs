//! The part of the page that shows a proxy: its pools and their rings, its destinations, hot keys, and the
//! events of its control thread.

use maud::{Markup, html};

use super::{none, table, time};
use corecached_proxy::stats::{DestinationStats, HotKeyReport, Totals};
use corecached_proxy::{ControlEvent, ProxyView, RingView};

use crate::page::proxy::short;

pub(super) fn sections(proxy: &ProxyView) -> Markup {
    let totals = Totals::new(&proxy.reports.read());
    let layout = proxy.control_log.layout();
    let rings = layout.as_ref().map_or(&[][..], |layout| layout.rings());
    html! {
        h2 { "Pools" }
        @if rings.is_empty() { (none("No pools.")) }
        @for ring in rings { (pool(ring)) }
        h2 { "Destinations" }
        (destinations(&totals))
        h2 { "Hot keys" }
        (spared(&totals))
        h2 { "Configuration" }
        (reloads(proxy))
        h2 { "Changes of addresses" }
        (events(&proxy.control_log.last_moves(), "None since the start."))
    }
}

fn pool(ring: &RingView) -> Markup {
    let row = |(member, share): &(String, Option<f64>)| {
        let share = share.map_or_else(String::new, |share| format!("{:.1} %", share * 100.0));
        html! { tr { td { (member) } td { (share) } } }
    };
    html! {
        h3 { (ring.pool) }
        p.quiet {
            (ring.members.len()) " members; "
            @match &ring.scheme { Some(scheme) => (scheme), None => "no route hashes over it" }
            @if ring.copies > 1 { ", " (ring.copies) " copies of each key" }
        }
        @if ring.members.is_empty() { p.bad { "No members." } }
        @else { (table(&["member", "share of the keys"], ring.members.iter().map(row))) }
    }
}

fn destinations(totals: &Totals) -> Markup {
    if totals.destinations.is_empty() {
        return none("No destinations.");
    }
    let heads = [
        "destination",
        "state",
        "connections",
        "pending",
        "in flight",
        "requests",
        "replies",
        "found",
        "not found",
        "latency",
        "ejections",
        "returns",
        "failures",
    ];
    table(&heads, totals.destinations.iter().map(|(address, server)| destination(address, server)))
}

fn destination(address: &str, server: &DestinationStats) -> Markup {
    let (state, class) = match server {
        server if server.is_ejected() => ("ejected", "bad"),
        server if server.is_up() => ("up", "good"),
        server if server.is_new() => ("new", "quiet"),
        server if server.connecting > 0 => ("connecting", "quiet"),
        _ => ("closed", "quiet"),
    };
    let kinds: Vec<String> = server
        .errors()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let latency = format!("{:.1} ms", server.latency_us() as f64 / 1000.0);
    html! {
        tr {
            td title=(address) { (short(address)) }
            td class={ (class) " text" } { (state) }
            @for number in [server.up, server.pending, server.inflight, server.requests, server.replies,
                            server.found, server.not_found] { td { (number) } }
            td { (latency) }
            td { (server.ejections) } td { (server.returns) }
            td.long { (kinds.join(", ")) }
        }
    }
}

fn spared(totals: &Totals) -> Markup {
    let count = |name| totals.counters.get(name).copied();
    let Some(joined) = count("single_flight_joined") else {
        return none("Not looked for: see --single-flight and --hot-keys.");
    };
    let row = |hot: &HotKeyReport| {
        let HotKeyReport { count, error, hits, kept_bytes, key } = hot;
        let kept = kept_bytes.map_or_else(|| "no".to_owned(), |bytes| bytes.to_string());
        html! { tr { td { (key) } td { (count) } td { (error) } td { (hits) } td { (kept) } } }
    };
    html! {
        dl {
            dt { "gets joined" } dd { (joined) }
            dt { "kept values" } dd { "answered " (count("hot_key_hits").unwrap_or(0)) " gets; "
                (count("hot_key_bytes").unwrap_or(0)) " bytes now" }
            dt { "keys watched" } dd { (count("hot_keys").unwrap_or(0)) }
        }
        @if !totals.hot.is_empty() {
            (table(&["key", "gets lately", "too many by at most", "answered here", "bytes kept"], totals.hot.iter().map(row)))
        }
    }
}

fn reloads(proxy: &ProxyView) -> Markup {
    html! {
        dl {
            dt { "changes in use" } dd { (proxy.control_log.reloads()) }
            dt { "wrong ones" } dd { (proxy.config_failures()) }
        }
        (events(&proxy.control_log.last_reloads(), "As it was read at the start."))
    }
}

fn events(events: &[ControlEvent], absent: &str) -> Markup {
    if events.is_empty() {
        return none(absent);
    }
    let row = |event: &ControlEvent| {
        html! { tr { td { (time(event.at_s)) } td class=(if event.is_error { "long bad" } else { "long" }) { (event.text) } } }
    };
    table(&["when", "what"], events.iter().map(row))
}
