//! A setting that cannot be used.

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    flag: String,
    value: String,
    remedy: String,
    /// What memcached exits with.
    pub exit_code: u8,
}

impl ConfigError {
    /// `flag` was set to `value`, which does not work; `remedy` does.
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
