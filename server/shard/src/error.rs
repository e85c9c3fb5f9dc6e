//! The error of a setting that cannot be used.

/// A setting that cannot be used: the flag, its value, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    flag: String,
    value: String,
    remedy: String,
    /// The exit code of the process: the one of memcached for the same mistake.
    pub exit_code: u8,
}

impl ConfigError {
    /// The error of `flag`, which was set to `value`. `remedy` says what to do instead.
    #[must_use]
    pub fn new(flag: &str, value: &str, remedy: &str, exit_code: u8) -> Self {
        Self { flag: flag.into(), value: value.into(), remedy: remedy.into(), exit_code }
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}: {}", self.flag, self.value, self.remedy)
    }
}

impl std::error::Error for ConfigError {}
