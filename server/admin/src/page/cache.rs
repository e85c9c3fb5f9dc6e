//! What a cache counts, under memcached_exporter's names.

use std::fmt;

use super::Sheet;
use crate::metrics;
use crate::server::Shared;

pub(super) fn write(sheet: &mut Sheet<'_>, shared: &Shared) -> fmt::Result {
    let (counters, store) = metrics::sum(&shared.cells);
    sheet.gauge("memcached_up", "Always 1: the server itself says so", 1)?;
    sheet.gauges(
        "memcached_version",
        "Version of memcached whose protocol is spoken",
        [(vec![("version", crate::MEMCACHED_VERSION)], 1)],
    )?;
    sheet.gauge("memcached_uptime_seconds", "Seconds since the start", shared.clock.uptime_s().into())?;
    sheet.gauge("memcached_time_seconds", "Unix time of the server", shared.clock.now_s().into())?;

    let command = |command, status| vec![("command", command), ("status", status)];
    sheet.counters(
        "memcached_commands",
        "Commands by what came of them",
        [
            (command("get", "hit"), counters.get_hits),
            (command("get", "miss"), counters.get_misses),
            (command("set", "hit"), counters.cmd_set),
            (command("delete", "hit"), counters.delete_hits),
            (command("delete", "miss"), counters.delete_misses),
            (command("incr", "hit"), counters.incr_hits),
            (command("incr", "miss"), counters.incr_misses),
            (command("decr", "hit"), counters.decr_hits),
            (command("decr", "miss"), counters.decr_misses),
            (command("cas", "hit"), counters.cas_hits),
            (command("cas", "miss"), counters.cas_misses),
            (command("cas", "badval"), counters.cas_badval),
            (command("touch", "hit"), counters.touch_hits),
            (command("touch", "miss"), counters.touch_misses),
            (command("flush", "hit"), counters.cmd_flush),
        ],
    )?;
    sheet.counter(
        "corecached_meta_commands",
        "Meta commands; also counted by what they do",
        counters.cmd_meta,
    )?;
    sheet.counters(
        "corecached_store_refused",
        "Values not stored, by reason",
        [
            (vec![("reason", "too_large")], counters.store_too_large),
            (vec![("reason", "no_memory")], counters.store_no_memory),
        ],
    )?;

    sheet.gauge("memcached_current_items", "Items stored now", store.items)?;
    sheet.counter("memcached_items", "Items ever stored", store.total_items)?;
    sheet.counter(
        "memcached_items_evicted",
        "Items dropped before they expired, to make room",
        store.evictions,
    )?;
    sheet.counter("memcached_items_reclaimed", "Expired items whose room was used again", store.reclaimed)?;
    sheet.counter(
        "corecached_items_evicted_unfetched",
        "Items dropped to make room that had never been asked for",
        store.evicted_unfetched,
    )?;
    sheet.counter(
        "corecached_items_expired_unfetched",
        "Items that expired without having been asked for",
        store.expired_unfetched,
    )?;

    let memory_bytes = shared.memory_bytes() as u64;
    sheet.gauge("memcached_current_bytes", "Bytes of items stored now", store.bytes)?;
    sheet.gauge("memcached_limit_bytes", "Most memory, -m", memory_bytes)?;
    sheet.gauge(
        "memcached_malloced_bytes",
        "Memory taken for items and their index",
        store.arena_bytes + store.index_bytes + store.ghost_bytes,
    )?;
    sheet.gauge(
        "corecached_stores_limit_bytes",
        "Of -m, what buffers, connections and the process itself leave to items and their index",
        shared.stores_bytes() as u64,
    )?;
    sheet.gauge("corecached_segments", "Segments that items are stored in", store.segments_total)?;
    sheet.gauge("corecached_segments_free", "Segments with nothing in them", store.segments_free)?;
    sheet.gauge("corecached_segments_pinned", "Segments being sent from", store.segments_pinned)?;
    sheet.counter("corecached_items_moved", "Items copied by eviction to keep them", store.moved_items)
}
