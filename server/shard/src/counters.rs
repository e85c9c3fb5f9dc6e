//! What a shard counts, and how other threads read it.
//!
//! A shard counts in plain [`Counters`]. Once a turn, before the replies of that turn are sent, it publishes
//! them to its [`Cells`]. A reader adds up the cells of all shards without stopping them.

use std::sync::atomic::{AtomicU64, Ordering};

use corecached_engine::{FoundDead, StoreStats};

macro_rules! counters {
    (
        $(#[$about:meta])*
        $type:ident {
            $([nested] $nested:ident: $nested_type:ty = $nested_doc:literal;)?
            $($(#[$doc:meta])* $name:ident,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $type {
            $(#[doc = $nested_doc] pub $nested: $nested_type,)?
            $($(#[$doc])* pub $name: u64,)*
        }

        impl $type {
            /// Number of counters, without those of another struct in it.
            const COUNT: usize = [$(stringify!($name)),*].len();

            fn to_array(self) -> [u64; Self::COUNT] {
                [$(self.$name),*]
            }

            fn from_array($($nested: $nested_type,)? values: [u64; Self::COUNT]) -> Self {
                let [$($name),*] = values;
                Self { $($nested,)? $($name),* }
            }
        }
    };
}

counters! {
    /// What the commands of one shard did, or the sums over several shards. All of them only grow, until `stats reset`.
    CommandCounters {
        /// Keys asked for by `get`, `gets` and `mg`, without those that `mg` found and touched.
        cmd_get,
        /// Requests to store a value whose value was received, whether or not it was stored.
        cmd_set,
        /// `flush_all` commands, with those that were refused.
        cmd_flush,
        /// Keys asked for by `touch` and `gat`, and those found by `mg` with `T`.
        cmd_touch,
        /// Meta commands.
        cmd_meta,
        /// Keys of `cmd_get` that were found.
        get_hits,
        /// Keys of `cmd_get` that were not found.
        get_misses,
        /// `delete` and `md` commands that deleted the item.
        delete_hits,
        /// `delete` and `md` commands that did not find the key, or not with the wanted version.
        delete_misses,
        /// `incr` commands, and incrementing `ma` commands, that found the key.
        incr_hits,
        /// `incr` commands, and incrementing `ma` commands, that did not find the key.
        incr_misses,
        /// `decr` commands, and decrementing `ma` commands, that found the key.
        decr_hits,
        /// `decr` commands, and decrementing `ma` commands, that did not find the key.
        decr_misses,
        /// `cas` commands that stored their value.
        cas_hits,
        /// `cas` commands on a missing key.
        cas_misses,
        /// `cas` commands with another version than the stored one.
        cas_badval,
        /// Keys of `cmd_touch` that were found.
        touch_hits,
        /// Keys of `cmd_touch` that were not found.
        touch_misses,
    }
}

counters! {
    /// The counters of one shard, or the sums over several shards. All of them only grow, until `stats reset`.
    Counters {
        [nested] commands: CommandCounters = "What commands did.";
        /// Values over the item size limit.
        store_too_large,
        /// Values that were not stored because there was no memory for them.
        store_no_memory,
        /// Values that were answered as misses because too much of the store was being sent already.
        response_obj_oom,
        /// Attempts to authenticate.
        auth_cmds,
        /// Attempts to authenticate that failed.
        auth_errors,
        /// Bytes received from clients.
        bytes_read,
        /// Bytes of replies to clients, counted when they are given to the driver.
        bytes_written,
        /// How often a connection had used up its share of a turn and had to wait for the next.
        conn_yields,
        /// Connections that were closed because they were idle for too long.
        idle_kicks,
        /// Connections that could not be accepted because the process had no file descriptor left.
        listen_disabled_num,
        /// Requests sent to another shard.
        forwarded,
        /// Requests carried out on the slice of another shard while it slept.
        borrowed,
        /// Turns of the shard.
        turns,
        /// Turns that had something to do.
        turns_busy,
        /// Turns that waited for the kernel.
        waits,
        /// How often it woke another shard.
        wakeups,
    }
}

macro_rules! store_cells {
    ($($name:ident),* $(,)?) => {
        const STORE_COUNT: usize = [$(stringify!($name)),*, "expired", "flushed"].len();

        fn store_to_array(stats: &StoreStats) -> [u64; STORE_COUNT] {
            let StoreStats { found_dead: FoundDead { expired, flushed }, $($name),* } = *stats;
            [$($name),*, expired, flushed]
        }

        fn store_from_array(values: [u64; STORE_COUNT]) -> StoreStats {
            let [$($name),*, expired, flushed] = values;
            StoreStats { found_dead: FoundDead { expired, flushed }, $($name),* }
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

/// The published numbers of one shard.
#[derive(Debug)]
pub struct Cells {
    commands: [AtomicU64; CommandCounters::COUNT],
    counters: [AtomicU64; Counters::COUNT],
    store: [AtomicU64; STORE_COUNT],
    /// The numbers of the store at the last `stats reset`. The counts of the store itself are never reset.
    store_at_reset: [AtomicU64; STORE_COUNT],
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            commands: [const { AtomicU64::new(0) }; _],
            counters: [const { AtomicU64::new(0) }; _],
            store: [const { AtomicU64::new(0) }; _],
            store_at_reset: [const { AtomicU64::new(0) }; _],
        }
    }
}

impl Cells {
    /// Shows `counters` to readers. Only the shard that these cells belong to may call this.
    pub fn publish(&self, counters: &Counters) {
        write(&self.commands, counters.commands.to_array());
        write(&self.counters, counters.to_array());
    }

    /// Shows `store` to readers. Only a shard that holds the slice may call this.
    pub fn publish_store(&self, store: &StoreStats) {
        write(&self.store, store_to_array(store));
    }

    /// From now on, shows the counts of the store less those in `store`. Its measured sizes are shown as they
    /// are.
    pub fn reset_store(&self, store: &StoreStats) {
        write(&self.store_at_reset, store_to_array(store));
    }

    /// The numbers that were published last.
    #[must_use]
    pub fn read(&self) -> (Counters, StoreStats) {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let store = store_from_array(self.store.each_ref().map(load));
        let at_reset = store_from_array(self.store_at_reset.each_ref().map(load));
        let commands = CommandCounters::from_array(self.commands.each_ref().map(load));
        (Counters::from_array(commands, self.counters.each_ref().map(load)), since(&store, &at_reset))
    }

    /// The numbers of this shard, with the names that `stats cores` shows. The first three belong to its
    /// store.
    #[must_use]
    pub fn core_numbers(&self) -> [(&'static str, u64); 12] {
        let (counters, store) = self.read();
        let requests = counters.commands.cmd_get + counters.commands.cmd_set + counters.commands.cmd_touch;
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

/// Stores each of `values` in its cell.
fn write<const N: usize>(cells: &[AtomicU64; N], values: [u64; N]) {
    for (cell, value) in cells.iter().zip(values) {
        cell.store(value, Ordering::Relaxed);
    }
}

/// `stats` with its counts reduced by those in `reset`. Measured sizes stay as they are.
fn since(stats: &StoreStats, reset: &StoreStats) -> StoreStats {
    StoreStats {
        total_items: stats.total_items.saturating_sub(reset.total_items),
        evictions: stats.evictions.saturating_sub(reset.evictions),
        evicted_unfetched: stats.evicted_unfetched.saturating_sub(reset.evicted_unfetched),
        reclaimed: stats.reclaimed.saturating_sub(reset.reclaimed),
        expired_unfetched: stats.expired_unfetched.saturating_sub(reset.expired_unfetched),
        found_dead: FoundDead {
            expired: stats.found_dead.expired.saturating_sub(reset.found_dead.expired),
            flushed: stats.found_dead.flushed.saturating_sub(reset.found_dead.flushed),
        },
        moved_items: stats.moved_items.saturating_sub(reset.moved_items),
        moved_bytes: stats.moved_bytes.saturating_sub(reset.moved_bytes),
        out_of_memory: stats.out_of_memory.saturating_sub(reset.out_of_memory),
        ..*stats
    }
}

/// The sums over all shards.
#[must_use]
pub fn sum(cells: &[Cells]) -> (Counters, StoreStats) {
    let mut commands = [0u64; CommandCounters::COUNT];
    let mut counters = [0u64; Counters::COUNT];
    let mut store = [0u64; STORE_COUNT];
    for cells in cells {
        let (of_shard, of_store) = cells.read();
        let of_commands = of_shard.commands.to_array();
        commands.iter_mut().zip(of_commands).for_each(|(sum, value)| *sum += value);
        counters.iter_mut().zip(of_shard.to_array()).for_each(|(sum, value)| *sum += value);
        store.iter_mut().zip(store_to_array(&of_store)).for_each(|(sum, value)| *sum += value);
    }
    let commands = CommandCounters::from_array(commands);
    (Counters::from_array(commands, counters), store_from_array(store))
}
