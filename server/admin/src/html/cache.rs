//! The part of the page that shows the items of a cache.

use maud::{Markup, html};

use corecached_cache::CacheContext;
use corecached_shard::{ServerContext, counters};

pub(super) fn sections(server: &ServerContext, cache: &CacheContext) -> Markup {
    let (counters, store) = counters::sum(&server.cells);
    let memory = format!("{} of {} bytes", store.arena_bytes + store.index_bytes, cache.memory.limit_bytes());
    html! {
        h2 { "Items" }
        dl {
            dt { "stored" } dd { (store.items) " items, " (store.bytes) " bytes" }
            dt { "memory" } dd { (memory) }
            dt { "gets" } dd { (counters.commands.get_hits) " found, " (counters.commands.get_misses) " not found" }
            dt { "sets" } dd { (counters.commands.cmd_set) }
            dt { "evicted" } dd { (store.evictions) }
            dt { "expired" } dd { (store.reclaimed) }
        }
    }
}
