//! Where the configuration comes from: a file or text of the command line, and every file that it imports.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use corecached_shard::ConfigError;

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
}

impl Source {
    /// A configuration that is not read yet.
    pub(crate) const fn new(from: ConfigSource, options: config::Options) -> Self {
        Self { from, options, text: None, imports: BTreeMap::new() }
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
        let (name, folder) = match &self.from {
            ConfigSource::File(path) => {
                (path.display().to_string(), path.parent().map(Path::to_owned).unwrap_or_default())
            }
            ConfigSource::Text(_) => ("--config".to_owned(), PathBuf::new()),
        };
        let imports = RefCell::new(BTreeMap::new());
        let import: &Import<'_> = &|what: &str| {
            let path = folder.join(what.strip_prefix("file:").unwrap_or(what));
            let found = read(&path);
            imports.borrow_mut().insert(path.clone(), found.as_ref().ok().cloned());
            found.map_err(|error| ImportError(format!("{}: {error}", path.display())))
        };
        let parsed = Config::parse(&name, &text, &self.options, import)
            .map_err(|error| ConfigError::new("configuration", "", &error.to_string(), EX_CONFIG));
        self.text = Some(text);
        self.imports = imports.into_inner();
        parsed.map(Some)
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
        let mut source = Source::new(ConfigSource::File(at("main.json")), config::Options::default());
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
}
