//! A pool of caches as proxies are told of it: a list, mcrouter's JSON, twemproxy's YAML.
//!
//! The JSON and the YAML are written here by hand: they hold addresses only, so nothing in them needs quoting.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::Failure;

/// Milliseconds a cache has to answer twemproxy; without, it would wait for ever.
const TIMEOUT_MS: u32 = 1000;

/// The caches behind a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Where they listen, in the order that hashing counts them by.
    pub destinations: Vec<SocketAddr>,
}

impl Pool {
    /// `host:port`, separated by commas.
    #[must_use]
    pub fn list(&self) -> String {
        self.joined(",", ToString::to_string)
    }

    /// mcrouter's configuration: one pool, and all keys to it. Has no blanks.
    #[must_use]
    pub fn json(&self) -> String {
        let servers = self.joined(",", |destination| format!("\"{destination}\""));
        format!(r#"{{"pools":{{"A":{{"servers":[{servers}]}}}},"route":"PoolRoute|A"}}"#)
    }

    /// twemproxy's configuration: its default hash and ring, one connection to each cache, none ever left out.
    #[must_use]
    pub fn yaml(&self, listen: SocketAddr) -> String {
        let servers = self.joined("", |destination| format!("    - {destination}:1\n"));
        format!(
            "pool:\n  listen: {listen}\n  hash: fnv1a_64\n  distribution: ketama\n  timeout: {TIMEOUT_MS}\n  \
             server_connections: 1\n  auto_eject_hosts: false\n  servers:\n{servers}"
        )
    }

    /// Put both into a directory, as `pool.json` and `pool.yml`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, directory: &Path, listen: SocketAddr) -> Result<(), Failure> {
        for (name, text) in [("pool.json", self.json()), ("pool.yml", self.yaml(listen))] {
            let path = directory.join(name);
            fs::write(&path, text).map_err(|error| Failure::from(error).during(path.display()))?;
        }
        Ok(())
    }

    fn joined(&self, between: &str, one: impl Fn(&SocketAddr) -> String) -> String {
        self.destinations.iter().map(one).collect::<Vec<_>>().join(between)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool { destinations: vec!["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()] }
    }

    #[test]
    fn the_json_is_json_of_one_pool() {
        let json: serde_json::Value = serde_json::from_str(&pool().json()).unwrap();
        assert_eq!(json["pools"]["A"]["servers"][1], "127.0.0.1:2");
        assert_eq!(json["route"], "PoolRoute|A");
        assert!(!pool().json().contains(' '), "it is one word of a command");
    }

    #[test]
    fn the_yaml_names_every_cache_with_a_weight() {
        let yaml = pool().yaml("127.0.0.1:9".parse().unwrap());
        assert!(yaml.starts_with("pool:\n  listen: 127.0.0.1:9\n"), "{yaml}");
        assert!(yaml.ends_with("  servers:\n    - 127.0.0.1:1:1\n    - 127.0.0.1:2:1\n"), "{yaml}");
    }

    #[test]
    fn both_files_are_written() {
        let directory = tempfile::tempdir().unwrap();
        pool().write(directory.path(), "127.0.0.1:9".parse().unwrap()).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("pool.json")).unwrap(), pool().json());
        assert!(pool().write(&directory.path().join("none"), "127.0.0.1:9".parse().unwrap()).is_err());
    }
}
