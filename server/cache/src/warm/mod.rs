//! Warm restart (`-e FILE`): the contents of the cache outlive the process when it is stopped gracefully.
//!
//! When SIGUSR1 or `shutdown graceful` stops the server, each shard writes its items to a file of its own
//! beside FILE, which is called a part. Then FILE says that all parts are complete. The next start reads the
//! parts, on as many shards as it has, and removes them before it serves. So contents are never read twice,
//! and after any other stop there are none. Each block of a part has a checksum, and damaged blocks are left
//! out. FILE is locked while a process uses it.
//!
//! FILE is one JSON object, the manifest: `{"corecached_warm": 1, "state": "running"}`, or with the state
//! `saved` and the fields of [`Manifest`].

mod part;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use corecached_engine::{Key, KeyHasher, Seconds, Store};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use corecached_shard::owner_of;

/// The version of the format.
const VERSION: u64 = 1;
/// Most parts.
const PARTS_MAX: usize = 4096;
/// Bytes of FILE that are read. Every manifest is shorter.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// The description of the contents that a process before this one saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manifest {
    /// The seed of the hasher. With the same seed and as many shards as before, each key has the same owner
    /// as before.
    seed: u64,
    /// Number of parts: `FILE.0` and up.
    parts: usize,
    /// Items in all parts.
    items: u64,
    /// All cas uniques in the parts are lower than this.
    cas_next: u64,
    /// The time of a delayed `flush_all` that was pending, in unix seconds.
    flush_at: Option<u32>,
}

/// What FILE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Contents were saved.
    Saved(Manifest),
    /// A process ran and saved nothing.
    NotSaved,
    /// Something that this version cannot read, or nothing.
    Unreadable,
}

impl Found {
    fn parse(text: &str) -> Self {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return Self::Unreadable };
        if value.get("corecached_warm").and_then(Value::as_u64) != Some(VERSION) {
            return Self::Unreadable;
        }
        match value.get("state").and_then(Value::as_str) {
            Some("saved") => Manifest::from_json(&value)
                .filter(|manifest| value == manifest.to_json())
                .map_or(Self::Unreadable, Self::Saved),
            Some("running") => Self::NotSaved,
            _ => Self::Unreadable,
        }
    }
}

impl Manifest {
    fn from_json(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        Some(Self {
            seed: number("seed")?,
            parts: usize::try_from(number("parts")?).ok().filter(|parts| (1..=PARTS_MAX).contains(parts))?,
            items: number("items")?,
            cas_next: number("cas_next")?,
            flush_at: match number("flush_at") {
                Some(at) => Some(u32::try_from(at).ok()?),
                None => None,
            },
        })
    }

    fn to_json(self) -> Value {
        let Self { seed, parts, items, cas_next, flush_at } = self;
        json!({"corecached_warm": VERSION, "state": "saved", "seed": seed, "parts": parts, "items": items,
               "cas_next": cas_next, "flush_at": flush_at, "xxh3": self.checksum()})
    }

    /// A checksum of the fields. With it a change of one digit is found, which would still be a manifest: with
    /// another `flush_at` items would live on that were flushed.
    fn checksum(&self) -> u64 {
        xxh3_64(format!("{:?}", (self.seed, self.parts, self.items, self.cas_next, self.flush_at)).as_bytes())
    }
}

/// The fields of the manifest that come from one part.
#[derive(Clone, Copy, Debug)]
struct WrittenPart {
    items: u64,
    cas_next: u64,
    flush_at: Option<u32>,
}

/// FILE and its parts. FILE is locked as long as this exists.
#[derive(Debug)]
pub struct Warm {
    path: PathBuf,
    file: Mutex<File>,
    seed: u64,
    /// What the process before saved, if it saved anything.
    saved: Option<Manifest>,
    /// Items that were read from the parts.
    items_read: AtomicU64,
    /// Items of these that were evicted again while others were read, since memory was full.
    items_evicted: AtomicU64,
    /// The stop that follows is a graceful one.
    graceful: AtomicBool,
    /// For each shard the part that it has written.
    written: Mutex<Vec<Option<WrittenPart>>>,
}

