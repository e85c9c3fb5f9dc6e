//! Where the configuration comes from: a file or text of the command line, and every file that it imports.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corecached_shard::ConfigError;
use md5::{Digest as _, Md5};

use crate::args::ConfigSource;
use crate::config::{self, Config, Import, ImportError};

/// Exit code of a configuration that cannot be used.
pub(crate) const EX_CONFIG: u8 = 78;
/// Most bytes of one file: the largest pools that are known have some thousands of servers of 30 bytes each.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The configuration as it was last read.
#[derive(Debug)]
pub(crate) struct Source {
    from: ConfigSource,
    options: config::Options,
    /// What is in `from`; `None` before it was read, and after it could not be.
    text: Option<String>,
    /// Every file that an `@import` of it named. `None` is one that could not be read.
    imports: BTreeMap<PathBuf, Option<String>>,
    kept: Option<KeptConfig>,
    /// What was last read can be parsed.
    is_sound: bool,
    /// The MD5 digest of the last text that could be parsed, in hexadecimal digits.
    digest: String,
}

impl Source {
    /// A configuration that is not read yet.
    pub(crate) const fn new(from: ConfigSource, options: config::Options, kept: Option<KeptConfig>) -> Self {
        Self {
            from,
            options,
            text: None,
            imports: BTreeMap::new(),
            kept,
            is_sound: false,
            digest: String::new(),
        }
    }

    /// Reads the configuration. `None` when everything that it consists of is as it was when it was last read.
    ///
    /// # Errors
    /// It cannot be read or used. The error names the place and the remedy. Every file that was asked for is among
    /// [`Self::files`] nevertheless.
    pub(crate) fn read(&mut self) -> Result<Option<Config>, ConfigError> {
        let text = match &self.from {
            ConfigSource::Text(text) => text.clone(),
            ConfigSource::File(path) => read(path).map_err(|error| {
                self.text = None;
                let remedy = format!("name a file that can be read: {error}");
                ConfigError::new("--config-file", &path.display().to_string(), &remedy, EX_CONFIG)
            })?,
        };
        let is_unchanged = |(path, known): (&PathBuf, &Option<String>)| read(path).ok() == *known;
        if self.text.as_ref() == Some(&text) && self.imports.iter().all(is_unchanged) {
            return Ok(None);
        }
        let imports = RefCell::new(BTreeMap::new());
        let parsed = self.parse(&text, &|path| {
            let found = read(path);
            imports.borrow_mut().insert(path.to_owned(), found.as_ref().ok().cloned());
            found
        });
        self.is_sound = parsed.is_ok();
        if self.is_sound {
            self.digest = digest(&text);
        }
        self.text = Some(text);
        self.imports = imports.into_inner();
        parsed.map(Some)
    }

    /// The configuration that was kept, if it is not too old and can be used.
    pub(crate) fn read_kept(&mut self) -> Option<Config> {
        let (kept, ConfigSource::File(path)) = (self.kept.as_ref()?, &self.from) else { return None };
        let text = kept.fresh(path)?;
        let parsed = self.parse(&text, &|path| read(&kept.file(path)));
        let config =
            parsed.map_err(|error| tracing::error!("the configuration that was kept: {error}")).ok()?;
        self.digest = digest(&text);
        Some(config)
    }

    /// Keeps the configuration as it was last read, which is in use. What cannot be written is logged.
    pub(crate) fn keep(&self) {
        if !self.is_sound {
            return;
        }
        let (Some(kept), ConfigSource::File(path), Some(text)) = (&self.kept, &self.from, &self.text) else {
            return;
        };
        let imports = self.imports.iter().filter_map(|(path, text)| Some((path.as_path(), text.as_ref()?)));
        if let Err(error) = kept.write(imports.chain([(path.as_path(), text)])) {
            tracing::warn!(
                "--config-dump-root {}: {error}; the configuration is not kept",
                kept.folder.display()
            );
        }
    }

    /// Parses `text`. `read` reads a file that it imports.
    fn parse(
        &self,
        text: &str,
        read: &dyn Fn(&Path) -> std::io::Result<String>,
    ) -> Result<Config, ConfigError> {
        let (name, folder) = match &self.from {
            ConfigSource::File(path) => {
                (path.display().to_string(), path.parent().map(Path::to_owned).unwrap_or_default())
            }
            ConfigSource::Text(_) => ("--config".to_owned(), PathBuf::new()),
        };
        let import: &Import<'_> = &|what: &str| {
            let path = folder.join(what.strip_prefix("file:").unwrap_or(what));
            read(&path).map_err(|error| ImportError(format!("{}: {error}", path.display())))
        };
        Config::parse(&name, text, &self.options, import)
            .map_err(|error| ConfigError::new("configuration", "", &error.to_string(), EX_CONFIG))
    }

    /// The file that it comes from, if it comes from one, and the digest of the last text that could be parsed.
    pub(crate) fn own(&self) -> (Option<String>, String) {
        let file = match &self.from {
            ConfigSource::File(path) => Some(path.display().to_string()),
            ConfigSource::Text(_) => None,
        };
        (file, self.digest.clone())
    }

    /// Every file that the configuration consists of.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let own = match &self.from {
            ConfigSource::File(path) => Some(path.as_path()),
            ConfigSource::Text(_) => None,
        };
        own.into_iter().chain(self.imports.keys().map(PathBuf::as_path))
    }
}

