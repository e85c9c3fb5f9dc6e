//! Sending what lies in a spool to whom it was for. `corecached replay` does it once, a proxy with a spool every now
//! and then.
//!
//! Blocking sockets on a thread of their own: nobody waits for it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;

use super::line::{self, Line};
use crate::config::Address;

/// What a destination has to connect, and to answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// Deletes sent to one destination before its replies are read.
const BATCH_MAX: usize = 1024;
/// Longest line, bytes: a key and an address are shorter.
const LINE_BYTES_MAX: usize = 4096;
/// Longest reply, bytes.
const REPLY_BYTES_MAX: u64 = 4096;

/// Sends the deletes that a proxy could not deliver (its --async-dir) to the servers they were for; what cannot be
/// delivered now stays. The exit code is 0 when nothing is left, else 1. Files that a running proxy writes are left to it.
#[derive(Debug, Parser)]
#[command(name = "corecached replay", bin_name = "corecached replay", disable_version_flag = true)]
pub struct Args {
    /// The folder
    #[arg(value_name = "DIR", default_value = super::super::args::ASYNC_DIR)]
    pub dir: PathBuf,

    /// Milliseconds a server has to connect, and to answer
    #[arg(short = 't', long, value_name = "MS", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Deletes that a server took, whether or not it had the key.
    pub delivered: u64,
    /// Deletes that stay for another time.
    pub kept: u64,
    /// Lines that are no deletes; they stay in a file of their own.
    pub unreadable: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delivered, kept, unreadable } = self;
        write!(f, "{delivered} delivered, {kept} kept, {unreadable} unreadable")
    }
}

/// `corecached replay`: true when nothing is left.
///
/// # Errors
/// The folder is not there.
pub fn main(args: &Args) -> Result<bool, String> {
    fs::read_dir(&args.dir).map_err(|error| format!("{}: {error}", args.dir.display()))?;
    let outcome = replay(&args.dir, Duration::from_millis(args.timeout_ms), &AtomicBool::new(false));
    println!("{outcome}");
    Ok(outcome.kept == 0)
}

/// One pass over the folder, until `stop` is set.
pub fn replay(dir: &Path, timeout: Duration, stop: &AtomicBool) -> Outcome {
    let mut pass = Pass { timeout, stop, outcome: Outcome::default(), silent: HashSet::new() };
    for path in super::files(dir) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if path.extension().is_some_and(|extension| extension == UNREADABLE || extension == PART) {
            continue;
        }
        if let Err(error) = pass.file(&path) {
            tracing::warn!("{}: {error}", path.display());
        }
    }
    pass.outcome
}

/// Of the file beside `NAME` that keeps its lines that are no deletes.
const UNREADABLE: &str = "unreadable";
/// Of the file that takes the place of `NAME` when it is whole.
const PART: &str = "part";

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

struct Pass<'a> {
    timeout: Duration,
    stop: &'a AtomicBool,
    outcome: Outcome,
    /// Destinations that do not answer: not asked again in this pass.
    silent: HashSet<Address>,
}

impl Pass<'_> {
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // Whoever writes it holds the lock. So does another pass.
        if file.try_lock().is_err() {
            return Ok(());
        }
        let part = beside(path, PART);
        let mut rest: Option<BufWriter<File>> = None;
        let mut lines = BufReader::new(&file);
        if !is_spool(&mut lines)? {
            tracing::warn!("{}: begins with no delete: left as it is", path.display());
            return Ok(());
        }
        loop {
            let (batch, whole) = self.read(&mut lines, path)?;
            let kept = match self.stop.load(Ordering::Relaxed) {
                true => batch,
                false => self.deliver(batch),
            };
            self.outcome.kept += kept.len() as u64;
            for line in &kept {
                let rest = match &mut rest {
                    Some(rest) => rest,
                    None => rest.insert(BufWriter::new(File::create(&part)?)),
                };
                rest.write_all(&line.text)?;
                rest.write_all(b"\n")?;
            }
            if whole {
                break;
            }
        }
        match rest {
            Some(rest) => {
                rest.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
                fs::rename(&part, path)
            }
            None => {
                fs::remove_file(path)?;
                let _ = path.parent().map(fs::remove_dir); // fails while others are in it
                Ok(())
            }
        }
    }

    /// The next lines that are deletes, and whether the file is at its end.
    fn read(&mut self, lines: &mut impl BufRead, path: &Path) -> io::Result<(Vec<Line>, bool)> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX {
            let mut line = Vec::new();
            let read = lines.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok((batch, true));
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            match line::parse(&line) {
                Some(parsed) => batch.push(parsed),
                None => {
                    self.outcome.unreadable += 1;
                    let kept = beside(path, UNREADABLE);
                    tracing::debug!(
                        "{}: a line that is no delete is kept in {}",
                        path.display(),
                        kept.display()
                    );
                    let mut kept = OpenOptions::new().append(true).create(true).open(kept)?;
                    kept.write_all(&line)?;
                    kept.write_all(b"\n")?;
                }
            }
        }
        Ok((batch, false))
    }

    /// Those that could not be delivered.
    fn deliver(&mut self, batch: Vec<Line>) -> Vec<Line> {
        let mut by_address: HashMap<Address, Vec<usize>> = HashMap::new();
        for (at, line) in batch.iter().enumerate() {
            by_address.entry(line.address.clone()).or_default().push(at);
        }
        let mut delivered = vec![false; batch.len()];
        for (address, places) in by_address {
            if self.silent.contains(&address) {
                continue;
            }
            let commands: Vec<&str> = places.iter().map(|&at| batch[at].command.as_str()).collect();
            let (took, ended) = exchange(&address, &commands, self.timeout);
            for (&at, took) in places.iter().zip(took) {
                delivered[at] = took;
            }
            if let Err(error) = ended {
                tracing::debug!("{address}: {error}");
                self.silent.insert(address);
            }
        }
        self.outcome.delivered += delivered.iter().filter(|&&delivered| delivered).count() as u64;
        batch.into_iter().zip(delivered).filter(|(_, delivered)| !delivered).map(|(line, _)| line).collect()
    }
}

/// Whether the first line is a delete: nothing else is anything to read, let alone to take away.
fn is_spool(lines: &mut BufReader<&File>) -> io::Result<bool> {
    let mut first = Vec::new();
    lines.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut first)?;
    lines.rewind()?;
    Ok(first.is_empty() || line::parse(first.trim_ascii_end()).is_some())
}

/// Send `commands` and read their replies: which were taken, as far as it answered, and what ended it early.
fn exchange(address: &Address, commands: &[&str], timeout: Duration) -> (Vec<bool>, io::Result<()>) {
    let mut took = Vec::new();
    let ended = connect(address, timeout).and_then(|stream| {
        let mut replies = BufReader::new(stream);
        replies.get_mut().write_all(commands.concat().as_bytes())?;
        for _ in commands {
            let mut reply = Vec::new();
            (&mut replies).take(REPLY_BYTES_MAX).read_until(b'\n', &mut reply)?;
            if reply.last() != Some(&b'\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let reply = reply.trim_ascii_end();
            took.push(matches!(reply, b"DELETED" | b"NOT_FOUND" | b"HD" | b"NF"));
        }
        Ok(())
    });
    (took, ended)
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn connect(address: &Address, timeout: Duration) -> io::Result<Box<dyn Stream>> {
    let (host, port) = match address {
        Address::Tcp { host, port } => (host, *port),
        Address::Unix { path } => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            return Ok(Box::new(stream));
        }
    };
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for address in (host.as_str(), port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(Box::new(stream));
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}
