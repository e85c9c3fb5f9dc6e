//! Sends the deletes in a spool to the servers they were for. `corecached replay` does it once, a proxy with
//! a spool from time to time.
//!
//! Uses blocking sockets, on a thread that no client waits for.

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

use super::SPOOL_FOLDER;
use super::line::{self, SpoolLine};
use crate::config::Address;

/// The time that a destination has to accept a connection, and the time it has to answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// Most deletes that are sent to one destination before its replies are read.
const BATCH_MAX: usize = 1024;
/// The longest line in bytes, which has room for the longest key and address.
const LINE_BYTES_MAX: usize = 4096;
/// The longest reply in bytes.
const REPLY_BYTES_MAX: u64 = 4096;

/// Sends the deletes that a proxy could not deliver (its --async-dir) to the servers they were for; what
/// cannot be delivered now stays. The exit code is 0 when nothing is left, else 1. Files that a running proxy
/// writes are left to it.
#[derive(Debug, Parser)]
#[command(name = "corecached replay", bin_name = "corecached replay", disable_version_flag = true)]
pub struct ReplayArgs {
    /// The folder
    #[arg(value_name = "DIR", default_value = SPOOL_FOLDER)]
    pub dir: PathBuf,

    /// Milliseconds a server has to connect, and to answer
    #[arg(short = 't', long, value_name = "MS", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
}

/// What a pass over a spool did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplayOutcome {
    /// Deletes that a server took, whether or not it had the key.
    pub(crate) delivered: u64,
    /// Deletes that stay in the spool.
    pub(crate) kept: u64,
    /// Lines that are not deletes, which were moved to a file of their own.
    pub(crate) unreadable: u64,
}

impl fmt::Display for ReplayOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delivered, kept, unreadable } = self;
        write!(f, "{delivered} delivered, {kept} kept, {unreadable} unreadable")
    }
}

/// The folder of a spool cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", folder.display())]
pub struct ReplayError {
    folder: PathBuf,
    source: io::Error,
}

/// Runs `corecached replay`: one pass over the folder, whose result is printed. Returns whether nothing is
/// left in it.
///
/// # Errors
/// The folder cannot be read.
pub fn replay_once(args: &ReplayArgs) -> Result<bool, ReplayError> {
    fs::read_dir(&args.dir).map_err(|source| ReplayError { folder: args.dir.clone(), source })?;
    let outcome = replay(&args.dir, Duration::from_millis(args.timeout_ms), &AtomicBool::new(false));
    println!("{outcome}");
    Ok(outcome.kept == 0)
}

/// Makes one pass over the folder, which ends early once `stop` is set.
pub(crate) fn replay(dir: &Path, timeout: Duration, stop: &AtomicBool) -> ReplayOutcome {
    let mut pass = ReplayPass { timeout, stop, outcome: ReplayOutcome::default(), silent: HashSet::new() };
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

/// The extension of the file that keeps those lines of another file that are not deletes.
const UNREADABLE: &str = "unreadable";
/// The extension of the file that replaces another one once it is complete.
const PART: &str = "part";

fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

struct ReplayPass<'a> {
    timeout: Duration,
    stop: &'a AtomicBool,
    outcome: ReplayOutcome,
    /// Destinations that did not answer. They get no more in this pass.
    silent: HashSet<Address>,
}

impl ReplayPass<'_> {
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // A process that writes the file holds its lock, and so does another pass.
        if file.try_lock().is_err() {
            return Ok(());
        }
        let part = with_extension(path, PART);
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
                let _ = path.parent().map(fs::remove_dir); // fails while other files are in it
                Ok(())
            }
        }
    }

    /// Reads the next deletes. Returns them, and whether the file is at its end.
    fn read(&mut self, lines: &mut impl BufRead, path: &Path) -> io::Result<(Vec<SpoolLine>, bool)> {
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
                    let kept = with_extension(path, UNREADABLE);
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

    /// Sends the deletes of `batch`. Returns those that could not be delivered.
    fn deliver(&mut self, batch: Vec<SpoolLine>) -> Vec<SpoolLine> {
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

/// Whether the first line is a delete: any other file is neither read nor removed.
fn is_spool(lines: &mut BufReader<&File>) -> io::Result<bool> {
    let mut first = Vec::new();
    lines.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut first)?;
    lines.rewind()?;
    Ok(first.is_empty() || line::parse(first.trim_ascii_end()).is_some())
}

/// Sends `commands` and reads their replies. Returns for each reply whether the delete was taken, and the
/// error that ended the exchange early.
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
