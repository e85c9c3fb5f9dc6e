//! Folders for one test: a temporary one, and one whose files change as those of a mounted Secret do.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A temporary folder. It is removed when the value is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes an empty folder.
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("corecached-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Self(path)
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A folder as Kubernetes mounts a Secret or a ConfigMap: its files are links through `..data`, which is a
/// link itself. It flips from one folder to the next, so that all files change at once.
#[derive(Debug)]
pub struct Mounted {
    folder: Folder,
    version: AtomicUsize,
}

impl Mounted {
    /// Makes a folder with these files, given as name and contents.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let mounted = Self { folder: Folder::new(), version: AtomicUsize::new(0) };
        mounted.hold(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), mounted.folder.file(name)).unwrap();
        }
        mounted
    }

    /// Replaces all files by these. The link of a file that is left out dangles.
    pub fn hold(&self, files: &[(&str, &str)]) {
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        let name = |version: usize| format!("..2026_11_28_10_11_12.{version}");
        let next = self.folder.file(&name(version));
        std::fs::create_dir(&next).unwrap();
        for (name, contents) in files {
            std::fs::write(next.join(name), contents).unwrap();
        }
        symlink(name(version), self.folder.file("..data_tmp")).unwrap();
        std::fs::rename(self.folder.file("..data_tmp"), self.folder.file("..data")).unwrap();
        if version > 0 {
            std::fs::remove_dir_all(self.folder.file(&name(version - 1))).unwrap();
        }
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// The path of a file in the folder, as text.
    pub fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }
}
