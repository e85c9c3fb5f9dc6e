//! Lookups by DNS, with a resolver library on a runtime that runs only inside [`Dns::find`].
//!
//! A name in a plain pool stands for one address: the first one found, in numeric order, so that another
//! lookup does not change it. A name in a pool that resolves stands for several servers: the targets of its
//! SRV records, ordered by the numbers in their names, so that the pods of a StatefulSet keep their order;
//! or, if it has none, each of its addresses.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::found::{Found, configured_address, configured_servers, servers};
use super::slices::SlicesFound;
use crate::config::{Address, Config, Server};

/// The time for one question, with all servers and attempts. After it, what was known before is kept.
const QUESTION: Duration = Duration::from_secs(2);
/// Attempts within that time.
const ATTEMPTS: usize = 2;

/// A resolver.
pub(crate) struct Dns {
    runtime: tokio::runtime::Runtime,
    resolver: TokioResolver,
}

impl Dns {
    /// A resolver that asks `server`, or the servers of the system.
    ///
    /// # Errors
    /// The system's configuration cannot be read, or the runtime cannot be created.
    pub(crate) fn new(server: Option<SocketAddr>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut builder = match server {
            Some(address) => {
                let mut udp = ConnectionConfig::udp();
                let mut tcp = ConnectionConfig::tcp();
                (udp.port, tcp.port) = (address.port(), address.port());
                let server = NameServerConfig::new(address.ip(), true, vec![udp, tcp]);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio().map_err(io::Error::other)?,
        };
        let options = builder.options_mut();
        // The caller decides how often to ask: a cached answer would only be outdated.
        options.cache_size = 0;
        options.attempts = ATTEMPTS;
        options.timeout = QUESTION / ATTEMPTS as u32;
        let resolver = builder.build().map_err(io::Error::other)?;
        Ok(Self { runtime, resolver })
    }

    /// Looks up all names of `config` whose addresses `slices` do not report. For names that cannot be found,
    /// what was known `before` is kept. Takes the time of three questions at most: for the SRV records of the
    /// names of pools, for their addresses, and for those of the servers.
    #[must_use]
    pub(crate) fn find(&self, config: &Config, before: &Found, slices: &SlicesFound) -> Found {
        self.runtime.block_on(self.find_all(config, before, slices))
    }

    async fn find_all(&self, config: &Config, before: &Found, slices: &SlicesFound) -> Found {
        let mut found = Found::default().with_slices(config, slices);
        // Concurrently: a name that no server answers for does not delay the others.
        let mut asked = Vec::new();
        for pool in config.pools.iter().filter(|pool| pool.resolve && !found.pools.contains_key(&pool.name)) {
            let ask = |server: &Server| tokio::spawn(servers_of(self.resolver.clone(), server.clone()));
            asked.push((pool, servers(pool).map(ask).collect::<Vec<_>>()));
        }
        for (pool, answers) in asked {
            let mut members = Vec::new();
            let mut complete = true;
            for answer in answers {
                match answer.await {
                    Ok(Some(servers)) => members.extend(servers),
                    _ => complete = false,
                }
            }
            let members = match before.pools.get(&pool.name) {
                Some(known) if !complete => known.clone(),
                _ => members,
            };
            found.pools.insert(pool.name.clone(), members);
        }
        found.add_configured_addresses(config);
        let resolved: Vec<Server> = found.pools.values().flatten().cloned().collect();
        // A name that several servers share is asked for once, and all names concurrently.
        let mut by_name: HashMap<&str, Vec<&Server>> = HashMap::new();
        for server in configured_servers(config).chain(&resolved) {
            if !found.addresses.contains_key(server)
                && let Address::Tcp { host, .. } = &server.address
            {
                by_name.entry(host).or_default().push(server);
            }
        }
        let names: Vec<&str> = by_name.keys().copied().collect();
        let answers = self.addresses_of(&names).await;
        for (name, ips) in names.iter().zip(answers) {
            for &server in &by_name[name] {
                let Address::Tcp { port, .. } = server.address else { continue };
                let address = match ips.first() {
                    Some(ip) => Some(SocketAddr::new(*ip, port).into()),
                    None => before.addresses.get(server).cloned(),
                };
                if let Some(address) = address {
                    found.addresses.insert(server.clone(), address);
                }
            }
        }
        found
    }

    /// The addresses of each name in numeric order, which are none if it cannot be found.
    async fn addresses_of(&self, names: &[&str]) -> Vec<Vec<IpAddr>> {
        let mut asked = Vec::new();
        for name in names {
            let (resolver, name) = (self.resolver.clone(), (*name).to_owned());
            asked.push(tokio::spawn(async move { addresses(&resolver, &name).await }));
        }
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await.unwrap_or_default().unwrap_or_default());
        }
        answers
    }
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// The servers that the name of `server` stands for; `None` if no server answers.
async fn servers_of(resolver: TokioResolver, server: Server) -> Option<Vec<Server>> {
    let (Address::Tcp { host, port }, None) = (&server.address, configured_address(&server)) else {
        return Some(vec![server]);
    };
    let named = |host: String| Server { address: Address::Tcp { host, port: *port }, ..server.clone() };
    let targets = service_targets(&resolver, host).await;
    if !targets.is_empty() {
        return Some(targets.into_iter().map(named).collect());
    }
    let ips = addresses(&resolver, host).await?;
    Some(ips.into_iter().map(|ip| named(ip.to_string())).collect())
}

