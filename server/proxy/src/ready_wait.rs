//! What a proxy that has just started waits for before it reports that it is ready: a first server with a
//! known address in each pool. Clients that were sent to it earlier would find an empty pool, or servers
//! without an address.
//!
//! The wait is bounded: one name that cannot be found must not keep a node without a proxy.

use std::time::{Duration, Instant};

use crate::config::{Config, Member, Pool};
use crate::discovery::Found;

/// The wait of a proxy that has just started.
#[derive(Debug)]
pub(crate) struct ReadyWait {
    since: Instant,
    wait_max: Duration,
    over: bool,
}

impl ReadyWait {
    /// A wait that began at `since` and lasts for `wait_max` at most; with zero it is over at once.
    #[must_use]
    pub(crate) fn new(since: Instant, wait_max: Duration) -> Self {
        Self { since, wait_max, over: false }
    }

    /// Whether the wait is over at `now`, with what was `found` until then. Once it is, it remains so: a
    /// proxy that serves does not become unready because of a new configuration.
    pub(crate) fn is_over(&mut self, config: &Config, found: &Found, now: Instant) -> bool {
        if self.over {
            return true;
        }
        let pools: Vec<&str> = empty_pools(config, found).collect();
        let waited = now.saturating_duration_since(self.since);
        self.over = pools.is_empty() || waited >= self.wait_max;
        if self.over && !pools.is_empty() && !self.wait_max.is_zero() {
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

/// The names of the pools that have no server, or no server with an address.
fn empty_pools<'a>(config: &'a Config, found: &'a Found) -> impl Iterator<Item = &'a str> {
    let has_no_address =
        |member: &Member| member.server().is_some_and(|server| !found.addresses.contains_key(server));
    let is_empty = move |pool: &&Pool| match pool.resolve {
        true => found.pools.get(&pool.name).is_none_or(Vec::is_empty),
        false => pool.members.iter().all(has_no_address),
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
        let mut wait = ReadyWait::new(since, Duration::from_secs(30));
        for pools in [&[][..], &["A"], &["B", "C"], &["A", "B"]] {
            assert!(!wait.is_over(&config, &found(&config, pools), since), "{pools:?}");
        }
        assert!(wait.is_over(&config, &found(&config, &["A", "B", "C"]), since));
        assert!(wait.is_over(&config, &found(&config, &[]), since));
    }

    #[test]
    fn it_is_over_when_the_time_is_and_at_once_where_there_is_none() {
        let (config, since) = (config(), Instant::now());
        let nothing = Found::default();
        let mut wait = ReadyWait::new(since, Duration::from_secs(30));
        assert!(!wait.is_over(&config, &nothing, since + Duration::from_millis(29_999)));
        assert!(wait.is_over(&config, &nothing, since + Duration::from_secs(30)));
        assert!(ReadyWait::new(since, Duration::ZERO).is_over(&config, &nothing, since));
    }
}
