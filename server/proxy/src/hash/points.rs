//! Points on a circle: ketama in all its forms. A key belongs to the server of the next point.

use sha1::{Digest, Sha1};
use xxhash_rust::xxh3::xxh3_64;

use super::key_hash::{KeyHash, md5, md5_point};
use super::{RingError, RingServer};

/// memcached's port, which many forms leave out of a server's name.
const DEFAULT_PORT: u16 = 11211;
/// Points a server of average weight has.
const POINTS: u32 = 160;
/// Points of a server where weights do not count (libmemcached).
const POINTS_UNWEIGHTED: u32 = 100;
/// Points that one MD5 gives.
const POINTS_A_DIGEST: u32 = 4;
/// Most points of one ring: past it the ring would not be worth its memory.
const POINTS_MAX: u32 = 1 << 24;

/// How a ring's points are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Points {
    /// libketama, as libmemcached's weighted ketama, twemproxy, and memcached's proxy with `omode`
    /// `twemproxy`: `name-k`, or `host-k`, or `host:port-k` when the port is not 11211; MD5; by weight.
    Ketama,
    /// libmemcached's ketama without weights: 100 strings as above, hashed as keys are.
    KetamaUnweighted(KeyHash),
    /// libmemcached's `consistent_ketama_spy`: `/host:port-k`.
    KetamaSpy,
    /// memcached's proxy, `omode` `ketama`: `host:port-k`, MD5.
    KetamaWithPort,
    /// memcached's proxy, `omode` `evcache`: `host/host:port-k`, MD5.
    Evcache,
    /// memcached's proxy by default: `name:port-k`, XXH3 cut to 32 bits.
    Xxh3 {
        /// Points of each server: `obuckets`, 160 by default.
        a_server: u32,
    },
    /// spymemcached and the `ElastiCache` client: `host/ip:port-k`, or `ip:port-k` without a host name.
    Spymemcached,
    /// spymemcached with `LIBMEMCACHED` formatting: as [`Points::Ketama`]; with weights, if any is not 1.
    SpymemcachedLibmemcached,
    /// Dalli: SHA-1 of `host:port:k`; a key belongs to the point before it.
    Dalli,
}

/// The points of a ring, ascending.
#[derive(Clone, Debug)]
pub struct Circle {
    points: Box<[(u32, u32)]>,
    /// A key belongs to the point at or before it.
    before: bool,
}

impl Circle {
    /// Places `servers`.
    pub(super) fn build(form: Points, servers: &[RingServer]) -> Result<Self, RingError> {
        let weights = check_weights(servers)?;
        let mut points: Vec<(u32, u32)> = Vec::new();
        for (at, server) in servers.iter().enumerate() {
            let index = at as u32;
            let count = form.count(server.weight, weights, servers.len());
            if points.len() as u64 + u64::from(count) > u64::from(POINTS_MAX) {
                return Err(RingError::TooManyPoints);
            }
            let base = form.text(server);
            match form {
                Points::KetamaUnweighted(hash) => {
                    points.extend(
                        (0..count).map(|k| (hash.hash(format!("{base}-{k}").as_bytes()) as u32, index)),
                    );
                }
                Points::Xxh3 { .. } => {
                    points.extend(
                        (0..count).map(|k| (xxh3_64(format!("{base}-{k}").as_bytes()) as u32, index)),
                    );
                }
                Points::Dalli => {
                    points.extend((0..count).map(|k| (sha1_point(&format!("{base}:{k}")), index)))
                }
                _ => {
                    for k in 0..count / POINTS_A_DIGEST {
                        let digest = md5(format!("{base}-{k}").as_bytes());
                        points
                            .extend((0..POINTS_A_DIGEST as usize).map(|at| (md5_point(&digest, at), index)));
                    }
                }
            }
        }
        points.sort_by_key(|&(point, _)| point); // of equal points the earlier server's comes first
        if matches!(form, Points::Spymemcached | Points::SpymemcachedLibmemcached) {
            // In a map of points, what is put there later replaces what was.
            points.reverse();
            points.dedup_by_key(|&mut (point, _)| point);
            points.reverse();
        }
        if points.is_empty() {
            return Err(RingError::NoWeight);
        }
        Ok(Self { points: points.into(), before: form == Points::Dalli })
    }

    /// The server of the key that hashes to `hash`.
    #[inline]
    pub(super) fn server(&self, hash: u32) -> usize {
        let at = if self.before {
            let behind = self.points.partition_point(|&(point, _)| point <= hash);
            behind.checked_sub(1).unwrap_or(self.points.len() - 1)
        } else {
            let at = self.points.partition_point(|&(point, _)| point < hash);
            if at == self.points.len() { 0 } else { at }
        };
        self.points[at].1 as usize
    }
}

/// The sum of the weights, of which each must be 0 or more and one more than that.
pub(super) fn check_weights(servers: &[RingServer]) -> Result<f64, RingError> {
    if let Some(server) = servers.iter().find(|server| !(server.weight >= 0.0 && server.weight.is_finite())) {
        return Err(RingError::BadWeight { server: server.host.clone() });
    }
    let sum: f64 = servers.iter().map(|server| server.weight).sum();
    if sum > 0.0 { Ok(sum) } else { Err(RingError::NoWeight) }
}

impl Points {
    /// What a server's points are made of, without their number.
    fn text(self, server: &RingServer) -> String {
        let RingServer { host, port, .. } = server;
        match self {
            Self::Ketama | Self::KetamaUnweighted(_) | Self::SpymemcachedLibmemcached => match &server.name {
                Some(name) if self != Self::SpymemcachedLibmemcached => name.clone(),
                _ if *port == DEFAULT_PORT => host.clone(),
                _ => format!("{host}:{port}"),
            },
            Self::KetamaSpy => format!("/{host}:{port}"),
            Self::Evcache => format!("{host}/{host}:{port}"),
            Self::Xxh3 { .. } => format!("{}:{port}", server.name.as_ref().unwrap_or(host)),
            Self::Spymemcached => match &server.ip {
                Some(ip) if ip != host => format!("{host}/{ip}:{port}"),
                _ => format!("{host}:{port}"),
            },
            Self::KetamaWithPort | Self::Dalli => format!("{host}:{port}"),
        }
    }

    /// How many points a server of this weight gets.
    fn count(self, weight: f64, weights: f64, servers: usize) -> u32 {
        match self {
            Self::KetamaUnweighted(_) => POINTS_UNWEIGHTED,
            Self::Xxh3 { a_server } => a_server,
            Self::KetamaWithPort | Self::Evcache | Self::Spymemcached => POINTS,
            Self::Dalli => (servers as f64 * f64::from(POINTS) * weight / weights).floor() as u32,
            // In single precision and this order, as the C code has it: another rounding is another ring.
            Self::Ketama | Self::KetamaSpy | Self::SpymemcachedLibmemcached => {
                let share = weight as f32 / weights as f32;
                let digests = share * POINTS as f32 / POINTS_A_DIGEST as f32 * servers as f32;
                ((f64::from(digests) + 1e-10) as f32).floor() as u32 * POINTS_A_DIGEST
            }
        }
    }
}

fn sha1_point(text: &str) -> u32 {
    let digest: [u8; 20] = Sha1::digest(text.as_bytes()).into();
    let (words, _) = digest.as_chunks::<4>();
    u32::from_be_bytes(words[0])
}
