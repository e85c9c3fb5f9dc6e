//! The options of operation, which cache and proxy have in common: the admin server, the log, and the stop.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::ConfigError;

/// Exit code of a wrong value.
const EX_VALUE: u8 = 1;
/// Longest `--drain-delay-ms`: an hour. No orchestrator waits longer.
const DRAIN_MS_MAX: u64 = 3_600_000;

/// The options of operation, as they were written.
#[derive(Args, Clone, Debug)]
pub struct OperateArgs {
    /// Answer /metrics, /healthz, /readyz and a page for people (/) over HTTP on ADDRESS:PORT [default: off]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<String>,

    /// Milliseconds between SIGTERM, which /readyz shows at once, and the stop; a second signal stops at once
    #[arg(long, value_name = "MS", default_value = "0")]
    pub drain_delay_ms: String,

    /// Format of the log
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// The options of operation, once they have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Where the admin server listens. `None` when there is none.
    pub admin_listen: Option<SocketAddr>,
    /// The time between the announcement of the stop and the stop.
    pub drain_delay: Duration,
}

impl OperateArgs {
    /// Checks the options.
    ///
    /// # Errors
    /// The first option whose value cannot be used.
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
