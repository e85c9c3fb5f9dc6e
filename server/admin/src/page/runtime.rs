//! Metrics of every server, cache or proxy: its clients' connections, and the work of each shard.

use std::fmt;

use super::{Labels, MetricsWriter};
use crate::view::{AdminView, Role};
use corecached_shard::VERSION;
use corecached_shard::counters::{self, Counters};

pub(super) fn write(writer: &mut MetricsWriter<'_>, view: &AdminView) -> fmt::Result {
    let (counters, _) = counters::sum(&view.server.cells);
    let server = &view.server;
    let role = view.role.name();
    writer.gauges("corecached_build_info", "Always 1", [(vec![("version", VERSION), ("role", role)], 1)])?;
    let (backend, reason) = server.network.backend.split_once(' ').unwrap_or((&server.network.backend, ""));
    writer.gauges(
        "corecached_io_backend_info",
        "Always 1: how the network is reached, and why not by io_uring",
        [(vec![("backend", backend), ("reason", reason)], 1)],
    )?;
    writer.gauge(
        "corecached_ready",
        "Whether clients should be sent here",
        server.lifecycle.unready().is_none().into(),
    )?;
    writer.gauge("corecached_shards", "Shards, one a core", view.server.cells.len() as u64)?;

    let admission = &server.network.admission;
    writer.gauge("memcached_current_connections", "Clients connected now", admission.open() as u64)?;
    writer.gauge("memcached_max_connections", "Most clients at once, -c", view.connections_max as u64)?;
    writer.counter("memcached_connections", "Clients that connected", admission.accepted())?;
    writer.counter(
        "memcached_connections_rejected",
        "Clients turned away at the limit",
        admission.rejected(),
    )?;
    writer.counter(
        "memcached_connections_yielded",
        "Times a connection had to let others go first",
        counters.conn_yields,
    )?;
    writer.counter(
        "memcached_connections_listener_disabled",
        "Connections that could not be accepted because no descriptor was free",
        counters.listen_disabled_num,
    )?;
    let accepting = !server.lifecycle.is_stopping();
    writer.gauge("memcached_accepting_connections", "Whether clients may connect", accepting.into())?;
    writer.counter("memcached_read_bytes", "Bytes received from clients", counters.bytes_read)?;
    writer.counter("memcached_written_bytes", "Bytes sent to clients", counters.bytes_written)?;

    shards(writer, view)
}

/// Metrics with one sample for each shard.
fn shards(writer: &mut MetricsWriter<'_>, view: &AdminView) -> fmt::Result {
    let names: Vec<String> = (0..view.server.cells.len()).map(|shard| shard.to_string()).collect();
    let read: Vec<_> = view.server.cells.iter().map(counters::Cells::read).collect();
    let label = |shard: usize| -> Labels<'_> { vec![("shard", &names[shard])] };
    type Of = fn(&Counters) -> u64;
    let counts: [(&str, &str, Of); 7] = [
        ("corecached_shard_turns", "Times the shard looked for work", |c| c.turns),
        ("corecached_shard_turns_busy", "Turns that found some", |c| c.turns_busy),
        ("corecached_shard_waits", "Times it waited for the kernel", |c| c.waits),
        ("corecached_shard_wakeups", "Times it woke another shard", |c| c.wakeups),
        ("corecached_shard_forwarded", "Requests it sent to another shard", |c| c.forwarded),
        ("corecached_shard_borrowed", "Requests it carried out for a shard that slept", |c| c.borrowed),
        ("corecached_shard_requests", "Keys asked for or stored", |c| {
            c.commands.cmd_get + c.commands.cmd_set + c.commands.cmd_touch
        }),
    ];
    for (name, help, of) in counts {
        writer.counters(name, help, read.iter().enumerate().map(|(shard, (c, _))| (label(shard), of(c))))?;
    }
    if matches!(view.role, Role::Cache(_)) {
        let rows = || read.iter().enumerate();
        writer.gauges(
            "corecached_shard_items",
            "Items of the shard",
            rows().map(|(shard, (_, store))| (label(shard), store.items)),
        )?;
        writer.gauges(
            "corecached_shard_bytes",
            "Bytes of the shard's items",
            rows().map(|(shard, (_, store))| (label(shard), store.bytes)),
        )?;
    }
    Ok(())
}
