//! Which caches let a client choose its connection by key (`-o core_ports`), and how: asked with `stats cores`, again and
//! again, by a thread of its own.
//!
//! What was found may be out of date: a key that goes to the wrong core is handed on inside the cache, as on any
//! connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use corecached_engine::KeyHasher;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::shard::owner_of;

/// How often a cache that answered is asked again.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How often one that is something else is: it may be replaced.
const ASK_OTHERS_EVERY: Duration = Duration::from_secs(30);
/// What each step of asking may take.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Most cores of a cache that connections are made to one by one.
const CORES_MAX: usize = 256;
/// Lists and findings under way.
const CHANGES_MAX: usize = 4;

/// How to reach the core that owns a key.
#[derive(Clone, Debug)]
pub struct Cores {
    seed: u64,
    hasher: KeyHasher,
    /// Where each core alone listens.
    pub addresses: Vec<SocketAddr>,
}

impl PartialEq for Cores {
    fn eq(&self, other: &Self) -> bool {
        self.seed == other.seed && self.addresses == other.addresses
    }
}

impl Cores {
    /// The core that owns `key`.
    #[inline]
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> usize {
        owner_of(self.hasher.hash(key), self.addresses.len())
    }

    /// What the answer to `stats cores` of the cache at `address` says; `None` when it does not tell.
    #[must_use]
    pub fn parse(answer: &str, address: SocketAddr) -> Option<Self> {
        let mut seed = None;
        let mut addresses = Vec::new();
        for stat in answer.lines().filter_map(|line| line.strip_prefix("STAT ")) {
            let (name, value) = stat.split_once(' ')?;
            if name == "owner_seed" {
                seed = Some(value.parse().ok()?);
            } else if let Some(core) = name.strip_suffix(":port") {
                // In order, so that none is left out.
                if core.parse::<usize>().ok()? != addresses.len() {
                    return None;
                }
                addresses.push(SocketAddr::new(address.ip(), value.parse().ok()?));
            }
        }
        let seed = seed?;
        ((1..=CORES_MAX).contains(&addresses.len())).then(|| Self {
            seed,
            hasher: KeyHasher::new(seed),
            addresses,
        })
    }
}

/// By the address of the cache.
pub type CoresFound = HashMap<SocketAddr, Cores>;

/// The thread that asks.
#[derive(Debug)]
pub struct Scout {
    wanted: Sender<Vec<SocketAddr>>,
    found: Receiver<CoresFound>,
}

impl Scout {
    /// It begins with nobody to ask, and ends with this.
    #[must_use]
    pub fn start() -> Self {
        let (wanted, orders) = bounded(CHANGES_MAX);
        let (findings, found) = bounded(CHANGES_MAX);
        std::thread::spawn(move || run(&orders, &findings));
        Self { wanted, found }
    }

    /// Ask these from now on. False when it should be told again, as it is busy.
    #[must_use]
    pub fn ask(&self, caches: Vec<SocketAddr>) -> bool {
        self.wanted.try_send(caches).is_ok()
    }

    /// What is known now, if that is not what it was.
    #[must_use]
    pub fn news(&self) -> Option<CoresFound> {
        self.found.try_iter().last()
    }
}

fn run(orders: &Receiver<Vec<SocketAddr>>, findings: &Sender<CoresFound>) {
    let mut caches: HashMap<SocketAddr, Instant> = HashMap::new();
    let mut found = CoresFound::new();
    loop {
        let next = caches.values().min().copied();
        let wait = next.map_or(ASK_EVERY, |at| at.saturating_duration_since(Instant::now()));
        match orders.recv_timeout(wait) {
            Ok(wanted) => {
                caches.retain(|cache, _| wanted.contains(cache));
                for cache in wanted {
                    caches.entry(cache).or_insert_with(Instant::now);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let before = found.clone();
        found.retain(|cache, _| caches.contains_key(cache));
        for (cache, due) in caches.iter_mut().filter(|(_, due)| **due <= Instant::now()) {
            let every = match ask(*cache) {
                Ok(answer) => match Cores::parse(&answer, *cache) {
                    Some(cores) => {
                        found.insert(*cache, cores);
                        ASK_EVERY
                    }
                    None => {
                        found.remove(cache);
                        ASK_OTHERS_EVERY
                    }
                },
                // It may be on its way up again, with the same cores.
                Err(_) => ASK_EVERY,
            };
            *due = Instant::now() + every;
        }
        if found != before && findings.send(found.clone()).is_err() {
            return;
        }
    }
}

fn ask(cache: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&cache, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"stats cores\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(b"END\r\n") && !answer.ends_with(b"ERROR\r\n") {
        match stream.read(&mut buffer)? {
            0 => break,
            len => answer.extend_from_slice(&buffer[..len]),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_tells_its_ports_is_understood_and_others_are_not() {
        let address: SocketAddr = "10.0.0.1:11211".parse().unwrap();
        let told = "STAT io_backend epoll\r\nSTAT owner_seed 7\r\nSTAT 0:port 4000\r\nSTAT 1:port 4001\r\nSTAT 0:items 5\r\nEND\r\n";
        let cores = Cores::parse(told, address).unwrap();
        assert_eq!(cores.addresses, ["10.0.0.1:4000".parse().unwrap(), "10.0.0.1:4001".parse().unwrap()]);
        let hasher = KeyHasher::new(1).with_owner_seed(7);
        for number in 0..1000 {
            let key = format!("key-{number}");
            assert_eq!(cores.owner(key.as_bytes()), owner_of(hasher.hash(key.as_bytes()), 2));
        }
        for other in [
            "",
            "ERROR\r\n",
            "END\r\n",
            "STAT io_backend epoll\r\nEND\r\n",
            "STAT owner_seed 7\r\nEND\r\n",
            "STAT owner_seed x\r\nSTAT 0:port 4000\r\nEND\r\n",
            "STAT owner_seed 7\r\nSTAT 1:port 4000\r\nEND\r\n",
            "STAT owner_seed 7\r\nSTAT 0:port 99999\r\nEND\r\n",
            "STAT 0:port 4000\r\nEND\r\n",
            "STAT\r\nSTAT \r\n",
        ] {
            assert_eq!(Cores::parse(other, address), None, "{other:?}");
        }
    }
}
