//! Maglev: a prime-sized table in which the servers take turns to claim their next wanted slot.
//!
//! No memcached client uses it. Both numbers of a server are XXH3 of its `host:port`, with seeds 0 and 1, so
//! that the table depends on names alone.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::RingServer;

/// Slots, a prime: with a hundred servers their shares differ by less than 1 percent.
const SLOTS: usize = 65537;
const FREE: u32 = u32::MAX;

/// The table of `servers`, of which there are fewer than slots.
pub(super) fn table(servers: &[RingServer]) -> Box<[u32]> {
    let mut wanted: Vec<(usize, usize)> = servers
        .iter()
        .map(|server| {
            let name = format!("{}:{}", server.host, server.port);
            let hash = |seed| xxh3_64_with_seed(name.as_bytes(), seed);
            ((hash(0) % SLOTS as u64) as usize, (hash(1) % (SLOTS as u64 - 1) + 1) as usize)
        })
        .collect();
    let mut table = vec![FREE; SLOTS];
    let mut claimed = 0;
    while claimed < SLOTS {
        for (server, (slot, skip)) in wanted.iter_mut().enumerate() {
            while table[*slot] != FREE {
                *slot = (*slot + *skip) % SLOTS;
            }
            table[*slot] = server as u32;
            claimed += 1;
            if claimed == SLOTS {
                break;
            }
        }
    }
    table.into()
}

/// Most servers a table is made for.
pub(super) const SERVERS_MAX: usize = SLOTS / 100;
