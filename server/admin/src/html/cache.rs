//! Of a cache: what it holds and how often it had it.

use maud::{Markup, html};

use crate::metrics;
use crate::server::Shared;

pub(super) fn sections(shared: &Shared) -> Markup {
    let (counters, store) = metrics::sum(&shared.cells);
    let memory = format!("{} of {} bytes", store.arena_bytes + store.index_bytes, shared.memory_bytes());
    html! {
        h2 { "Items" }
        dl {
            dt { "stored" } dd { (store.items) " items, " (store.bytes) " bytes" }
            dt { "memory" } dd { (memory) }
            dt { "gets" } dd { (counters.get_hits) " found, " (counters.get_misses) " not found" }
            dt { "sets" } dd { (counters.cmd_set) }
            dt { "evicted" } dd { (store.evictions) }
            dt { "expired" } dd { (store.reclaimed) }
        }
    }
}
