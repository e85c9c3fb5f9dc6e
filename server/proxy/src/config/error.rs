//! What is wrong with a configuration: where, what, and what to write instead.

use std::fmt;

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or the option that gave the text.
    pub file: String,
    /// Line in it, from 1; 0 when it is about no single line.
    pub line: u32,
    /// The key or the handle it is about: `pools.A.servers`.
    pub key: String,
    /// The value that does not work; empty when something is missing.
    pub value: String,
    /// What is wrong, and what works.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.key)?;
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        write!(f, ": {}", self.remedy)
    }
}

impl std::error::Error for ConfigError {}
