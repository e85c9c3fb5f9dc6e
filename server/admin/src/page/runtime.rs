//! What every server has, cache or proxy: clients' connections, and what each shard did.

use std::fmt;
use std::sync::atomic::Ordering;

use super::{Labels, Sheet};
use crate::metrics::{self, Counters};
use crate::server::Shared;

pub(super) fn write(sheet: &mut Sheet<'_>, shared: &Shared) -> fmt::Result {
    let (counters, _) = metrics::sum(&shared.cells);
    let role = if shared.config.is_proxy { "proxy" } else { "cache" };
    sheet.gauges(
        "corecached_build_info",
        "Always 1",
        [(vec![("version", crate::VERSION), ("role", role)], 1)],
    )?;
    let (backend, reason) = shared.backend.split_once(' ').unwrap_or((&shared.backend, ""));
    sheet.gauges(
        "corecached_io_backend_info",
        "Always 1: how the network is reached, and why not by io_uring",
        [(vec![("backend", backend), ("reason", reason)], 1)],
    )?;
    sheet.gauge("corecached_ready", "Whether clients should be sent here", shared.is_ready().into())?;
    sheet.gauge("corecached_shards", "Shards, one a core", shared.cells.len() as u64)?;

    let admission = &shared.admission;
    sheet.gauge("memcached_current_connections", "Clients connected now", admission.open() as u64)?;
    sheet.gauge(
        "memcached_max_connections",
        "Most clients at once, -c",
        shared.config.connections_max as u64,
    )?;
    sheet.counter("memcached_connections", "Clients that connected", admission.accepted())?;
    sheet.counter(
        "memcached_connections_rejected",
        "Clients turned away at the limit",
        admission.rejected(),
    )?;
    sheet.counter(
        "memcached_connections_yielded",
        "Times a connection had to let others go first",
        counters.conn_yields,
    )?;
    sheet.counter(
        "memcached_connections_listener_disabled",
        "Connections that could not be accepted for want of descriptors",
        counters.listen_disabled_num,
    )?;
    let accepting = !shared.stopping.load(Ordering::Relaxed);
    sheet.gauge("memcached_accepting_connections", "Whether clients may connect", accepting.into())?;
    sheet.counter("memcached_read_bytes", "Bytes received from clients", counters.bytes_read)?;
    sheet.counter("memcached_written_bytes", "Bytes sent to clients", counters.bytes_written)?;

    shards(sheet, shared)
}

/// A row a shard.
fn shards(sheet: &mut Sheet<'_>, shared: &Shared) -> fmt::Result {
    let names: Vec<String> = (0..shared.cells.len()).map(|shard| shard.to_string()).collect();
    let read: Vec<_> = shared.cells.iter().map(metrics::Cells::read).collect();
    let label = |shard: usize| -> Labels<'_> { vec![("shard", &names[shard])] };
    type Of = fn(&Counters) -> u64;
    let counts: [(&str, &str, Of); 7] = [
        ("corecached_shard_turns", "Times the shard looked for work", |c| c.turns),
        ("corecached_shard_turns_busy", "Turns that found some", |c| c.turns_busy),
        ("corecached_shard_waits", "Times it waited for the kernel", |c| c.waits),
        ("corecached_shard_wakeups", "Times it woke another shard", |c| c.wakeups),
        ("corecached_shard_forwarded", "Requests it sent to another shard", |c| c.forwarded),
        ("corecached_shard_borrowed", "Requests it carried out for a shard that slept", |c| c.borrowed),
        ("corecached_shard_requests", "Keys asked for or stored", |c| c.cmd_get + c.cmd_set + c.cmd_touch),
    ];
    for (name, help, of) in counts {
        sheet.counters(name, help, read.iter().enumerate().map(|(shard, (c, _))| (label(shard), of(c))))?;
    }
    if !shared.config.is_proxy {
        let rows = || read.iter().enumerate();
        sheet.gauges(
            "corecached_shard_items",
            "Items of the shard",
            rows().map(|(shard, (_, store))| (label(shard), store.items)),
        )?;
        sheet.gauges(
            "corecached_shard_bytes",
            "Bytes of the shard's items",
            rows().map(|(shard, (_, store))| (label(shard), store.bytes)),
        )?;
    }
    Ok(())
}
