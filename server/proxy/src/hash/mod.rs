//! Which destination of a pool a key belongs to, bit for bit as in the clients and proxies that fill caches
//! today.
//!
//! | who | distribution |
//! | --- | --- |
//! | mcrouter | [`Distribution::Ch3`], `WeightedCh3`, `WeightedCh4`, `Crc32`, `ConstShard`, `Rendezvous`, `WeightedRendezvous` |
//! | libmemcached (PHP, pylibmc) | [`Distribution::Modula`], [`Distribution::Points`] with [`Points::Ketama`] and its kin |
//! | twemproxy | the same, with [`KeyHash`] by its names |
//! | memcached's proxy | [`Distribution::Jump`], [`Points::Xxh3`], `KetamaWithPort`, `Evcache` |
//! | pymemcache | [`Distribution::Pymemcache`] |
//! | spymemcached, `ElastiCache` client | [`Points::Spymemcached`], [`Distribution::Modula`] |
//! | Dalli | [`Points::Dalli`] |
//! | python-memcached, the Go clients | [`Distribution::Modula`] with [`KeyHash::Crc32UpperNotZero`], [`KeyHash::Crc32`] |

pub mod furc;
pub mod jump;
pub mod key_hash;
pub mod key_part;
mod maglev;
pub mod murmur;
pub mod points;
pub mod rendezvous;
pub mod spooky;
#[cfg(test)]
mod tests;

use corecached_protocol::KEY_BYTES_MAX;

pub use key_hash::KeyHash;
pub use key_part::KeyPart;
use murmur::Murmur3;
pub use points::Points;
use points::{Circle, check_weights};
pub use rendezvous::PythonKey;

/// Longest salt, bytes.
pub const SALT_BYTES_MAX: usize = 128;
/// Most bytes of key and salt that are hashed together.
pub(crate) const HASHED_BYTES_MAX: usize = KEY_BYTES_MAX + SALT_BYTES_MAX;
/// Digits of an `u32`.
const DIGITS_MAX: usize = 10;
/// The weight mcrouter gives a server that its list of weights leaves out.
pub const WEIGHT_MISSING: f64 = 0.5;
/// Most entries of the table of [`Distribution::Modula`], in which servers are repeated by weight.
const TABLE_MAX: f64 = (1 << 20) as f64;

/// How keys are laid out over servers: what a [`Ring`] is built by.
#[derive(Clone, Debug, PartialEq)]
pub struct RingSpec {
    /// The scheme.
    pub distribution: Distribution,
    /// What of the key is hashed.
    pub key_part: KeyPart,
    /// Bytes hashed after that part; at most [`SALT_BYTES_MAX`].
    pub salt: Vec<u8>,
}

impl RingSpec {
    /// mcrouter's default: Ch3 over the part before the hash stop.
    #[must_use]
    pub fn ch3() -> Self {
        Self { distribution: Distribution::Ch3, key_part: KeyPart::hash_stop(), salt: Vec::new() }
    }
}

/// The schemes.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// mcrouter's default.
    Ch3,
    /// Ch3 with weights from 0 to 1: what share of its keys a server keeps.
    WeightedCh3,
    /// As above, with another use of the weights (mcrouter until 2025).
    WeightedCh4,
    /// CRC-32 without its highest bit, modulo.
    Crc32,
    /// The number between the first two colons of the key, else Ch3.
    ConstShard,
    /// By tags; an added server takes keys from all, a removed one gives them to all.
    Rendezvous,
    /// By tags, with weights.
    WeightedRendezvous,
    /// A hash modulo the servers, each repeated by its weight.
    Modula(KeyHash),
    /// The next of many points.
    Points {
        /// Where they are.
        points: Points,
        /// Where a key is; cut to 32 bits.
        key_hash: KeyHash,
    },
    /// Jump consistent hashing of all 64 bits of a hash.
    Jump(KeyHash),
    /// The rendezvous of pymemcache's `HashClient`.
    Pymemcache(PythonKey),
    /// The lookup table of Maglev; keys by XXH3.
    Maglev,
}

/// A server as hashing sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RingServer {
    /// A name that hashes in place of the address (twemproxy), if it has one.
    pub name: Option<String>,
    /// Host name or IP as configured.
    pub host: String,
    /// Where only an IP hashes besides the host name (spymemcached).
    pub ip: Option<String>,
    /// TCP port.
    pub port: u16,
    /// 1 for an average server; from 0 to 1 with mcrouter's schemes.
    pub weight: f64,
    /// mcrouter's rendezvous tag; `host:port` when there is none.
    pub tag: Option<String>,
}

