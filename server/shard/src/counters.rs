//! What a shard counts, and how others read it.
//!
//! A shard counts in plain [`Counters`] and publishes them to its [`Cells`] once a turn, before anybody can see the
//! replies of that turn; whoever asks sums over the cells of all shards without stopping them.

use std::sync::atomic::{AtomicU64, Ordering};

use corecached_engine::StoreStats;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one shard, or the sum over several.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// How many there are.
            pub const COUNT: usize = [$(stringify!($name)),*].len();

            fn to_array(self) -> [u64; Self::COUNT] {
                [$(self.$name),*]
            }

            fn from_array(values: [u64; Self::COUNT]) -> Self {
                let [$($name),*] = values;
                Self { $($name),* }
            }
        }
    };
}

counters! {
    /// Keys asked for by `get`, `gets` and `mg` without touch.
    cmd_get,
    /// Values stored or tried.
    cmd_set,
    /// `flush_all`, refused ones too.
    cmd_flush,
    /// Keys asked for by `touch`, `gat`, `mg` with `T`.
    cmd_touch,
    /// Meta commands.
    cmd_meta,
    /// Keys found by those of `cmd_get`.
    get_hits,
    /// Keys not found by those of `cmd_get`.
    get_misses,
    /// `delete`, `md` that found the key.
    delete_hits,
    /// `delete`, `md` that did not.
    delete_misses,
    /// `incr`, `ma` that found the key.
    incr_hits,
    /// `incr`, `ma` that did not.
    incr_misses,
    /// `decr`, `ma` that found the key.
    decr_hits,
    /// `decr`, `ma` that did not.
    decr_misses,
    /// `cas` that stored.
    cas_hits,
    /// `cas` on a missing key.
    cas_misses,
    /// `cas` with another version than the stored one.
    cas_badval,
    /// `touch`, `gat` that found the key.
    touch_hits,
    /// `touch`, `gat` that did not.
    touch_misses,
    /// Values over the item size limit.
    store_too_large,
    /// Values there was no room for.
    store_no_memory,
    /// Values not sent because too much of the store was being sent already: answered as misses.
    response_obj_oom,
    /// Passwords shown.
    auth_cmds,
    /// Passwords that were wrong.
    auth_errors,
    /// Bytes received from clients.
    bytes_read,
    /// Bytes handed to sockets for clients.
    bytes_written,
    /// Times a connection had to let others go first.
    conn_yields,
    /// Connections closed for saying nothing for too long.
    idle_kicks,
    /// Connections that could not be accepted for want of descriptors.
    listen_disabled_num,
    /// Requests sent to another shard.
    forwarded,
    /// Requests carried out on the slice of another shard while it slept.
    borrowed,
    /// Times the shard looked at its driver.
    turns,
    /// Turns that found something to do.
    turns_busy,
    /// Times it waited for the kernel.
    waits,
    /// Other shards woken.
    wakeups,
}

macro_rules! store_cells {
    ($($name:ident),* $(,)?) => {
        const STORE_COUNT: usize = [$(stringify!($name)),*].len();

        fn store_to_array(stats: &StoreStats) -> [u64; STORE_COUNT] {
            let StoreStats { $($name),* } = *stats;
            [$($name),*]
        }

        fn store_from_array(values: [u64; STORE_COUNT]) -> StoreStats {
            let [$($name),*] = values;
            StoreStats { $($name),* }
        }
    };
}

store_cells!(
    items,
    total_items,
    bytes,
    evictions,
    evicted_unfetched,
    reclaimed,
    expired_unfetched,
    segments_total,
    segments_free,
    segments_pinned,
    segment_bytes,
    index_bytes,
    ghost_bytes,
    arena_bytes,
    moved_items,
    moved_bytes,
    out_of_memory,
    uploads,
    memory_bytes,
);

