//! A client that sends gets at Poisson instants. A get that is due while the previous one is pending is sent
//! late, and its wait counts.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::rng::Rng;

/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Time without a reply after which the connection counts as broken.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// A connection to a proxy.
#[derive(Debug)]
pub(super) struct ProxyConnection(BufReader<TcpStream>);

/// Counters of one client in one phase.
#[derive(Clone, Debug, Default)]
pub(super) struct PhaseCounts {
    /// Microseconds from when each get was due to its reply.
    pub get_us: Vec<u32>,
    /// Gets that were not answered with the value.
    pub errors: u64,
}

impl ProxyConnection {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_LIMIT))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    pub(super) fn set(&mut self, key: u64) -> io::Result<()> {
        let value = "v".repeat(VALUE_BYTES);
        self.0.get_mut().write_all(format!("set tails:{key} 0 0 {VALUE_BYTES}\r\n{value}\r\n").as_bytes())?;
        match self.line()?.as_str() {
            "STORED" => Ok(()),
            other => Err(io::Error::other(other.to_owned())),
        }
    }

    /// Sends a get and tells whether the reply has a value. The connection stays usable after another
    /// complete reply.
    fn get(&mut self, key: u64) -> io::Result<bool> {
        self.0.get_mut().write_all(format!("get tails:{key}\r\n").as_bytes())?;
        if !self.line()?.starts_with("VALUE ") {
            return Ok(false);
        }
        self.0.read_exact(&mut [0; VALUE_BYTES + "\r\nEND\r\n".len()])?;
        Ok(true)
    }

    /// Returns the numbers of these names from the reply to `stats`.
    pub(super) fn stats<const N: usize>(&mut self, names: [&str; N]) -> io::Result<[u64; N]> {
        self.0.get_mut().write_all(b"stats\r\n")?;
        let mut found = [0; N];
        loop {
            let line = self.line()?;
            if line == "END" {
                return Ok(found);
            }
            let mut words = line.split(' ').skip(1);
            if let (Some(name), Some(number)) = (words.next(), words.next())
                && let Some(at) = names.iter().position(|known| *known == name)
            {
                found[at] = number.parse().unwrap_or(0);
            }
        }
    }
}

/// Sends gets at Poisson instants. `ends` are the ends of the phases; the result has counters for each phase.
pub(super) fn run(
    number: u64,
    address: SocketAddr,
    keys: u64,
    rate_per_s: f64,
    ends: &[Instant],
) -> Vec<PhaseCounts> {
    let mut rng = Rng::new(number);
    let mut connection = ProxyConnection::open(address).ok();
    let mut counts = vec![PhaseCounts::default(); ends.len()];
    let mut due = Instant::now();
    loop {
        due += Duration::from_secs_f64(rng.exponential() / rate_per_s);
        let Some(phase) = ends.iter().position(|end| due < *end) else { return counts };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let came = connection.as_mut().map(|connection| connection.get(rng.below(keys)));
        if !matches!(came, Some(Ok(true))) {
            counts[phase].errors += 1;
        }
        if !matches!(came, Some(Ok(_))) {
            connection = ProxyConnection::open(address).ok();
        }
        counts[phase].get_us.push(due.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
    }
}
