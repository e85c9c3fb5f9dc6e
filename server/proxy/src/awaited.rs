//! What a proxy that has just started waits for before it says that it is ready: in each pool a first server that is
//! somewhere. Clients sent to it earlier would meet an empty pool, or servers whose names have not been found.
//!
//! It waits for so long and no longer: one name that is missing must not keep a node without a proxy.

use std::time::{Duration, Instant};

use super::config::{Config, Member, Pool};
use crate::discovery::Found;

/// See the head of the file.
#[derive(Debug)]
pub struct Awaited {
    since: Instant,
    /// How long at most.
    most: Duration,
    over: bool,
}

impl Awaited {
    /// From `since` on, for `most` at most; zero waits for nothing.
    #[must_use]
    pub fn new(since: Instant, most: Duration) -> Self {
        Self { since, most, over: false }
    }

    /// Whether it is over, now that this was found. Once it is, it is over for good: a proxy that serves does not become
    /// unready because of what a new configuration names.
    pub fn is_over(&mut self, config: &Config, found: &Found, now: Instant) -> bool {
        if self.over {
            return true;
        }
        let pools: Vec<&str> = empty(config, found).collect();
        let waited = now.saturating_duration_since(self.since);
        self.over = pools.is_empty() || waited >= self.most;
        if self.over && !pools.is_empty() && !self.most.is_zero() {
            tracing::warn!(
                "ready, although no server of pool {} was found in {} ms (--ready-wait-ms): its keys are \
                 answered with errors until there is one",
                pools.join(", "),
                waited.as_millis()
            );
        }
        self.over
    }
}

/// Pools whose names have come to no server, or none of whose servers has an address.
fn empty<'a>(config: &'a Config, found: &'a Found) -> impl Iterator<Item = &'a str> {
    let is_nowhere =
        |member: &Member| member.server().is_some_and(|server| !found.addresses.contains_key(server));
    let is_empty = move |pool: &&Pool| match pool.resolve {
        true => found.pools.get(&pool.name).is_none_or(Vec::is_empty),
        false => pool.members.iter().all(is_nowhere),
    };
    let named = config.pools.iter().filter(|pool| !pool.members.is_empty());
    named.filter(is_empty).map(|pool| pool.name.as_str())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::{Options, Server};

    const CONFIG: &str = r#"{"pools": {"A": {"servers": ["a.test:1"], "resolve": true}, "B": {"servers": ["b.test:1"], "resolve": true},
        "C": {"servers": ["c.test:1", "d.test:1"]}, "D": {"servers": [], "resolve": true}}, "route": "PoolRoute|A"}"#;

    fn config() -> Config {
        Config::parse("test", CONFIG, &Options::default(), &|_| Err("no files".into())).unwrap()
    }

    /// The first server of each of these pools is somewhere, and there are no others.
    fn found(config: &Config, pools: &[&str]) -> Found {
        let mut found = Found::default();
        for pool in &config.pools {
            let first = pool.members.first().filter(|_| pools.contains(&&*pool.name));
            let servers: Vec<Server> = first.into_iter().filter_map(Member::server).cloned().collect();
            let address = |server: &Server| (server.clone(), SocketAddr::from(([127, 0, 0, 1], 1)).into());
            found.addresses.extend(servers.iter().map(address));
            if pool.resolve {
                found.pools.insert(pool.name.clone(), servers);
            }
        }
        found
    }

    #[test]
    fn it_is_over_when_each_pool_has_a_server_somewhere_and_stays_so() {
        let (config, since) = (config(), Instant::now());
        let mut awaited = Awaited::new(since, Duration::from_secs(30));
        for pools in [&[][..], &["A"], &["B", "C"], &["A", "B"]] {
            assert!(!awaited.is_over(&config, &found(&config, pools), since), "{pools:?}");
        }
        assert!(awaited.is_over(&config, &found(&config, &["A", "B", "C"]), since));
        assert!(awaited.is_over(&config, &found(&config, &[]), since));
    }

    #[test]
    fn it_is_over_when_the_time_is_and_at_once_where_there_is_none() {
        let (config, since) = (config(), Instant::now());
        let nothing = Found::default();
        let mut awaited = Awaited::new(since, Duration::from_secs(30));
        assert!(!awaited.is_over(&config, &nothing, since + Duration::from_millis(29_999)));
        assert!(awaited.is_over(&config, &nothing, since + Duration::from_secs(30)));
        assert!(Awaited::new(since, Duration::ZERO).is_over(&config, &nothing, since));
    }
}
