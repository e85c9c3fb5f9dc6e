//! Parses a command line as mcrouter's users write it. Options that only tune parts of mcrouter that do not
//! exist here are accepted, and named in one log line. An unknown option is left out with a warning, as in
//! mcrouter.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches};

use super::ProxyArgs;

/// Options with a value that have no effect here.
const VALUES_WITHOUT_EFFECT: &[&str] = &[
    "num-listening-sockets",
    "client-timeout",
    "max-client-outstanding-reqs",
    "core-multiplier",
    "fibers-stack-size",
    "fibers-max-pool-size",
    "reconfiguration-jitter-ms",
    "file-observer-poll-period-ms",
    "file-observer-sleep-before-update-ms",
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

/// Their short forms.
const SHORT: &[(&str, char)] =
    &[("keepalive-count", 'K'), ("keepalive-interval", 'i'), ("keepalive-idle", 'I'), ("log-path", 'L')];

/// Options without effect that somebody may rely on, and what it means that they have none.
const RELIED_ON: &[(&str, &str)] = &[
    ("runtime-vars-file", "runtime variables are not read: what they would change stays as configured"),
    ("target-max-shadow-requests", "requests to shadows count among those of --target-max-pending-requests"),
    (
        "proxy-max-inflight-requests",
        "requests are bounded for each destination, by --target-max-pending-requests",
    ),
];

/// Options that cannot be left out: without them a proxy does what it must not.
const REFUSED: &[(&str, &str)] = &[
    ("allow-only-gets", "remove it: this proxy cannot refuse writes, and would let them through"),
    (
        "listen-sock-fd",
        "use --port or --unix-domain-sock: this proxy takes over no socket, and would listen elsewhere",
    ),
];

/// Options without a value that have no effect here.
const TOGGLES_WITHOUT_EFFECT: &[&str] = &[
    "big-value-hide-reply-flag",
    "retain-source-ip",
    "thread-affinity",
    "remote-thread",
    "force-same-thread",
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
        let mut argv = with_plain_toggles(argv.into_iter().map(trim).collect());
        let mut unknown = Vec::new();
        loop {
            match command().try_get_matches_from(&argv) {
                Ok(matches) => {
                    let mut args = Self::from_arg_matches(&matches)?;
                    let given = |name: &&&str| {
                        matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
                    };
                    let accepted = VALUES_WITHOUT_EFFECT.iter().chain(TOGGLES_WITHOUT_EFFECT).filter(given);
                    if let Some((name, remedy)) = REFUSED.iter().find(|(name, _)| given(&name)) {
                        let value = matches.get_raw(name).into_iter().flatten().next();
                        let value = value.map(|value| value.to_string_lossy()).unwrap_or_default();
                        // A descriptor of -1 is none.
                        if value != "-1" {
                            args.refused =
                                Some((format!("--{name}"), value.into_owned(), (*remedy).to_owned()));
                        }
                    }
                    args.relied_on = RELIED_ON.iter().filter(|(name, _)| given(&name)).copied().collect();
                    args.async_dir_given = given(&&"async_dir");
                    args.without_effect = accepted.map(|name| format!("--{name}")).chain(unknown).collect();
                    return Ok(args);
                }
                Err(error) => match unknown_option(&error, &argv) {
                    Some(at) if unknown.len() < UNKNOWN_MAX => {
                        let mut option = argv.remove(at).to_string_lossy().into_owned();
                        // What follows it and is no option is its value.
                        let has_value = |next: &OsString| !next.to_string_lossy().starts_with('-');
                        if !option.contains('=') && argv.get(at).is_some_and(has_value) {
                            option = format!("{option} {}", argv.remove(at).to_string_lossy());
                        }
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
    let short = |name: &str| SHORT.iter().find(|(long, _)| *long == name).map(|(_, short)| *short);
    let values = VALUES_WITHOUT_EFFECT
        .iter()
        .map(|name| quiet(name).num_args(1).allow_hyphen_values(true))
        .map(|arg| match short(arg.get_id().as_str()) {
            Some(short) => arg.short(short),
            None => arg,
        });
    let refused = REFUSED.iter().map(|(name, _)| match *name {
        "allow-only-gets" => quiet(name).action(ArgAction::SetTrue),
        name => Arg::new(name).long(name).hide(true).num_args(1).allow_hyphen_values(true),
    });
    let toggles = TOGGLES_WITHOUT_EFFECT.iter().map(|name| quiet(name).action(ArgAction::SetTrue));
    ProxyArgs::command().args(values).args(toggles).args(refused)
}

/// The arguments with toggles as mcrouter writes them, `--name=1` and `--name=0`, replaced by `--name` and nothing,
/// and a verbosity, `-v 2` or `--verbosity=2`, by so many `-v`.
fn with_plain_toggles(argv: Vec<OsString>) -> Vec<OsString> {
    let command = command();
    // The toggle that `name` is, or is the beginning of.
    let toggle = |name: &str| {
        let named = |arg: &&Arg| arg.get_long().is_some_and(|long| long.starts_with(name));
        let candidates: Vec<&Arg> = command.get_arguments().filter(named).collect();
        let found = match candidates[..] {
            [only] => only,
            _ => candidates.into_iter().find(|arg| arg.get_long() == Some(name))?,
        };
        found.get_long().filter(|_| matches!(found.get_action(), ArgAction::SetTrue))
    };
    let mut plain: Vec<OsString> = Vec::new();
    let mut rest = argv.into_iter().peekable();
    while let Some(argument) = rest.next() {
        let text = argument.to_str().unwrap_or_default();
        let level_after = |text: Option<&OsString>| text?.to_str()?.parse::<u8>().ok();
        let level = match text {
            "-v" | "--verbosity" => level_after(rest.peek()).inspect(|_| drop(rest.next())),
            _ => text.strip_prefix("--verbosity=").and_then(|level| level.parse().ok()),
        };
        if let Some(level) = level {
            plain.extend((0..level.min(3)).map(|_| "-v".into()));
            continue;
        }
        let with_value = text.strip_prefix("--").and_then(|text| text.split_once('='));
        match with_value.and_then(|(name, value)| Some((toggle(name)?, value))) {
            Some((_, "0" | "false" | "no" | "off")) => {}
            Some((name, _)) => plain.push(format!("--{name}").into()),
            None => plain.push(argument),
        }
    }
    plain
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
