//! The binary: it finds the command that was called, reads its arguments, starts logging and sets the exit
//! code.

mod bind;
mod commands;
mod control_group;
mod cores;
mod error;
mod launch;
mod process;
mod recipe;
mod server;
mod start;
mod udp;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use corecached_cache::config::CacheArgs;
use corecached_proxy::ProxyArgs;
use corecached_shard::operation::LogFormat;
use corecached_shard::{MEMCACHED_VERSION, VERSION};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::commands::{drain, healthcheck, seccomp};
use crate::error::StartError;

/// Exit code of a command line that cannot be read.
const BAD_OPTION: u8 = 1;
const LICENSE: &str = include_str!("../../../LICENSE");

fn main() -> ExitCode {
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    let called = argv.first().map(|name| Path::new(name).file_name().unwrap_or_default().to_owned());
    if called.is_some_and(|name| name == "mcrouter") {
        return proxy(argv, false);
    }
    let word = argv.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    // `memcached` and `mcrouter`, under which the binary may be linked, are commands too: for container
    // images that have this binary as their entry point.
    if COMMANDS.contains(&word.as_str()) {
        argv.remove(1);
    }
    match word.as_str() {
        "proxy" | "mcrouter" => proxy(argv, false),
        "check-config" => proxy(argv, true),
        "healthcheck" => command("healthcheck", argv, |args| healthcheck::check(&args).map(|()| true)),
        "seccomp-profile" => command("seccomp-profile", argv, |args| seccomp::run(&args).map(|()| true)),
        "drain" => command("drain", argv, |args| drain::drain(&args).map(|()| true)),
        "replay" => command("replay", argv, |args| corecached_proxy::replay_once(&args)),
        _ => cache(argv),
    }
}

/// The first words of a command line that name a command or a role.
const COMMANDS: [&str; 8] =
    ["memcached", "proxy", "mcrouter", "check-config", "healthcheck", "seccomp-profile", "drain", "replay"];

/// Prints what is wrong with a command line, or the help if that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(BAD_OPTION) } else { ExitCode::SUCCESS }
}

/// Runs a command that ends by itself. `run` returns whether it succeeded; an error is printed.
fn command<A: Parser, E: Display>(
    name: &str,
    argv: Vec<OsString>,
    run: impl FnOnce(A) -> Result<bool, E>,
) -> ExitCode {
    match A::try_parse_from(argv).map(run) {
        Err(error) => usage(&error),
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("corecached {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cache(argv: Vec<OsString>) -> ExitCode {
    let args = match CacheArgs::read(argv) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    if args.version {
        println!("memcached {MEMCACHED_VERSION} (corecached {VERSION})");
        return ExitCode::SUCCESS;
    }
    if args.license {
        print!("{LICENSE}");
        return ExitCode::SUCCESS;
    }
    start_logging(args.verbose, args.operate.log_format);
    exit_code(start::cache(args))
}

/// Exit code of a proxy whose configuration cannot be used, and the one of mcrouter for that with
/// `--validate-config`.
const EX_CONFIG: u8 = 78;
const EX_INVALID: u8 = 3;

/// Runs a proxy, or only checks its configuration (`only_check`, or `--validate-config`).
fn proxy(argv: Vec<OsString>, only_check: bool) -> ExitCode {
    let args = match ProxyArgs::read(argv) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    if args.version {
        println!("corecached {VERSION}");
        return ExitCode::SUCCESS;
    }
    start_logging(args.verbose, args.operate.log_format);
    let validates = args.validate_config.as_deref().is_some_and(|mode| mode != "run");
    let outcome = if only_check || validates { start::check_proxy(&args) } else { start::proxy(&args) };
    match outcome {
        Err(error) if args.validate_config.is_some() && error.exit_code() == EX_CONFIG => {
            eprintln!("corecached: {error}");
            ExitCode::from(EX_INVALID)
        }
        outcome => exit_code(outcome),
    }
}

fn exit_code(outcome: Result<(), StartError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corecached: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start_logging(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    // The messages of a LoggingRoute were asked for in the configuration, so they need no -v.
    let logging_route = level.max(tracing::Level::INFO);
    // Libraries log more than errors only with -vvv.
    let libraries = if verbose > 2 { tracing::Level::DEBUG } else { tracing::Level::ERROR };
    let targets = Targets::new()
        .with_target("corecached", level)
        .with_target(corecached_proxy::LOGGING_ROUTE_TARGET, logging_route)
        .with_default(libraries);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_filter(targets)).init();
        }
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_filter(targets)).init(),
    }
}