/// One shard's published numbers.
#[derive(Debug)]
pub struct Cells {
    counters: [AtomicU64; Counters::COUNT],
    store: [AtomicU64; STORE_COUNT],
    /// What the store had counted at the last `stats reset`: its own counts never go back.
    store_at_reset: [AtomicU64; STORE_COUNT],
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            counters: [const { AtomicU64::new(0) }; _],
            store: [const { AtomicU64::new(0) }; _],
            store_at_reset: [const { AtomicU64::new(0) }; _],
        }
    }
}

impl Cells {
    /// Show `counters` to readers. By their shard.
    pub fn publish(&self, counters: &Counters) {
        write(&self.counters, counters.to_array());
    }

    /// Show `store` to readers. By whoever holds the slice.
    pub fn publish_store(&self, store: &StoreStats) {
        write(&self.store, store_to_array(store));
    }

    /// What the store counts (not what it measures) is shown from `store` on.
    pub fn reset_store(&self, store: &StoreStats) {
        write(&self.store_at_reset, store_to_array(store));
    }

    /// What was published last.
    #[must_use]
    pub fn read(&self) -> (Counters, StoreStats) {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let store = store_from_array(self.store.each_ref().map(load));
        let at_reset = store_from_array(self.store_at_reset.each_ref().map(load));
        (Counters::from_array(self.counters.each_ref().map(load)), since(&store, &at_reset))
    }
}

impl Cells {
    /// What the shard did, by the names that `stats cores` shows. The first three are of its store.
    #[must_use]
    pub fn core_numbers(&self) -> [(&'static str, u64); 12] {
        let (counters, store) = self.read();
        let requests = counters.cmd_get + counters.cmd_set + counters.cmd_touch;
        [
            ("items", store.items),
            ("bytes", store.bytes),
            ("memory_bytes", store.memory_bytes),
            ("requests", requests),
            ("forwarded", counters.forwarded),
            ("borrowed", counters.borrowed),
            ("wakeups", counters.wakeups),
            ("turns", counters.turns),
            ("turns_busy", counters.turns_busy),
            ("turns_waited", counters.waits),
            ("requests_per_busy_turn", requests / counters.turns_busy.max(1)),
            ("conn_yields", counters.conn_yields),
        ]
    }
}

fn write<const N: usize>(cells: &[AtomicU64; N], values: [u64; N]) {
    for (cell, value) in cells.iter().zip(values) {
        cell.store(value, Ordering::Relaxed);
    }
}

/// `stats` with what it counts (not what it measures) taken from `reset` on.
fn since(stats: &StoreStats, reset: &StoreStats) -> StoreStats {
    StoreStats {
        total_items: stats.total_items.saturating_sub(reset.total_items),
        evictions: stats.evictions.saturating_sub(reset.evictions),
        evicted_unfetched: stats.evicted_unfetched.saturating_sub(reset.evicted_unfetched),
        reclaimed: stats.reclaimed.saturating_sub(reset.reclaimed),
        expired_unfetched: stats.expired_unfetched.saturating_sub(reset.expired_unfetched),
        moved_items: stats.moved_items.saturating_sub(reset.moved_items),
        moved_bytes: stats.moved_bytes.saturating_sub(reset.moved_bytes),
        out_of_memory: stats.out_of_memory.saturating_sub(reset.out_of_memory),
        ..*stats
    }
}

/// The sum over all shards.
#[must_use]
pub fn sum(cells: &[Cells]) -> (Counters, StoreStats) {
    let mut counters = [0u64; Counters::COUNT];
    let mut store = [0u64; STORE_COUNT];
    for cells in cells {
        let (of_shard, of_store) = cells.read();
        counters.iter_mut().zip(of_shard.to_array()).for_each(|(sum, value)| *sum += value);
        store.iter_mut().zip(store_to_array(&of_store)).for_each(|(sum, value)| *sum += value);
    }
    (Counters::from_array(counters), store_from_array(store))
}
