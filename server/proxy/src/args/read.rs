//! Parses a command line as mcrouter's users write it. Options that only tune parts of mcrouter that do not
//! exist here are accepted, and named in one log line. An unknown option is left out with a warning, as in
//! mcrouter.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches};

use super::ProxyArgs;

/// Options with a value that have no effect here.
const VALUES_WITHOUT_EFFECT: &[&str] = &[
    "listen-sock-fd",
    "num-listening-sockets",
    "client-timeout",
    "max-client-outstanding-reqs",
    "core-multiplier",
    "fibers-stack-size",
    "fibers-max-pool-size",
    "reconfiguration-jitter-ms",
    "file-observer-poll-period-ms",
    "file-observer-sleep-before-update-ms",
    "config-dump-root",
    "max-dumped-config-age",
    "runtime-vars-file",
    "waiting-request-timeout-ms",
    "maximum-soft-tkos",
    "target-max-shadow-requests",
    "proxy-max-inflight-requests",
    "proxy-max-throttled-requests",
    "proxy-max-inflight-shadow-requests",
    "keepalive-count",
    "keepalive-interval",
    "keepalive-idle",
    "tcp-rto-min",
    "default-qos-class",
    "default-qos-path",
    "max-no-flush-event-loops",
    "log-path",
    "stats-root",
    "stats-logging-interval",
    "debug-fifo-root",
];

/// Options without a value that have no effect here.
const TOGGLES_WITHOUT_EFFECT: &[&str] = &[
    "big-value-hide-reply-flag",
    "retain-source-ip",
    "thread-affinity",
    "remote-thread",
    "force-same-thread",
    "group-remote-errors",
    "enable-qos",
    "use-asynclog-version2",
    "disable-failure-logging",
    "test-mode",
];

/// Most unknown options that are left out. One more is an error.
const UNKNOWN_MAX: usize = 64;

impl ProxyArgs {
    /// Parses a command line, whose first argument is the name of the program. Blanks around an argument are
    /// removed, and a short option may have its value after a blank in the same argument (`"-p 5000"`), as
    /// the tutorial's chart has them.
    ///
    /// # Errors
    /// Bad usage, or the help text if that was asked for.
    pub fn read(argv: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut argv: Vec<OsString> = argv.into_iter().map(trim).collect();
        let mut unknown = Vec::new();
        loop {
            match command().try_get_matches_from(&argv) {
                Ok(matches) => {
                    let mut args = Self::from_arg_matches(&matches)?;
                    let given = |name: &&&str| {
                        matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
                    };
                    let accepted = VALUES_WITHOUT_EFFECT.iter().chain(TOGGLES_WITHOUT_EFFECT).filter(given);
                    args.async_dir_given = given(&&"async_dir");
                    args.without_effect = accepted.map(|name| format!("--{name}")).chain(unknown).collect();
                    return Ok(args);
                }
                Err(error) => match unknown_option(&error, &argv) {
                    Some(at) if unknown.len() < UNKNOWN_MAX => {
                        let option = argv.remove(at).to_string_lossy().into_owned();
                        eprintln!("corecached proxy: {option}: no such option; left out");
                        unknown.push(option);
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}

fn command() -> clap::Command {
    let quiet = |name: &&'static str| Arg::new(*name).long(*name).hide(true);
    let values = VALUES_WITHOUT_EFFECT.iter().map(|name| quiet(name).num_args(1));
    let toggles = TOGGLES_WITHOUT_EFFECT.iter().map(|name| quiet(name).action(ArgAction::SetTrue));
    ProxyArgs::command().args(values).args(toggles)
}

/// The index in `argv` of the option that `error` reports as unknown.
fn unknown_option(error: &clap::Error, argv: &[OsString]) -> Option<usize> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return None };
    let is_it = |argument: &OsString| {
        let text = argument.to_string_lossy();
        text == option.as_str() || text.split('=').next() == Some(option.as_str()) || {
            option.len() == 2 && !text.starts_with("--") && text.starts_with(option.as_str())
        }
    };
    // An argument that is not an option (mcrouter's flavor) is an error.
    argv.iter().skip(1).position(is_it).map(|at| at + 1).filter(|_| option.starts_with('-'))
}

fn trim(argument: OsString) -> OsString {
    match argument.to_str() {
        // "-p 5000": the blank separates the option from its value.
        Some(text) => match text.trim().split_once(' ') {
            Some((flag, value)) if flag.len() == 2 && flag.starts_with('-') => {
                OsString::from(format!("{flag}{}", value.trim()))
            }
            _ => OsString::from(text.trim()),
        },
        None => argument,
    }
}
