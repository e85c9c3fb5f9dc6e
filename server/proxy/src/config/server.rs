//! Servers of pools, as written and as checked.

use std::fmt;

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

/// What `host:port`, `[v6]:port`, `unix:path` and `host:port:protocol:security:compression` say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrittenServer {
    pub address: Address,
    pub tls: Option<bool>,
}

/// What is wrong with a server or with its security.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ServerFault(&'static str);

/// What a server's protocol may be called; all but the first are refused.
const PROTOCOLS: [&str; 4] = ["ascii", "caret", "thrift", "umbrella"];

/// Reads one server.
pub(super) fn read_server(text: &str, port_override: Option<u16>) -> Result<WrittenServer, ServerFault> {
    const FORM: &str = "must be \"host:port\", \"[IPv6]:port\" or \"unix:/path\"";
    if let Some(rest) = text.strip_prefix("unix:") {
        // A path may contain colons; what follows one is a field only if it begins as the fields do.
        let is_protocol = |rest: &str| PROTOCOLS.contains(&rest.split(':').next().unwrap_or_default());
        let (path, fields) = match rest.split_once(':') {
            Some((path, fields)) if is_protocol(fields) => (path, fields),
            _ => (rest, ""),
        };
        if path.is_empty() {
            return Err(ServerFault("a path must follow unix:"));
        }
        let tls = read_fields(&mut fields.split(':'))?;
        return Ok(WrittenServer { address: Address::Unix { path: path.into() }, tls });
    }
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or(ServerFault(FORM))?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| ServerFault("no IPv6 address between the brackets"))?;
            (host, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let named = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if host.is_empty() || host.len() > 253 || !host.bytes().all(named) {
        return Err(ServerFault(FORM));
    }
    let mut fields = match rest.strip_prefix(':') {
        Some(rest) => rest.split(':'),
        None if rest.is_empty() => "".split(':'),
        None => return Err(ServerFault(FORM)),
    };
    let port = match (port_override, fields.next().filter(|port| !port.is_empty())) {
        (Some(port), _) => port,
        (None, Some(port)) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(ServerFault("the port must be 1 to 65535; an IPv6 address stands in brackets")),
        },
        (None, None) => DEFAULT_PORT,
    };
    let tls = read_fields(&mut fields)?;
    Ok(WrittenServer { address: Address::Tcp { host: host.into(), port }, tls })
}

/// Reads `protocol:security:compression`, of which all may be left out. Returns whether it is encrypted, if that is
/// said.
fn read_fields<'t>(fields: &mut impl Iterator<Item = &'t str>) -> Result<Option<bool>, ServerFault> {
    match fields.next() {
        None | Some("ascii" | "") => {}
        Some("caret" | "thrift" | "umbrella") => {
            return Err(ServerFault("only the protocol \"ascii\" is spoken"));
        }
        Some(_) => return Err(ServerFault("the protocol must be \"ascii\"")),
    }
    let tls = match fields.next() {
        None | Some("") => None,
        Some(security) => Some(read_security(security)?),
    };
    match fields.next() {
        None | Some("" | "compressed" | "notcompressed") => {}
        Some(_) => return Err(ServerFault("the last field must be \"compressed\" or \"notcompressed\"")),
    }
    Ok(tls)
}

/// Whether a `security_mech` encrypts.
pub(super) fn read_security(text: &str) -> Result<bool, ServerFault> {
    match text {
        "plain" => Ok(false),
        "tls" | "ssl" | "ktls12" | "fizz" => Ok(true),
        _ => Err(ServerFault("must be \"plain\" or \"tls\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: Option<bool>) -> Result<WrittenServer, ServerFault> {
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
        for (text, path, tls) in [
            ("unix:/run/x", "/run/x", None),
            ("unix:/run/x:ascii", "/run/x", None),
            ("unix:/run/x:ascii:plain", "/run/x", Some(false)),
            ("unix:/run/x:ascii:plain:notcompressed", "/run/x", Some(false)),
            ("unix:/run/a:b", "/run/a:b", None),
        ] {
            let address = Address::Unix { path: path.into() };
            assert_eq!(read_server(text, None), Ok(WrittenServer { address, tls }), "{text}");
        }
        assert!(read_server("unix:/run/x:caret", None).is_err());
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