impl RingServer {
    /// A server of weight 1 without a name.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { name: None, host: host.into(), ip: None, port, weight: 1.0, tag: None }
    }
}

/// Why there is no ring of these servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingError {
    /// There are none.
    NoServers,
    /// More than the scheme can tell apart.
    TooManyServers {
        /// How many it can.
        max: usize,
    },
    /// The weights come to more points or places than a ring may have.
    TooManyPoints,
    /// A weight is negative or no number.
    BadWeight {
        /// The server, as host and port.
        server: String,
    },
    /// All weights are 0.
    NoWeight,
    /// The salt is longer than [`SALT_BYTES_MAX`].
    SaltTooLong,
}

impl std::fmt::Display for RingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoServers => write!(f, "there is no server: name one at least"),
            Self::TooManyServers { max } => write!(f, "more than {max} servers, the most of this scheme"),
            Self::TooManyPoints => write!(f, "the ring would have too many points: use smaller weights"),
            Self::BadWeight { server } => write!(f, "the weight of {server} must be 0 or more"),
            Self::NoWeight => write!(f, "all weights are 0: give one server at least a share"),
            Self::SaltTooLong => write!(f, "the salt must have at most {SALT_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for RingError {}

/// Servers laid out for looking up keys. Immutable.
#[derive(Clone, Debug)]
pub struct Ring {
    layout: Layout,
    key_part: KeyPart,
    salt: Box<[u8]>,
}

#[derive(Clone, Debug)]
enum Layout {
    /// One server: nothing to hash.
    One,
    Ch3 {
        servers: usize,
    },
    WeightedCh3(Box<[u32]>),
    WeightedCh4(Box<[f64]>),
    Crc32 {
        servers: u32,
    },
    ConstShard {
        servers: usize,
    },
    Rendezvous(Box<[u64]>),
    WeightedRendezvous(Box<[(u64, f64)]>),
    Table {
        table: Box<[u32]>,
        key_hash: KeyHash,
    },
    Circle {
        circle: Circle,
        key_hash: KeyHash,
    },
    Jump {
        servers: usize,
        key_hash: KeyHash,
    },
    Pymemcache {
        nodes: Box<[(Murmur3, u32)]>,
        form: PythonKey,
    },
}

impl Ring {
    /// Lays `servers` out as `spec` says; [`Ring::pick`] answers with indices in that list.
    ///
    /// # Errors
    /// There are no servers or too many, or their weights or the salt cannot be used.
    pub fn build(spec: &RingSpec, servers: &[RingServer]) -> Result<Self, RingError> {
        let max = match spec.distribution {
            Distribution::Maglev => maglev::SERVERS_MAX,
            _ => furc::SERVERS_MAX,
        };
        if servers.is_empty() {
            return Err(RingError::NoServers);
        }
        if servers.len() > max {
            return Err(RingError::TooManyServers { max });
        }
        if spec.salt.len() > SALT_BYTES_MAX {
            return Err(RingError::SaltTooLong);
        }
        debug_assert!(servers.iter().all(|server| !server.host.is_empty()), "a server without a name");
        let layout = if servers.len() == 1 { Layout::One } else { lay_out(&spec.distribution, servers)? };
        Ok(Self { layout, key_part: spec.key_part.clone(), salt: spec.salt.as_slice().into() })
    }

    /// The index of the server that `key` belongs to.
    #[inline]
    #[must_use]
    pub fn pick(&self, key: &[u8]) -> usize {
        let part = self.key_part.part_of(key);
        if self.salt.is_empty() { self.layout.pick(part) } else { self.pick_salted(part, b"") }
    }

    /// The index of the server with the digits of `salt` hashed after the ring's own salt: another choice for
    /// the same key.
    #[must_use]
    pub fn pick_resalted(&self, key: &[u8], salt: u32) -> usize {
        let mut digits = [0; DIGITS_MAX];
        let mut from = DIGITS_MAX;
        let mut rest = salt;
        loop {
            from -= 1;
            digits[from] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.pick_salted(self.key_part.part_of(key), &digits[from..])
    }

    #[cold]
    fn pick_salted(&self, part: &[u8], more: &[u8]) -> usize {
        let mut salted = [0; HASHED_BYTES_MAX + DIGITS_MAX];
        let mut len = 0;
        // No key is longer than that.
        for bytes in [&part[..part.len().min(KEY_BYTES_MAX)], &self.salt, more] {
            salted[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        }
        self.layout.pick(&salted[..len])
    }
}

fn lay_out(distribution: &Distribution, servers: &[RingServer]) -> Result<Layout, RingError> {
    let count = servers.len();
    Ok(match *distribution {
        Distribution::Ch3 => Layout::Ch3 { servers: count },
        Distribution::WeightedCh3 => {
            check_weights(servers)?;
            Layout::WeightedCh3(servers.iter().map(|server| furc::threshold(server.weight)).collect())
        }
        Distribution::WeightedCh4 => {
            check_weights(servers)?;
            Layout::WeightedCh4(servers.iter().map(|server| server.weight).collect())
        }
        Distribution::Crc32 => Layout::Crc32 { servers: count as u32 },
        Distribution::ConstShard => Layout::ConstShard { servers: count },
        Distribution::Rendezvous => Layout::Rendezvous(servers.iter().map(tag_hash).collect()),
        Distribution::WeightedRendezvous => {
            check_weights(servers)?;
            let tagged = servers.iter().map(|server| (tag_hash(server), server.weight));
            Layout::WeightedRendezvous(tagged.collect())
        }
        Distribution::Modula(key_hash) => {
            if check_weights(servers)? > TABLE_MAX {
                return Err(RingError::TooManyPoints);
            }
            let mut table = Vec::new();
            for (at, server) in servers.iter().enumerate() {
                table.extend(std::iter::repeat_n(at as u32, server.weight as usize));
            }
            if table.is_empty() {
                return Err(RingError::NoWeight);
            }
            Layout::Table { table: table.into(), key_hash }
        }
        Distribution::Points { points, key_hash } => {
            Layout::Circle { circle: Circle::build(points, servers)?, key_hash }
        }
        Distribution::Jump(key_hash) => Layout::Jump { servers: count, key_hash },
        Distribution::Pymemcache(form) => {
            let mut named: Vec<(String, u32)> = servers
                .iter()
                .enumerate()
                .map(|(at, server)| (format!("{}:{}", server.host, server.port), at as u32))
                .collect();
            named.sort_by(|one, other| other.cmp(one));
            let hashed = named.into_iter().map(|(name, at)| {
                let mut hash = Murmur3::new(0);
                hash.update(name.as_bytes());
                hash.push(b'-');
                (hash, at)
            });
            Layout::Pymemcache { nodes: hashed.collect(), form }
        }
        Distribution::Maglev => {
            Layout::Table { table: maglev::table(servers), key_hash: KeyHash::Xxh3 { seed: 0 } }
        }
    })
}

/// The hash of what tells a server apart in a rendezvous.
fn tag_hash(server: &RingServer) -> u64 {
    match &server.tag {
        Some(tag) => rendezvous::tag_hash(tag.as_bytes()),
        None => rendezvous::tag_hash(format!("{}:{}", server.host, server.port).as_bytes()),
    }
}

impl Layout {
    #[inline]
    fn pick(&self, key: &[u8]) -> usize {
        match self {
            Self::One => 0,
            Self::Ch3 { servers } => furc::ch3(key, *servers),
            Self::WeightedCh3(thresholds) => furc::weighted_ch3(key, thresholds),
            Self::WeightedCh4(weights) => furc::weighted_ch4(key, weights),
            Self::Crc32 { servers } => ((crc32fast::hash(key) & 0x7fff_ffff) % servers) as usize,
            Self::ConstShard { servers } => furc::const_shard(key, *servers),
            Self::Rendezvous(tags) => rendezvous::rendezvous(key, tags),
            Self::WeightedRendezvous(servers) => rendezvous::weighted_rendezvous(key, servers),
            Self::Table { table, key_hash } => {
                table[(key_hash.hash(key) % table.len() as u64) as usize] as usize
            }
            Self::Circle { circle, key_hash } => circle.server(key_hash.hash(key) as u32),
            Self::Jump { servers, key_hash } => jump::jump(key_hash.hash(key), *servers),
            Self::Pymemcache { nodes, form } => rendezvous::pymemcache(key, *form, nodes),
        }
    }
}
