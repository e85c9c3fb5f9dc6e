//! Metrics of a cache, under the names of memcached_exporter where it has them.

use std::fmt;

use super::MetricsWriter;
use corecached_cache::CacheContext;
use corecached_shard::counters;
use corecached_shard::{MEMCACHED_VERSION, ServerContext};

pub(super) fn write(
    writer: &mut MetricsWriter<'_>,
    server: &ServerContext,
    cache: &CacheContext,
) -> fmt::Result {
    let (counters, store) = counters::sum(&server.cells);
    writer.gauge("memcached_up", "Always 1: the server itself says so", 1)?;
    writer.gauges(
        "memcached_version",
        "Version of memcached whose protocol is spoken",
        [(vec![("version", MEMCACHED_VERSION)], 1)],
    )?;
    writer.gauge("memcached_uptime_seconds", "Seconds since the start", server.clock.uptime_s().into())?;
    writer.gauge("memcached_time_seconds", "Unix time of the server", server.clock.now_s().into())?;

    let command = |command, status| vec![("command", command), ("status", status)];
    writer.counters(
        "memcached_commands",
        "Commands by result",
        [
            (command("get", "hit"), counters.commands.get_hits),
            (command("get", "miss"), counters.commands.get_misses),
            (command("set", "hit"), counters.commands.cmd_set),
            (command("delete", "hit"), counters.commands.delete_hits),
            (command("delete", "miss"), counters.commands.delete_misses),
            (command("incr", "hit"), counters.commands.incr_hits),
            (command("incr", "miss"), counters.commands.incr_misses),
            (command("decr", "hit"), counters.commands.decr_hits),
            (command("decr", "miss"), counters.commands.decr_misses),
            (command("cas", "hit"), counters.commands.cas_hits),
            (command("cas", "miss"), counters.commands.cas_misses),
            (command("cas", "badval"), counters.commands.cas_badval),
            (command("touch", "hit"), counters.commands.touch_hits),
            (command("touch", "miss"), counters.commands.touch_misses),
            (command("flush", "hit"), counters.commands.cmd_flush),
        ],
    )?;
    writer.counter(
        "corecached_meta_commands",
        "Meta commands; also counted by what they do",
        counters.commands.cmd_meta,
    )?;
    writer.counters(
        "corecached_store_refused",
        "Values not stored, by reason",
        [
            (vec![("reason", "too_large")], counters.store_too_large),
            (vec![("reason", "no_memory")], counters.store_no_memory),
        ],
    )?;

    writer.gauge("memcached_current_items", "Items stored now", store.items)?;
    writer.counter("memcached_items", "Items ever stored", store.total_items)?;
    writer.counter(
        "memcached_items_evicted",
        "Items dropped before they expired, to make room",
        store.evictions,
    )?;
    writer.counter(
        "memcached_items_reclaimed",
        "Expired items whose room was used again",
        store.reclaimed,
    )?;
    writer.counter(
        "corecached_items_evicted_unfetched",
        "Items dropped to make room that had never been asked for",
        store.evicted_unfetched,
    )?;
    writer.counter(
        "corecached_items_expired_unfetched",
        "Items that expired without having been asked for",
        store.expired_unfetched,
    )?;

    let memory_bytes = cache.memory.limit_bytes() as u64;
    writer.gauge("memcached_current_bytes", "Bytes of items stored now", store.bytes)?;
    writer.gauge("memcached_limit_bytes", "Most memory, -m", memory_bytes)?;
    writer.gauge(
        "memcached_malloced_bytes",
        "Memory taken for items and their index",
        store.arena_bytes + store.index_bytes + store.ghost_bytes,
    )?;
    writer.gauge(
        "corecached_stores_limit_bytes",
        "Of -m, what buffers, connections and the process itself leave to items and their index",
        cache.memory.stores_bytes() as u64,
    )?;
    writer.gauge("corecached_segments", "Segments that items are stored in", store.segments_total)?;
    writer.gauge("corecached_segments_free", "Segments with nothing in them", store.segments_free)?;
    writer.gauge("corecached_segments_pinned", "Segments being sent from", store.segments_pinned)?;
    writer.counter("corecached_items_moved", "Items copied by eviction to keep them", store.moved_items)
}
