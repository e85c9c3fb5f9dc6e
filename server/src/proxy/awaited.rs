//! What a proxy that has just started waits for before it says that it is ready: a first server in each pool that stands
//! for all servers of a name. Clients sent to it earlier would meet an empty pool.
//!
//! It waits for so long and no longer: one name that is missing must not keep a node without a proxy.

use std::time::{Duration, Instant};

use super::config::Config;
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

/// Pools whose names have come to no server.
fn empty<'a>(config: &'a Config, found: &'a Found) -> impl Iterator<Item = &'a str> {
    let is_empty = |name: &str| found.pools.get(name).is_none_or(Vec::is_empty);
    let named = config.pools.iter().filter(|pool| pool.resolve && !pool.members.is_empty());
    named.map(|pool| pool.name.as_str()).filter(move |name| is_empty(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::{Member, Options};

    const CONFIG: &str = r#"{"pools": {"A": {"servers": ["a.test:1"], "resolve": true}, "B": {"servers": ["b.test:1"], "resolve": true},
        "C": {"servers": ["c.test:1"]}, "D": {"servers": [], "resolve": true}}, "route": "PoolRoute|A"}"#;

    fn config() -> Config {
        Config::parse("test", CONFIG, &Options::default(), &|_| Err("no files".into())).unwrap()
    }

    /// A server in each of these pools, and none in the others.
    fn found(config: &Config, pools: &[&str]) -> Found {
        let mut found = Found::default();
        for pool in &config.pools {
            let servers = pool.members.iter().filter_map(|member| match member {
                Member::Server(server) if pools.contains(&&*pool.name) => Some(server.clone()),
                _ => None,
            });
            found.pools.insert(pool.name.clone(), servers.collect());
        }
        found
    }

    #[test]
    fn it_is_over_when_each_pool_of_a_name_has_a_server_and_stays_so() {
        let (config, since) = (config(), Instant::now());
        let mut awaited = Awaited::new(since, Duration::from_secs(30));
        for pools in [&[][..], &["A"], &["B", "C"]] {
            assert!(!awaited.is_over(&config, &found(&config, pools), since), "{pools:?}");
        }
        assert!(awaited.is_over(&config, &found(&config, &["A", "B"]), since));
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
