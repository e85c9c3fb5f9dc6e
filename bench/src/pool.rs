//! The pool of caches behind a proxy, written in the forms that proxies read: a list, mcrouter's JSON,
//! twemproxy's YAML.
//!
//! JSON and YAML are written without a library: they hold addresses only, so nothing needs quoting.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::Failure;

/// Milliseconds that twemproxy waits for a reply of a cache; without this setting it would wait for ever.
const TIMEOUT_MS: u32 = 1000;

/// The caches behind a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Addresses of the caches. Their order matters: proxies hash keys to positions in it.
    pub destinations: Vec<SocketAddr>,
}

impl Pool {
    /// Returns the caches as `host:port`, separated by commas.
    #[must_use]
    pub fn list(&self) -> String {
        self.joined(",", ToString::to_string)
    }

    /// Returns a configuration of mcrouter that routes all keys to one pool. It has no blanks, so that it can
    /// be one argument of a command.
    #[must_use]
    pub fn json(&self) -> String {
        let servers = self.joined(",", |destination| format!("\"{destination}\""));
        format!(r#"{{"pools":{{"A":{{"servers":[{servers}]}}}},"route":"PoolRoute|A"}}"#)
    }

    /// Returns a configuration of twemproxy: its default hash and ring, one connection to each cache, and no
    /// ejection.
    #[must_use]
    pub fn yaml(&self, listen: SocketAddr) -> String {
        let servers = self.joined("", |destination| format!("    - {destination}:1\n"));
        format!(
            "pool:\n  listen: {listen}\n  hash: fnv1a_64\n  distribution: ketama\n  timeout: {TIMEOUT_MS}\n  \
             server_connections: 1\n  auto_eject_hosts: false\n  servers:\n{servers}"
        )
    }

    /// Writes the JSON and the YAML into a directory, as `pool.json` and `pool.yml`.
    ///
    /// # Errors
    /// A file cannot be written.
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
