//! Deletes that no destination took, on disk until one does: mcrouter's asynclog.
//!
//! A shard hands what failed to [`Spooler::take`]. One thread writes it down and, now and then, sends what lies in the
//! folder to whom it was for ([`replay`]). Whatever it cannot take, for want of room in memory or on disk, the shard
//! hears of at once, and its client gets the error. A delete that comes late makes a key missing, never wrong.
//!
//! ```text
//! DIR/20261125T14/20261125T1415-1764080100-corecached-4711    an hour's folder, a quarter of an hour's file
//! ["AS1.0",1764080123.456,"C",["cache-0.cache",11211,"delete user:1\r\n"]]
//! ```
//!
//! A line is a JSON array: the version, unix time, `C`, and host, port and command. Keys that are no text stand in a meta
//! command, `md BASE64 b`; a unix socket is the host `unix:PATH` at port 0. Files that are being written are locked
//! (`flock`), and those alone are.

mod line;
pub mod replay;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::config::Address;

/// Deletes handed over and not written; more are refused.
const QUEUE_MAX: usize = 1 << 16;
/// Bytes of all files in the folder, past which deletes are refused.
const FOLDER_BYTES_MAX: u64 = 1 << 30;
/// Bytes of one file, past which another is begun.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Seconds for which a file is written.
const FILE_S: u64 = 15 * 60;
/// How often the thread looks whether it is to end or to replay.
const TICK: Duration = Duration::from_millis(100);
/// From a write that failed to the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A delete to be delivered later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// To whom.
    pub address: Address,
    /// Of which key, as the destination knows it.
    pub key: Bytes,
}

/// Where and how a spool is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolOptions {
    /// The folder.
    pub dir: PathBuf,
    /// It was asked for by name: it is made where it is missing.
    pub make: bool,
    /// How often what lies there is sent again; zero leaves that to others.
    pub replay_every: Duration,
}

#[derive(Debug)]
struct State {
    /// The last write went well, and there is room for more.
    takes: AtomicBool,
    stopping: AtomicBool,
}

/// Takes deletes; one for each shard.
#[derive(Clone, Debug)]
pub struct Spooler {
    queue: Sender<Undelivered>,
    state: Arc<State>,
}

impl Spooler {
    /// Keep `undelivered`; false when it cannot be kept.
    #[must_use]
    pub fn take(&self, undelivered: Undelivered) -> bool {
        self.state.takes.load(Ordering::Relaxed) && self.queue.try_send(undelivered).is_ok()
    }
}

/// The thread that writes.
#[derive(Debug)]
pub struct Spool {
    state: Arc<State>,
    thread: JoinHandle<()>,
}

impl Spool {
    /// Open the folder and start the thread.
    ///
    /// # Errors
    /// The folder is not there, or cannot be written to.
    pub fn start(options: &SpoolOptions) -> io::Result<(Self, Spooler)> {
        if options.make {
            fs::create_dir_all(&options.dir)?;
        }
        fs::read_dir(&options.dir)?;
        // Whether files can be made there shows best by making one.
        let mut writer = Writer::new(options.dir.clone());
        writer.open(SystemTime::now())?;
        writer.close();
        let (sender, queue) = bounded(QUEUE_MAX);
        let takes = AtomicBool::new(folder_bytes(&options.dir) < FOLDER_BYTES_MAX);
        let state = Arc::new(State { takes, stopping: AtomicBool::new(false) });
        let spooler = Spooler { queue: sender, state: Arc::clone(&state) };
        let worker = Worker {
            queue,
            state: Arc::clone(&state),
            writer,
            unwritten: Vec::new(),
            retry_at: None,
            replay_every: options.replay_every,
            replay_at: Instant::now() + options.replay_every,
        };
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || worker.run())?;
        Ok((Self { state, thread }, spooler))
    }

    /// Write down what was handed over, and end.
    pub fn stop(self) {
        self.state.stopping.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the spool's thread panicked");
        }
    }
}

struct Worker {
    queue: Receiver<Undelivered>,
    state: Arc<State>,
    writer: Writer,
    /// Lines that the disk did not take.
    unwritten: Vec<u8>,
    retry_at: Option<Instant>,
    replay_every: Duration,
    replay_at: Instant,
}

impl Worker {
    fn run(mut self) {
        loop {
            let stopping = self.state.stopping.load(Ordering::Relaxed);
            match self.queue.recv_timeout(if stopping { Duration::ZERO } else { TICK }) {
                Ok(first) => self.write(first),
                Err(RecvTimeoutError::Timeout) if !stopping => {}
                Err(_) => break,
            }
            if self.retry_at.is_some_and(|at| at <= Instant::now()) {
                self.flush();
            }
            if !self.replay_every.is_zero() && self.replay_at <= Instant::now() {
                self.replay();
            }
        }
        self.flush();
    }