/// Where the last configuration that could be used is kept for a start with one that cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptConfig {
    folder: PathBuf,
    age_max: Duration,
}

impl KeptConfig {
    /// In a folder below `root` that belongs to the proxy on this port, as in mcrouter. What is older than `age_max`
    /// is not used.
    pub(crate) fn new(root: &Path, port: u16, age_max: Duration) -> Self {
        Self { folder: root.join("mcrouter").join(port.to_string()), age_max }
    }

    /// Where the file with this path is kept.
    fn file(&self, path: &Path) -> PathBuf {
        let mut name = String::from("file-");
        for &byte in path.as_os_str().as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => name.push(byte.into()),
                _ => name.push_str(&format!("%{byte:02X}")),
            }
        }
        self.folder.join(name)
    }

    /// The text that is kept of the file with this path, if it is not too old.
    fn fresh(&self, path: &Path) -> Option<String> {
        let file = self.file(path);
        let age = std::fs::metadata(&file).ok()?.modified().ok()?.elapsed().unwrap_or_default();
        if age > self.age_max {
            tracing::warn!("{}: kept {} s ago, and not used any more", file.display(), age.as_secs());
            return None;
        }
        read(&file).ok()
    }

    /// Writes these files, of which the last counts: with it the others are complete.
    fn write<'a>(&self, files: impl Iterator<Item = (&'a Path, &'a String)>) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        for (path, text) in files {
            let (file, new) = (self.file(path), self.folder.join("new"));
            std::fs::write(&new, text)?;
            std::fs::rename(&new, &file)?;
        }
        Ok(())
    }
}

fn digest(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it has more than 64 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::*;

    fn servers(config: &Config) -> usize {
        config.pools.iter().map(|pool| pool.members.len()).sum()
    }

    #[test]
    fn a_change_of_any_file_is_seen_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let main = r#"{"pools": {"A": {"servers": "@import(file:outer.json)"}}, "route": "PoolRoute|A"}"#;
        write(at("main.json"), main).unwrap();
        write(at("outer.json"), r#"{"type": "import", "path": "inner.json", "default": ["a:1"]}"#).unwrap();
        let mut source = Source::new(ConfigSource::File(at("main.json")), config::Options::default(), None);
        assert_eq!(servers(&source.read().unwrap().unwrap()), 1);
        assert_eq!(source.files().count(), 3);
        assert!(source.read().unwrap().is_none());
        // The file that did not exist.
        write(at("inner.json"), r#"["a:1", "b:1"]"#).unwrap();
        assert_eq!(servers(&source.read().unwrap().unwrap()), 2);
        assert!(source.read().unwrap().is_none());
        // What cannot be used is reported once, and its files are still known.
        let outer = std::fs::read(at("outer.json")).unwrap();
        write(at("outer.json"), "[").unwrap();
        assert!(source.read().is_err());
        assert!(source.read().unwrap().is_none());
        assert_eq!(source.files().count(), 2);
        write(at("outer.json"), outer).unwrap();
        assert_eq!(servers(&source.read().unwrap().unwrap()), 2);
        // A default stands in for a file with a mistake too.
        write(at("inner.json"), "[").unwrap();
        assert_eq!(servers(&source.read().unwrap().unwrap()), 1);
        assert_eq!(source.files().count(), 3);
        write(at("outer.json"), r#"["c:1"]"#).unwrap();
        assert_eq!(servers(&source.read().unwrap().unwrap()), 1);
        assert_eq!(source.files().count(), 2);
        // The same contents after a time without the file are read anew.
        std::fs::remove_file(at("main.json")).unwrap();
        assert!(source.read().is_err());
        write(at("main.json"), main).unwrap();
        assert!(source.read().unwrap().is_some());
    }

    #[test]
    fn what_could_be_used_is_kept_for_a_start_with_what_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let main = r#"{"pools": {"A": {"servers": "@import(list.json)"}}, "route": "PoolRoute|A"}"#;
        write(at("main.json"), main).unwrap();
        write(at("list.json"), r#"["a:1", "b:1"]"#).unwrap();
        let source = |age_s| {
            let kept = KeptConfig::new(&at("kept"), 5000, Duration::from_secs(age_s));
            Source::new(ConfigSource::File(at("main.json")), config::Options::default(), Some(kept))
        };
        let mut first = source(1000);
        assert!(first.read_kept().is_none());
        first.read().unwrap();
        first.keep();
        write(at("main.json"), "{").unwrap();
        write(at("list.json"), "[").unwrap();
        let mut second = source(1000);
        assert!(second.read().is_err());
        assert_eq!(servers(&second.read_kept().unwrap()), 2);
        assert_eq!(second.own(), first.own());
        let (name, file) = (at("main.json"), source(1000).kept.unwrap().file(&at("main.json")));
        let escaped = name.display().to_string().replace('/', "%2F");
        assert_eq!(file, at("kept/mcrouter/5000").join(format!("file-{escaped}")));
        let old = std::time::SystemTime::now() - Duration::from_secs(50);
        File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        assert!(source(20).read_kept().is_none());
        assert!(source(1000).read_kept().is_some());
    }
}
