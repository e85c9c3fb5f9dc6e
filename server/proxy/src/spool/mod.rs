//! The spool: deletes that no destination took, kept on disk until one does. This is mcrouter's asynclog.
//!
//! A shard gives deletes that failed to [`Spooler::take`]. One thread writes them to disk and, from time to
//! time, sends what is in the folder to the servers it was for ([`replay`]). If there is no room in memory or
//! on disk, `take` says so at once, and the client gets the error. A delete that is delivered late makes a
//! key missing, never wrong.
//!
//! ```text
//! DIR/20261125T14/20261125T1415-1764080100-corecached-4711    an hour's folder, a quarter of an hour's file
//! ["AS1.0",1764080123.456,"C",["cache-0.cache",11211,"delete user:1\r\n"]]
//! ```
//!
//! A line is a JSON array: the version, the unix time, `C`, and an array of host, port and command. A key
//! that is not plain text is sent by a meta command, `md BASE64 b`; a unix socket is the host `unix:PATH`
//! with port 0. Exactly the files that are being written or replayed are locked (`flock`).

mod line;
pub(crate) mod replay;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::config::Address;

pub use replay::{ReplayArgs, ReplayError, replay_once};

/// The folder of the spool unless another is given.
pub(crate) const SPOOL_FOLDER: &str = "/var/spool/mcrouter";

/// Most deletes that were taken and not written. Further ones are refused.
const QUEUE_MAX: usize = 1 << 16;
/// Bytes of all files in the folder past which deletes are refused.
const FOLDER_BYTES_MAX: u64 = 1 << 30;
/// Bytes of one file past which the next one is begun.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Seconds for which a file is written.
const FILE_S: u64 = 15 * 60;
/// How often the thread checks whether it must stop or replay.
const TICK: Duration = Duration::from_millis(100);
/// The time from a write that failed to the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A delete that is to be delivered later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undelivered {
    /// The server it is for.
    pub address: Address,
    /// The key, as the destination knows it.
    pub key: Bytes,
}

/// The options of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolOptions {
    /// The folder.
    pub dir: PathBuf,
    /// Whether to create the folder if it is missing, because the user named it.
    pub make: bool,
    /// How often deletes in the folder are sent again; zero is never.
    pub replay_every: Duration,
}

#[derive(Debug)]
struct SpoolState {
    /// The last write succeeded, and there is room for more.
    takes: AtomicBool,
    stopping: AtomicBool,
}

/// The handle by which a shard adds deletes to the spool. To clone it costs little.
#[derive(Clone, Debug)]
pub struct Spooler {
    queue: Sender<Undelivered>,
    state: Arc<SpoolState>,
}

impl Spooler {
    /// Adds `undelivered` to the spool. Returns false if there is no room for it, or if the disk cannot be
    /// written.
    #[must_use]
    pub(crate) fn take(&self, undelivered: Undelivered) -> bool {
        self.state.takes.load(Ordering::Relaxed) && self.queue.try_send(undelivered).is_ok()
    }
}

/// The thread that writes the spool.
#[derive(Debug)]
pub struct Spool {
    state: Arc<SpoolState>,
    thread: JoinHandle<()>,
}

impl Spool {
    /// Opens the folder and starts the thread. Returns it with a handle to add deletes by.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written, or the thread cannot be started.
    pub fn start(options: &SpoolOptions) -> io::Result<(Self, Spooler)> {
        if options.make {
            fs::create_dir_all(&options.dir)?;
        }
        fs::read_dir(&options.dir)?;
        // Whether files can be created there is found out by creating one.
        let mut writer = SpoolWriter::new(options.dir.clone());
        writer.open(SystemTime::now())?;
        writer.close();
        let (sender, queue) = bounded(QUEUE_MAX);
        let takes = AtomicBool::new(folder_bytes(&options.dir) < FOLDER_BYTES_MAX);
        let state = Arc::new(SpoolState { takes, stopping: AtomicBool::new(false) });
        let spooler = Spooler { queue: sender, state: Arc::clone(&state) };
        let worker = SpoolThread {
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

    /// Writes all deletes that were added, and ends the thread.
    pub fn stop(self) {
        self.state.stopping.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the spool's thread panicked");
        }
    }
}

struct SpoolThread {
    queue: Receiver<Undelivered>,
    state: Arc<SpoolState>,
    writer: SpoolWriter,
    /// Lines that could not be written yet.
    unwritten: Vec<u8>,
    retry_at: Option<Instant>,
    replay_every: Duration,
    replay_at: Instant,
}

impl SpoolThread {
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

    /// Writes `first` and all deletes that are queued after it.
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
        self.writer.close(); // the file of this process is replayed too
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

/// The file that is being written.
struct SpoolWriter {
    dir: PathBuf,
    open: Option<OpenFile>,
    /// Bytes in the whole folder, as far as this process knows.
    folder_bytes: u64,
}

struct OpenFile {
    file: File,
    path: PathBuf,
    /// The quarter of an hour that the file is for, counted from the epoch.
    quarter: u64,
    bytes: u64,
}

impl SpoolWriter {
    fn new(dir: PathBuf) -> Self {
        let folder_bytes = folder_bytes(&dir);
        Self { dir, open: None, folder_bytes }
    }

    fn write(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        debug_assert_eq!(lines.last(), Some(&b'\n'), "only whole lines are written");
        let quarter = unix_s(now) / FILE_S;
        if self.open.as_ref().is_some_and(|open| open.quarter != quarter || open.bytes >= FILE_BYTES_MAX) {
            self.close();
        }
        if self.open.is_none() {
            self.open(now)?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        // A write that ends early would leave half a line, which the next write would continue.
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
        let (folder, name) = line::folder_and_name(now);
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
                    // Another process may have removed it before it was locked.
                    if fs::exists(&path)? {
                        self.open = Some(OpenFile { file, path, quarter: unix_s(now) / FILE_S, bytes: 0 });
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => {}
                // The folder of the hour was removed in between.
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
            let _ = open.path.parent().map(fs::remove_dir); // fails while other files are in it
        }
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.close();
    }
}

/// Seconds since the epoch.
fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// All files of the spool in `dir`, the oldest first. Files with other names are left alone, whatever folder
/// was given.
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
