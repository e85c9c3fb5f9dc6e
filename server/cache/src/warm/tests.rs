use corecached_engine::{StoreConfig, StoreHow};

use super::*;

const NOW: Seconds = Seconds(1_000_000);
const KEYS: usize = 20_000;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("corecached-warm-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("cache")
    }

    fn names(&self) -> Vec<String> {
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(&self.0).unwrap().flatten().map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process with its stores, which are filled from FILE.
struct Process {
    warm: Warm,
    hasher: KeyHasher,
    stores: Vec<Store>,
}

impl Process {
    fn start(file: &Path, shards: usize, seed: u64) -> Self {
        let warm = Warm::open(file, seed).unwrap();
        let hasher = KeyHasher::new(warm.seed());
        let load = |shard| {
            let mut store = Store::new(StoreConfig::new(16 << 20, hasher.clone()), NOW).unwrap();
            warm.load(shard, shards, &hasher, &mut store, NOW);
            store
        };
        let stores = (0..shards).map(load).collect();
        warm.begin_serving(shards).unwrap();
        Self { warm, hasher, stores }
    }

    fn value(number: usize) -> Vec<u8> {
        number.to_string().repeat(if number.is_multiple_of(1000) { 30_000 } else { 3 }).into_bytes()
    }

    fn fill(&mut self) {
        for number in 0..KEYS {
            let key = format!("key{number}");
            let hash = self.hasher.hash(key.as_bytes());
            let key = Key { bytes: key.as_bytes(), hash };
            let how = StoreHow { client_flags: number as u32, ..StoreHow::default() };
            let shards = self.stores.len();
            self.stores[owner_of(hash, shards)].store(key, &Self::value(number), &how, NOW);
        }
    }

    /// How many items are found. Each of them must be as it was stored.
    fn found(&self) -> usize {
        let is_there = |&number: &usize| {
            let key = format!("key{number}");
            let hash = self.hasher.hash(key.as_bytes());
            let store = &self.stores[owner_of(hash, self.stores.len())];
            store.peek(Key { bytes: key.as_bytes(), hash }, NOW).is_some_and(|item| {
                let mut value = Vec::new();
                item.value.copy_to(&mut value);
                assert!(value == Self::value(number) && item.client_flags == number as u32, "{key}");
                true
            })
        };
        (0..KEYS).filter(is_there).count()
    }

    fn stop(self, graceful: bool) {
        if graceful {
            self.warm.keep_contents();
        }
        for (shard, store) in self.stores.iter().enumerate() {
            self.warm.save(shard, store, NOW);
        }
        assert!(self.warm.conclude());
    }
}

#[test]
fn contents_survive_a_graceful_stop_on_any_number_of_shards() {
    for (before, after) in [(1, 1), (2, 2), (1, 3), (4, 2)] {
        let folder = Folder::new("graceful");
        let mut process = Process::start(&folder.file(), before, 1);
        process.fill();
        process.stop(true);
        assert_eq!(folder.names().len(), before + 1);
        let process = Process::start(&folder.file(), after, 2);
        assert_eq!(process.found(), KEYS, "{before} to {after} shards");
        assert_eq!(folder.names(), ["cache"], "nothing is left that could be read again");
        drop(process); // killed
        assert_eq!(Process::start(&folder.file(), after, 3).found(), 0, "after a kill nothing comes back");
    }
}

#[test]
fn after_any_other_stop_it_starts_empty() {
    let folder = Folder::new("other");
    let mut process = Process::start(&folder.file(), 2, 1);
    process.fill();
    process.stop(false);
    assert_eq!(folder.names(), ["cache"]);
    assert_eq!(Process::start(&folder.file(), 2, 2).found(), 0);
}

#[test]
fn what_is_damaged_is_left_out_and_never_wrong() {
    let folder = Folder::new("damaged");
    let save = || {
        let _ = fs::remove_file(folder.file());
        let mut process = Process::start(&folder.file(), 1, 1);
        process.fill();
        process.stop(true);
        fs::read(folder.0.join("cache.0")).unwrap()
    };
    let whole = save();
    let mut found = Vec::new();
    for step in 0..40 {
        save();
        let part = folder.0.join("cache.0");
        let at = whole.len() * step / 40;
        if step % 2 == 0 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (step % 8);
            fs::write(&part, bytes).unwrap();
        } else {
            fs::write(&part, &whole[..at]).unwrap();
        }
        found.push(Process::start(&folder.file(), 1, 2).found());
    }
    assert_eq!(found[0], 0, "another version");
    assert!(found.is_sorted() && found[39] > KEYS / 2, "{found:?}");
    save();
    fs::remove_file(folder.0.join("cache.0")).unwrap();
    assert_eq!(Process::start(&folder.file(), 1, 2).found(), 0);
}

