//! Pools: named sets of servers, as written and as checked.

use std::collections::HashMap;
use std::fmt;

use super::concurrency::AdaptiveConcurrency;
use super::handle::HandleId;
use super::rings::WarmResize;
use super::zone::Zones;

/// memcached's port, for a server that names none.
const DEFAULT_PORT: u16 = 11211;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Host name or IP, without brackets, and port.
    Tcp {
        /// Name or IP.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A socket in the file system.
    Unix {
        /// Its path.
        path: String,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path } => write!(f, "unix:{path}"),
        }
    }
}

/// One server of a pool. Two pools with equal servers share the connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Where it listens.
    pub address: Address,
    /// Encrypt.
    pub tls: bool,
    /// Milliseconds it has to answer; 0 is no limit.
    pub reply_timeout_ms: u32,
    /// Milliseconds to connect; 0 is no limit.
    pub connect_timeout_ms: u32,
}

/// What a pool sends to.
#[derive(Clone, Debug, PartialEq)]
pub enum Member {
    /// A server.
    Server(Server),
    /// A route handle in place of one.
    Handle(HandleId),
}

/// A pool, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// In the order written, which hashing depends on.
    pub members: Vec<Member>,
    /// Each server is a DNS name that stands for all its addresses.
    pub resolve: bool,
    /// The Service of Kubernetes that its one server names, whose endpoints its cluster is asked for.
    pub endpoint_slices: Option<Service>,
    /// Send keys with the routing prefix they came with.
    pub keep_routing_prefix: bool,
    /// Weights for hashing, one for each server; empty when not given.
    pub weights: Vec<f64>,
    /// Tags for rendezvous hashing, one for each server; empty when not given.
    pub tags: Vec<String>,
    /// Which zones the servers are in.
    pub zones: Zones,
    /// Failure domains, one for each server; empty when not given.
    pub failure_domains: Vec<u32>,
    /// An empty pool answers with an error; else as if nothing were found.
    pub error_on_empty: bool,
    /// From how many ejected servers on no more are ejected, and to how many that must fall again.
    pub ejected_limit: Option<EjectedLimit>,
    /// Gets that each of its servers may have under way follow from how fast it answers; `None`: they do not.
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// How keys follow when the servers change; `None`: they do not.
    pub warm_resize: Option<WarmResize>,
}

/// A Service of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Where it is.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl Service {
    /// Reads `NAMESPACE/SERVICE`; `None` unless both are labels of DNS.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        let is_label = |label: &str| {
            let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(named)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        (is_label(namespace) && is_label(name))
            .then(|| Self { namespace: namespace.into(), name: name.into() })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Bounds of how many servers of a pool may be ejected at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectedLimit {
    /// From this many on no server is ejected.
    pub upper: u32,
    /// Until there are no more than this.
    pub lower: u32,
}

/// Members of pools that were found since the configuration was read, in place of those written.
pub type ResolvedPools = HashMap<String, Vec<Server>>;

/// What `host:port`, `[v6]:port`, `unix:path` and `host:port:protocol:security:compression` say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrittenServer {
    pub address: Address,
    pub tls: Option<bool>,
}

/// Reads one server; an error says what is wrong with it.
pub(super) fn read_server(text: &str, port_override: Option<u16>) -> Result<WrittenServer, &'static str> {
    const FORM: &str = "must be \"host:port\", \"[IPv6]:port\" or \"unix:/path\"";
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() {
            Err("a path must follow unix:")
        } else {
            Ok(WrittenServer { address: Address::Unix { path: path.into() }, tls: None })
        };
    }
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or(FORM)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "no IPv6 address between the brackets")?;
            (host, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let named = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if host.is_empty() || host.len() > 253 || !host.bytes().all(named) {
        return Err(FORM);
    }
    let mut fields = match rest.strip_prefix(':') {
        Some(rest) => rest.split(':'),
        None if rest.is_empty() => "".split(':'),
        None => return Err(FORM),
    };
    let port = match (port_override, fields.next().filter(|port| !port.is_empty())) {
        (Some(port), _) => port,
        (None, Some(port)) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err("the port must be 1 to 65535; an IPv6 address stands in brackets"),
        },
        (None, None) => DEFAULT_PORT,
    };
    match fields.next() {
        None | Some("ascii" | "") => {}
        Some("caret" | "thrift" | "umbrella") => return Err("only the protocol \"ascii\" is spoken"),
        Some(_) => return Err("the protocol must be \"ascii\""),
    }
    let tls = match fields.next() {
        None | Some("") => None,
        Some(security) => Some(read_security(security)?),
    };
    match fields.next() {
        None | Some("" | "compressed" | "notcompressed") => {}
        Some(_) => return Err("the last field must be \"compressed\" or \"notcompressed\""),
    }
    Ok(WrittenServer { address: Address::Tcp { host: host.into(), port }, tls })
}

/// Whether a `security_mech` encrypts.
pub(super) fn read_security(text: &str) -> Result<bool, &'static str> {
    match text {
        "plain" => Ok(false),
        "tls" | "ssl" | "ktls12" | "fizz" => Ok(true),
        _ => Err("must be \"plain\" or \"tls\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: Option<bool>) -> Result<WrittenServer, &'static str> {
        Ok(WrittenServer { address: Address::Tcp { host: host.into(), port }, tls })
    }

    #[test]
    fn servers_are_read_in_every_form() {
        for (text, expected) in [
            ("host:1234", tcp("host", 1234, None)),
            ("host", tcp("host", 11211, None)),
            ("10.0.0.1:11211:ascii:plain:notcompressed", tcp("10.0.0.1", 11211, Some(false))),
            ("host:11211:ascii:tls", tcp("host", 11211, Some(true))),
            ("[::1]:11212", tcp("::1", 11212, None)),
        ] {
            assert_eq!(read_server(text, None), expected, "{text}");
        }
        let unix = Address::Unix { path: "/run/x".into() };
        assert_eq!(read_server("unix:/run/x", None).map(|written| written.address), Ok(unix));
        assert_eq!(read_server("host:1234", Some(9)), tcp("host", 9, None));
    }

    #[test]
    fn servers_that_name_no_place_are_refused() {
        for text in [
            "",
            ":11211",
            "host:0",
            "host:65536",
            "host:port",
            "::1",
            "[::1",
            "[x]:1",
            "unix:",
            "a b:1",
            "h:1:caret",
        ] {
            assert!(read_server(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for text in ["host:1", "[::1]:1", "unix:/x"] {
            assert_eq!(read_server(text, None).unwrap().address.to_string(), text);
        }
    }
}
