//! A look-aside client with keys of its own. It reads a key with a get, and after a miss from the database,
//! followed by a set. It sometimes writes a key to the database and deletes it from the cache.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::database::Database;
use crate::rng::Rng;

/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// TTL of items in seconds: longer than a run, so that only deletes remove them.
const TTL_S: u32 = 3600;
/// Time without a reply after which the connection counts as broken.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// Counters of one client in one step.
#[derive(Clone, Debug, Default)]
pub(super) struct StepCounts {
    pub gets: u64,
    pub hits: u64,
    /// Values that are older than a delete which was answered before the read was sent.
    pub stale: u64,
    /// Errors, and connections that broke.
    pub errors: u64,
    /// Microseconds from when each read was due until its value was there, from the cache or the database.
    pub get_us: Vec<u32>,
}

/// Counters of one client for each step.
pub(super) type Tally = Vec<StepCounts>;

/// A look-aside client of a proxy.
pub(super) struct Client<'a> {
    number: usize,
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
    database: &'a Database,
    /// The version of each key in the database.
    versions: Vec<u32>,
    /// The oldest version of each key that a read may return: that of the last delete that was answered.
    floors: Vec<u32>,
    rate_per_s: f64,
    writes: f64,
    rng: Rng,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        number: usize,
        keys: usize,
        rate_per_s: f64,
        writes: f64,
        address: SocketAddr,
        database: &'a Database,
    ) -> Self {
        Self {
            number,
            address,
            connection: None,
            database,
            versions: vec![1; keys],
            floors: vec![1; keys],
            rate_per_s,
            writes,
            rng: Rng::new(number as u64),
        }
    }

    /// Sets every key, then works at Poisson instants until `stop`.
    pub(super) fn run(mut self, step: &AtomicUsize, stop: &AtomicBool, steps: usize) -> Tally {
        for key in 0..self.versions.len() {
            let _ = self.set(key);
        }
        self.database.client_is_ready();
        let mut tally = vec![StepCounts::default(); steps];
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            due += Duration::from_secs_f64(self.rng.exponential() / self.rate_per_s);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let counts = &mut tally[step.load(Ordering::Relaxed).min(steps - 1)];
            // One tenth of the keys gets nearly half of the requests.
            let key = (self.rng.unit().powi(3) * self.versions.len() as f64) as usize;
            let done =
                if self.rng.unit() < self.writes { self.write(key) } else { self.read(key, due, counts) };
            if done.is_err() {
                counts.errors += 1;
                self.connection = None;
            }
        }
        tally
    }

    fn read(&mut self, key: usize, due: Instant, counts: &mut StepCounts) -> io::Result<()> {
        counts.gets += 1;
        let floor = self.floors[key];
        let shown = self.get(key);
        if let Ok(Some(version)) = shown {
            counts.hits += 1;
            counts.stale += u64::from(version < floor);
        } else {
            // When the cache fails, the application still reads from the database.
            self.database.ask();
        }
        counts.get_us.push(due.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
        if shown?.is_none() {
            self.set(key)?;
        }
        Ok(())
    }

    fn write(&mut self, key: usize) -> io::Result<()> {
        self.versions[key] += 1;
        let version = self.versions[key];
        let line = format!("delete {}\r\n", self.name(key));
        match self.ask(line.as_bytes())?.as_str() {
            "DELETED" | "NOT_FOUND" => {
                self.floors[key] = version;
                Ok(())
            }
            other => Err(io::Error::other(other.to_owned())),
        }
    }

    fn name(&self, key: usize) -> String {
        format!("resize:{}:{key}", self.number)
    }

    /// Returns the version in the cache.
    fn get(&mut self, key: usize) -> io::Result<Option<u32>> {
        let name = self.name(key);
        let line = self.ask(format!("get {name}\r\n").as_bytes())?;
        if line == "END" {
            return Ok(None);
        }
        let strange = || io::Error::other(format!("{name}: {line}"));
        let len: usize = line
            .strip_prefix(&format!("VALUE {name} 0 "))
            .and_then(|len| len.parse().ok())
            .filter(|len| *len <= VALUE_BYTES)
            .ok_or_else(strange)?;
        let mut value = vec![0; len + "\r\nEND\r\n".len()];
        self.connection.as_mut().ok_or_else(strange)?.read_exact(&mut value)?;
        let text = std::str::from_utf8(&value[..len]).ok();
        let version = text.and_then(|text| text.trim_end().strip_prefix(&format!("{name} "))?.parse().ok());
        Ok(Some(version.ok_or_else(strange)?))
    }

    fn set(&mut self, key: usize) -> io::Result<()> {
        let value = format!("{:<VALUE_BYTES$}", format!("{} {}", self.name(key), self.versions[key]));
        let request = format!("set {} 0 {TTL_S} {VALUE_BYTES}\r\n{value}\r\n", self.name(key));
        match self.ask(request.as_bytes())?.as_str() {
            "STORED" => Ok(()),
            other => Err(io::Error::other(other.to_owned())),
        }
    }

    /// Sends a request and returns the first line of the reply.
    fn ask(&mut self, request: &[u8]) -> io::Result<String> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(SILENCE_LIMIT))?;
                none.insert(BufReader::new(stream))
            }
        };
        connection.get_mut().write_all(request)?;
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