#[test]
fn a_manifest_that_is_none_starts_empty() {
    let folder = Folder::new("manifest");
    let good = Manifest { seed: u64::MAX, parts: 2, items: 5, cas_next: 9, flush_at: Some(7) };
    assert_eq!(Found::parse(&good.to_json().to_string()), Found::Saved(good));
    let long = "x".repeat(200_000);
    for text in ["", "{", "[]", &long, "{\"corecached_warm\": 2, \"state\": \"saved\"}", "\u{1}\u{2}"] {
        fs::write(folder.file(), text).unwrap();
        assert_eq!(Process::start(&folder.file(), 1, 1).found(), 0);
        assert!(fs::read_to_string(folder.file()).unwrap().contains("running"));
    }
    fs::write(folder.file(), [0xff; 300]).unwrap();
    assert_eq!(Process::start(&folder.file(), 1, 1).found(), 0);
}

#[test]
fn a_manifest_with_a_changed_bit_is_never_another_one() {
    let good = Manifest { seed: 77, parts: 2, items: 5, cas_next: 9, flush_at: Some(1_000_007) };
    let text = good.to_json().to_string();
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(!matches!(Found::parse(&changed), Found::Saved(_)), "{changed}");
        }
    }
}

#[test]
fn files_are_for_their_user_alone_and_what_cannot_be_written_is_said_at_start() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("private");
    let mut process = Process::start(&folder.file(), 1, 1);
    process.fill();
    process.stop(true);
    for name in ["cache", "cache.0"] {
        let mode = fs::metadata(folder.0.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(Warm::open(&folder.0, 1).is_err(), "a folder");
    let pipe = folder.0.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(Warm::open(&pipe, 1).unwrap_err().to_string(), "not a regular file");
    let part = folder.0.join("none/x");
    assert!(probe(&part).is_err_and(|error| error.to_string().contains("none/x")));
}

#[test]
fn two_processes_cannot_use_one_file() {
    let folder = Folder::new("lock");
    let first = Warm::open(&folder.file(), 1).unwrap();
    assert_eq!(Warm::open(&folder.file(), 1).unwrap_err().to_string(), "another process uses it");
    drop(first);
    assert!(Warm::open(&folder.file(), 1).is_ok());
}

#[test]
fn a_flush_to_come_comes_all_the_same() {
    let folder = Folder::new("flush");
    for (wait_s, found) in [(100, KEYS), (0, 0)] {
        let _ = fs::remove_file(folder.file());
        let mut process = Process::start(&folder.file(), 2, 1);
        process.fill();
        for store in &mut process.stores {
            store.flush(Seconds(NOW.0 + 1), NOW);
        }
        process.stop(true);
        let text = fs::read_to_string(folder.file()).unwrap();
        let Found::Saved(saved) = Found::parse(&text) else { panic!("{text}") };
        assert_eq!(saved.flush_at, Some(NOW.0 + 1), "{text}");
        let saved = Manifest { flush_at: Some(NOW.0 + wait_s), ..saved };
        fs::write(folder.file(), saved.to_json().to_string()).unwrap();
        let mut process = Process::start(&folder.file(), 2, 2);
        assert_eq!(process.found(), found);
        process.stores[0].flush(NOW, NOW);
    }
}
