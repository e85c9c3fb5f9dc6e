//! The options of whoever operates a server, the same for cache and proxy: how it is watched, how it logs, how it stops.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::ConfigError;

/// Exit code of a wrong value.
const EX_VALUE: u8 = 1;
/// An hour: no orchestrator waits longer.
const DRAIN_MS_MAX: u64 = 3_600_000;

/// As written.
#[derive(Args, Clone, Debug)]
pub struct OperateArgs {
    /// Answer /metrics, /healthz, /readyz and, for people, / over HTTP here, as ADDRESS:PORT [default: off]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<String>,

    /// Milliseconds from SIGTERM, which /readyz shows at once, to the end of serving; a second signal cuts it short
    #[arg(long, value_name = "MS", default_value = "0")]
    pub drain_delay_ms: String,

    /// How to write the log
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// How to write the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// As checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Where the admin server listens.
    pub admin_listen: Option<SocketAddr>,
    /// Time from the announcement of the end to the end of serving.
    pub drain_delay: Duration,
}

impl OperateArgs {
    /// What the server relies on.
    ///
    /// # Errors
    /// The first option that cannot be used.
    pub fn check(&self) -> Result<Operation, ConfigError> {
        let parse = |text: &String| {
            text.trim().parse::<SocketAddr>().map_err(|_| {
                let remedy = "give an IP address and a port, such as 127.0.0.1:9150 or [::]:9150";
                ConfigError::new("--admin-listen", text, remedy, EX_VALUE)
            })
        };
        let drain_ms = match self.drain_delay_ms.trim().parse() {
            Ok(ms @ 0..=DRAIN_MS_MAX) => ms,
            _ => {
                let remedy = format!("give milliseconds from 0 to {DRAIN_MS_MAX}");
                return Err(ConfigError::new("--drain-delay-ms", &self.drain_delay_ms, &remedy, EX_VALUE));
            }
        };
        Ok(Operation {
            admin_listen: self.admin_listen.as_ref().map(parse).transpose()?,
            drain_delay: Duration::from_millis(drain_ms),
        })
    }
}
