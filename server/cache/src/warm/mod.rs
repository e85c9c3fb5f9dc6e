//! Warm restart (`-e FILE`): contents outlive the process when it is stopped gracefully.
//!
//! Stopped by SIGUSR1, or by `shutdown graceful`, each shard writes its items to a file of its own beside FILE, and
//! FILE says that all of them are there. The next start reads them, on as many cores as it has, and takes them away
//! before it serves: contents are never read twice, and after any other end there are none. What is read is checked by
//! the block; what fails is left out. Another process may not use FILE meanwhile (it is locked).
//!
//! FILE is JSON, one object: `{"corecached_warm": 1, "state": "running"}`, or with the state `saved` all that
//! [`Saved`] has.

mod part;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use corecached_engine::{Key, KeyHasher, Seconds, Store};
use serde_json::{Value, json};

use corecached_shard::owner_of;

const VERSION: u64 = 1;
/// Most files of items.
const PARTS_MAX: usize = 4096;
/// FILE is shorter, whatever it says.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// Contents that a process before this one left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Saved {
    /// Of the hasher: with as many shards as before each key has the owner it had.
    seed: u64,
    /// Files of items, `FILE.0` and up.
    parts: usize,
    /// Items in them.
    items: u64,
    /// Cas uniques below were handed out.
    cas_next: u64,
    /// When a delayed flush comes due, unix seconds.
    flush_at: Option<u32>,
}

impl Saved {
    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        let is_saved = number("corecached_warm") == Some(VERSION)
            && value.get("state").and_then(Value::as_str) == Some("saved");
        is_saved.then_some(())?;
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
               "cas_next": cas_next, "flush_at": flush_at})
    }
}

/// What a shard wrote.
#[derive(Clone, Copy, Debug)]
struct Written {
    items: u64,
    cas_next: u64,
    flush_at: Option<u32>,
}

/// FILE, locked as long as this lives.
#[derive(Debug)]
pub struct Warm {
    path: PathBuf,
    file: Mutex<File>,
    seed: u64,
    saved: Option<Saved>,
    graceful: AtomicBool,
    written: Mutex<Vec<Option<Written>>>,
}

impl Warm {
    /// Open FILE and see what it promises. `seed` is for the hasher when it promises nothing.
    ///
    /// # Errors
    /// It cannot be read and written, or another process uses it.
    pub fn open(path: &Path, seed: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::other("another process uses it"),
            fs::TryLockError::Error(error) => error,
        })?;
        let mut file = file;
        let mut text = String::new();
        let read = (&mut file).take(MANIFEST_BYTES_MAX).read_to_string(&mut text);
        let saved = Saved::parse(&text);
        let shown = path.display();
        match (&saved, read) {
            (Some(saved), Ok(_)) => tracing::info!("{shown}: {} items of the process before", saved.items),
            _ if file.metadata()?.len() == 0 => tracing::info!("{shown}: new, starting empty"),
            _ if text.contains("\"corecached_warm\"") => tracing::warn!(
                "{shown}: the process before was not stopped gracefully (by SIGUSR1), or could not save: starting empty"
            ),
            _ => tracing::warn!("{shown}: nothing that this version can read: starting empty"),
        }
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            seed: saved.map_or(seed, |saved| saved.seed),
            saved,
            graceful: AtomicBool::new(false),
            written: Mutex::default(),
        })
    }

    /// For the hasher.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Fill the store of `shard` with what is its own.
    pub fn load(&self, shard: usize, shards: usize, hasher: &KeyHasher, store: &mut Store, now: Seconds) {
        let Some(saved) = self.saved else { return };
        store.raise_cas(saved.cas_next.saturating_sub(1));
        match saved.flush_at.map(Seconds) {
            Some(at) if at <= now => return,
            Some(at) => store.flush(at, now),
            None => {}
        }
        // With as many shards as before a key has the owner it had, unless owners are chosen otherwise now.
        let mut moved = saved.parts != shards;
        let mut parts: Vec<usize> = (0..saved.parts).collect();
        parts.sort_by_key(|&part| part != shard);
        for part in parts {
            if part != shard && !moved {
                break;
            }
            let path = self.part(part);
            let outcome = part::read(&path, |key, carried, value| {
                let hash = hasher.hash(key);
                if owner_of(hash, shards) == shard {
                    store.restore(Key { bytes: key, hash }, carried, value, now);
                } else {
                    moved = true;
                }
            });
            if let Err(error) = outcome {
                tracing::warn!("{}: {error}: the rest of it is left out", path.display());
            }
        }
    }

    /// All shards have what they can have: what was saved goes, before anything can change.
    ///
    /// # Errors
    /// FILE cannot be written. Then nothing may be served: a later start would bring back what is out of date.
    pub fn consumed(&self, shards: usize) -> io::Result<()> {
        self.write(&json!({"corecached_warm": VERSION, "state": "running"}))?;
        // Also those of a process that was killed while it saved.
        for path in (0..PARTS_MAX).map(|part| self.part(part)).take_while(|path| part::is_one(path)) {
            fs::remove_file(path)?;
        }
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = vec![None; shards];
        Ok(())
    }

    /// The stop under way is a graceful one.
    pub fn keep_contents(&self) {
        self.graceful.store(true, Ordering::Release);
    }

    /// Write what `shard` holds, if the stop is a graceful one; nothing changes it any more.
    pub fn save(&self, shard: usize, store: &Store, now: Seconds) {
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
                let written = Written { items, cas_next: store.cas_next(), flush_at };
                let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(slot) = all.get_mut(shard) {
                    *slot = Some(written);
                }
            }
            Err(error) => tracing::error!("{}: {error}: contents are not kept", path.display()),
        }
    }

    /// Every shard has ended. Where all have written their part, FILE says so now.
    pub fn conclude(&self) {
        if !self.graceful.load(Ordering::Acquire) {
            return;
        }
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Option<Vec<Written>> = written.iter().copied().collect();
        let Some(parts) = parts.filter(|parts| !parts.is_empty()) else {
            for part in 0..written.len() {
                let _ = fs::remove_file(self.part(part));
            }
            return;
        };
        let saved = Saved {
            seed: self.seed,
            parts: parts.len(),
            items: parts.iter().map(|part| part.items).sum(),
            cas_next: parts.iter().map(|part| part.cas_next).max().unwrap_or(1),
            flush_at: parts.iter().find_map(|part| part.flush_at),
        };
        match self.write(&saved.to_json()) {
            Ok(()) => tracing::info!("{}: {} items saved", self.path.display(), saved.items),
            Err(error) => tracing::error!("{}: {error}: contents are not kept", self.path.display()),
        }
    }

    fn part(&self, number: usize) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(format!(".{number}"));
        path.into()
    }

    fn write(&self, manifest: &Value) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(manifest.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests;