impl Warm {
    /// Opens and locks FILE, and reads its manifest. When nothing was saved, `seed` is the seed of the
    /// hasher.
    ///
    /// # Errors
    /// When FILE cannot be read and written, or another process uses it.
    pub fn open(path: &Path, seed: u64) -> io::Result<Self> {
        // Anything but a file, a pipe for one, could keep the open waiting for ever.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("not a regular file"));
        }
        let file = private().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::other("another process uses it"),
            fs::TryLockError::Error(error) => error,
        })?;
        let mut file = file;
        let mut text = String::new();
        let read = (&mut file).take(MANIFEST_BYTES_MAX).read_to_string(&mut text);
        let found = if read.is_ok() { Found::parse(&text) } else { Found::Unreadable };
        let shown = path.display();
        match found {
            Found::Saved(saved) => tracing::info!("{shown}: {} items of the process before", saved.items),
            Found::NotSaved => tracing::warn!(
                "{shown}: the process before was not stopped gracefully (by SIGUSR1), or could not save: starting empty"
            ),
            Found::Unreadable if file.metadata()?.len() > 0 => {
                tracing::warn!(
                    "{shown}: damaged, or not written by this program: starting empty, and it is overwritten"
                );
            }
            Found::Unreadable if part::is_part(&part_path(path, 0)) => tracing::warn!(
                "{shown}: empty, although a process before saved contents beside it: starting without them"
            ),
            Found::Unreadable => tracing::info!("{shown}: new, starting empty"),
        }
        let saved = match found {
            Found::Saved(saved) => Some(saved),
            _ => None,
        };
        probe(&part_path(path, 0))?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            seed: saved.map_or(seed, |saved| saved.seed),
            saved,
            items_read: AtomicU64::new(0),
            items_evicted: AtomicU64::new(0),
            graceful: AtomicBool::new(false),
            written: Mutex::default(),
        })
    }

    /// The seed of the hasher.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Fills the store of `shard` with the saved items that it owns.
    pub fn load(&self, shard: usize, shards: usize, hasher: &KeyHasher, store: &mut Store, now: Seconds) {
        let Some(saved) = self.saved else { return };
        store.raise_cas(saved.cas_next.saturating_sub(1));
        match saved.flush_at.map(Seconds) {
            Some(at) if at <= now => {
                // The flush has emptied the cache by now: nothing is missing.
                self.items_read.store(saved.items, Ordering::Relaxed);
                return;
            }
            Some(at) => store.flush(at, now),
            None => {}
        }
        // With as many shards as before, a key has the same owner as before, unless this version chooses
        // owners otherwise. So the part of this shard is read first, and the others only if it has items of
        // other owners.
        let mut moved = saved.parts != shards;
        let mut parts: Vec<usize> = (0..saved.parts).collect();
        parts.sort_by_key(|&part| part != shard);
        let mut items_read = 0;
        for part in parts {
            if part != shard && !moved {
                break;
            }
            let path = self.part(part);
            let outcome = part::read(&path, |key, carried, value| {
                let hash = hasher.hash(key);
                if owner_of(hash, shards) == shard {
                    items_read += 1;
                    store.restore(Key { bytes: key, hash }, carried, value, now);
                } else {
                    moved = true;
                }
            });
            if let Err(error) = outcome {
                tracing::warn!("{}: {error}: the rest of it is left out", path.display());
            }
        }
        self.items_read.fetch_add(items_read, Ordering::Relaxed);
        self.items_evicted.fetch_add(store.stats().evictions, Ordering::Relaxed);
    }

    /// Removes what was saved. Called when all shards have loaded their items, before the first request is
    /// served.
    ///
    /// # Errors
    /// When FILE cannot be written, or a part cannot be removed. Then the server must not serve: a later
    /// start would load items that are out of date.
    pub fn begin_serving(&self, shards: usize) -> io::Result<()> {
        let items_read = self.items_read.load(Ordering::Relaxed);
        if let Some(saved) = self.saved.filter(|saved| saved.items > items_read) {
            tracing::warn!(
                "{}: {items_read} items of the {} that were saved could be read: starting without the others",
                self.path.display(),
                saved.items
            );
        }
        let evicted = self.items_evicted.load(Ordering::Relaxed);
        if evicted > 0 {
            tracing::warn!(
                "{}: {evicted} items of the {items_read} that were read did not fit into memory: raise -m to keep all",
                self.path.display()
            );
        }
        self.write(&json!({"corecached_warm": VERSION, "state": "running"}))?;
        // With the parts of a process that was killed while it saved.
        for path in (0..PARTS_MAX).map(|part| self.part(part)).take_while(|path| part::is_part(path)) {
            fs::remove_file(path)?;
        }
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = vec![None; shards];
        Ok(())
    }

    /// Has the coming stop save the contents.
    pub fn keep_contents(&self) {
        self.graceful.store(true, Ordering::Release);
    }

    /// Writes the items of `shard` to its part, if the stop is a graceful one. The store must not change any
    /// more.
    pub(crate) fn save(&self, shard: usize, store: &Store, now: Seconds) {
        if !self.graceful.load(Ordering::Acquire) {
            return;
        }
        let path = self.part(shard);
        let saved = part::Writer::create(&path).and_then(|mut writer| {
            store.save(now, |key, carried, value| writer.put(key, carried, value))?;
            writer.finish()
        });
        match saved {
            Ok(items) => {
                let flush_at = store.pending_flush().map(|at| at.0);
                let written = WrittenPart { items, cas_next: store.cas_next(), flush_at };
                let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                debug_assert!(all.get(shard).is_none_or(Option::is_none), "a shard saves once");
                if let Some(slot) = all.get_mut(shard) {
                    *slot = Some(written);
                }
            }
            Err(error) => tracing::error!("{}: {error}: contents are not kept", path.display()),
        }
    }

    /// Writes the manifest, if the stop is a graceful one and every shard has written its part. Called when
    /// all shards have ended. False if the contents should have been kept and are lost; the log says why.
    #[must_use]
    pub fn conclude(&self) -> bool {
        if !self.graceful.load(Ordering::Acquire) {
            return true;
        }
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Option<Vec<WrittenPart>> = written.iter().copied().collect();
        let Some(parts) = parts.filter(|parts| !parts.is_empty()) else {
            for part in 0..written.len() {
                let _ = fs::remove_file(self.part(part));
            }
            return false;
        };
        let manifest = Manifest {
            seed: self.seed,
            parts: parts.len(),
            items: parts.iter().map(|part| part.items).sum(),
            cas_next: parts.iter().map(|part| part.cas_next).max().unwrap_or(1),
            flush_at: parts.iter().find_map(|part| part.flush_at),
        };
        match self.write(&manifest.to_json()) {
            Ok(()) => {
                tracing::info!("{}: {} items saved", self.path.display(), manifest.items);
                true
            }
            Err(error) => {
                tracing::error!("{}: {error}: contents are not kept", self.path.display());
                false
            }
        }
    }

    /// The path of part `number`.
    fn part(&self, number: usize) -> PathBuf {
        part_path(&self.path, number)
    }

    fn write(&self, manifest: &Value) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(manifest.to_string().as_bytes())
    }
}

/// How FILE and its parts are created: values of clients are for the user of the server alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Checks that parts can be written, before there is anything to lose, with the path of the first.
fn probe(part: &Path) -> io::Result<()> {
    match private().write(true).create_new(true).open(part) {
        Ok(_) => fs::remove_file(part),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io::Error::other(format!("{}: {error}", part.display()))),
    }
}

/// The path of part `number` beside FILE at `path`.
fn part_path(path: &Path, number: usize) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(format!(".{number}"));
    path.into()
}

#[cfg(test)]
mod tests;