/// All addresses of `name` in numeric order. `None` if no server answers; an empty list if the name has no
/// address.
async fn addresses(resolver: &TokioResolver, name: &str) -> Option<Vec<IpAddr>> {
    match tokio::time::timeout(QUESTION, resolver.lookup_ip(name)).await {
        Ok(Ok(lookup)) => {
            let mut ips: Vec<IpAddr> = lookup.iter().collect();
            ips.sort_unstable();
            ips.dedup();
            Some(ips)
        }
        Ok(Err(error)) if error.is_no_records_found() => Some(Vec::new()),
        _ => None,
    }
}

/// The targets of the SRV records of `name`, `pod-2` before `pod-10`.
async fn service_targets(resolver: &TokioResolver, name: &str) -> Vec<String> {
    let Ok(Ok(lookup)) = tokio::time::timeout(QUESTION, resolver.lookup(name, RecordType::SRV)).await else {
        return Vec::new();
    };
    let mut targets: Vec<String> = lookup
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(service) => Some(service.target.to_utf8().trim_end_matches('.').to_owned()),
            _ => None,
        })
        .collect();
    targets.sort_by_cached_key(|target| natural_order(target));
    targets.dedup();
    targets
}

/// The key that sorts names by the numbers in them: text, then number, and so on.
pub(super) fn natural_order(name: &str) -> Vec<(String, u64)> {
    let mut pieces: Vec<(String, u64)> = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, rest_of_name) = rest.split_at(text_len);
        let digits_len = rest_of_name.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest_of_name.len());
        let (digits, after) = rest_of_name.split_at(digits_len);
        pieces.push((text.to_owned(), digits.parse().unwrap_or(u64::MAX)));
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Instant;

    use super::*;
    use crate::config::Options;

    #[test]
    fn pods_stand_in_the_order_of_their_numbers() {
        let mut names = ["cache-10.c.svc", "cache-9.c.svc", "cache-0.c.svc", "cache-1.c.svc"];
        names.sort_by_cached_key(|name| natural_order(name));
        assert_eq!(names, ["cache-0.c.svc", "cache-1.c.svc", "cache-9.c.svc", "cache-10.c.svc"]);
    }

    #[test]
    fn names_are_asked_for_side_by_side_and_what_needs_no_question_is_found() {
        const POOLS: usize = 10;
        // It takes questions, and says nothing.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dns = Dns::new(Some(silent.local_addr().unwrap())).unwrap();
        let of = |number: usize| {
            let servers = format!(r#"["name{number}.test:1", "127.0.0.1:{}"]"#, number + 1);
            format!(r#""P{number}": {{"servers": {servers}, "resolve": {}}}"#, number.is_multiple_of(2))
        };
        let pools: Vec<String> = (0..POOLS).map(of).collect();
        let text = format!(r#"{{"pools": {{{}}}, "route": "NullRoute"}}"#, pools.join(", "));
        let config =
            Config::parse("test", &text, &Options::default(), &|_: &str| Err("no files".into())).unwrap();
        let begun = Instant::now();
        let found = dns.find(&config, &Found::default(), &SlicesFound::new());
        println!("nothing was found in {:?}", begun.elapsed());
        // One after the other: two questions for each of the pools that resolve.
        assert!(begun.elapsed() < QUESTION * POOLS as u32, "{:?}", begun.elapsed());
        assert_eq!((found.pools.len(), found.addresses.len()), (POOLS / 2, POOLS));
        assert!(found.pools.values().all(|servers| servers.len() == 1));
        assert!(!Found::without_lookups(&config, &SlicesFound::new()).differs(&found));
    }
}