    /// `first` and all that waits behind it.
    fn write(&mut self, first: Undelivered) {
        let now = SystemTime::now();
        line::put(&mut self.unwritten, &first, now);
        for more in self.queue.try_iter().take(QUEUE_MAX) {
            line::put(&mut self.unwritten, &more, now);
        }
        self.flush();
    }

    fn flush(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        match self.writer.write(&self.unwritten, SystemTime::now()) {
            Ok(()) => {
                self.unwritten = Vec::new();
                self.retry_at = None;
                self.state.takes.store(self.writer.folder_bytes < FOLDER_BYTES_MAX, Ordering::Relaxed);
            }
            Err(error) => {
                if self.retry_at.is_none() {
                    let folder = self.writer.dir.display();
                    tracing::error!(
                        "{folder}: failed deletes cannot be written ({error}): tried again every second, and clients get the error"
                    );
                }
                self.state.takes.store(false, Ordering::Relaxed);
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }

    fn replay(&mut self) {
        self.writer.close(); // what this process wrote is to be read too
        let outcome = replay::replay(&self.writer.dir, replay::TIMEOUT, &self.state.stopping);
        if outcome.delivered + outcome.unreadable > 0 {
            tracing::info!("failed deletes sent again: {outcome}");
        }
        self.writer.folder_bytes = folder_bytes(&self.writer.dir);
        if self.retry_at.is_none() {
            self.state.takes.store(self.writer.folder_bytes < FOLDER_BYTES_MAX, Ordering::Relaxed);
        }
        self.replay_at = Instant::now() + self.replay_every;
    }
}

/// The file being written.
struct Writer {
    dir: PathBuf,
    open: Option<Open>,
    /// Bytes in the whole folder, as far as this process knows.
    folder_bytes: u64,
}

struct Open {
    file: File,
    path: PathBuf,
    /// The quarter of an hour it is for, since the epoch.
    quarter: u64,
    bytes: u64,
}

impl Writer {
    fn new(dir: PathBuf) -> Self {
        let folder_bytes = folder_bytes(&dir);
        Self { dir, open: None, folder_bytes }
    }

    fn write(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        let quarter = unix_s(now) / FILE_S;
        if self.open.as_ref().is_some_and(|open| open.quarter != quarter || open.bytes >= FILE_BYTES_MAX) {
            self.close();
        }
        if self.open.is_none() {
            self.open(now)?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        // A write that ends early would leave half a line for the next one to follow.
        let written = open.file.write_all(lines).and_then(|()| open.file.flush());
        if let Err(error) = written {
            let _ = open.file.set_len(open.bytes);
            self.close();
            return Err(error);
        }
        open.bytes += lines.len() as u64;
        self.folder_bytes += lines.len() as u64;
        Ok(())
    }

    fn open(&mut self, now: SystemTime) -> io::Result<()> {
        let (folder, name) = line::place(now);
        let folder = self.dir.join(folder);
        let mut number = 0u32;
        loop {
            fs::create_dir_all(&folder)?;
            let suffix = if number == 0 { String::new() } else { format!("-{number}") };
            let path = folder.join(format!("{name}{suffix}"));
            number += 1;
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    file.try_lock().map_err(|error| match error {
                        fs::TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
                        fs::TryLockError::Error(error) => error,
                    })?;
                    // Someone may have tidied it away before it was locked.
                    if fs::exists(&path)? {
                        self.open = Some(Open { file, path, quarter: unix_s(now) / FILE_S, bytes: 0 });
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => {}
                // The hour's folder was tidied away in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound && number < 1000 => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take()
            && open.bytes == 0
        {
            let _ = fs::remove_file(&open.path);
            let _ = open.path.parent().map(fs::remove_dir); // fails while others are in it
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Seconds since the epoch.
fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Every file of a spool, oldest first. What is not named as one is nobody's business here, whatever folder was given.
fn files(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path, minutes: bool| -> Vec<fs::DirEntry> {
        let named = |entry: &fs::DirEntry| line::begins_with_time(&entry.file_name(), minutes);
        fs::read_dir(dir).into_iter().flatten().flatten().filter(named).collect()
    };
    let is =
        |entry: &fs::DirEntry, kind: fn(&fs::FileType) -> bool| entry.file_type().is_ok_and(|is| kind(&is));
    let hours = list(dir, false).into_iter().filter(|entry| is(entry, fs::FileType::is_dir));
    let mut files: Vec<PathBuf> = hours
        .flat_map(|hour| list(&hour.path(), true))
        .filter(|entry| is(entry, fs::FileType::is_file))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

fn folder_bytes(dir: &Path) -> u64 {
    files(dir).iter().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests;
