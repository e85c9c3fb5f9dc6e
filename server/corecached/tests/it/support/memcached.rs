//! The memcached servers that replies are compared with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A memcached of this machine.
#[derive(Debug)]
pub struct Memcached {
    /// The program.
    pub program: PathBuf,
    /// Its version: `[1, 6, 45]`.
    pub version: [u32; 3],
}

impl Memcached {
    /// The newest that there is: the one whose protocol this server has, where `.ci/memcached` could bring it,
    /// else the one that the machine has installed.
    pub fn newest() -> &'static Self {
        &Self::all()[0]
    }

    /// Those that there are, the newest first.
    ///
    /// # Panics
    /// There is none.
    pub fn all() -> &'static [Self] {
        static FOUND: OnceLock<Vec<Memcached>> = OnceLock::new();
        FOUND.get_or_init(|| {
            let build = Path::new(env!("CARGO_BIN_EXE_corecached")).ancestors().nth(2).unwrap();
            let fetched = Self::at(build.join("peers/memcached"));
            if fetched.is_none() {
                eprintln!("without .ci/memcached, only the memcached of this machine is compared with");
            }
            let found: Vec<Self> = fetched.into_iter().chain(Self::at("memcached".into())).collect();
            assert!(!found.is_empty(), "memcached is not installed");
            found
        })
    }

    fn at(program: PathBuf) -> Option<Self> {
        let output = Command::new(&program).arg("-V").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers = text.trim().strip_prefix("memcached ")?.split('.').map(|digits| digits.parse().ok());
        Some(Self { program, version: numbers.collect::<Option<Vec<u32>>>()?.try_into().ok()? })
    }

    /// Whether it is older than the version whose protocol this server has.
    pub fn is_old(&self) -> bool {
        self.version < [1, 6, 45]
    }
}

impl std::fmt::Display for Memcached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch] = self.version;
        write!(f, "memcached {major}.{minor}.{patch}")
    }
}
