//! The binary: arguments, logging, signals, exit code.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use corecached::config::{Args, Config, ConfigError, LogFormat, check};
use corecached::proxy::args::Checked;
use corecached::proxy::control::Control;
use corecached::proxy::spool::{self, Spool, Spooler};
use corecached::runtime::container::{Limits, cache_megabytes};
use corecached::server::{Forwarding, Server};
use corecached::{MEMCACHED_VERSION, VERSION, admin, healthcheck, proxy, seccomp, server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Exit code of a command line that cannot be read.
const BAD_OPTION: u8 = 1;
const LICENSE: &str = include_str!("../../LICENSE");

fn main() -> ExitCode {
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    let called = argv.first().map(|name| Path::new(name).file_name().unwrap_or_default().to_owned());
    let is_mcrouter = called.is_some_and(|name| name == "mcrouter");
    match argv.get(1).and_then(|word| word.to_str()) {
        _ if is_mcrouter => return proxy(argv, false),
        // The names it may be linked as are roles too, for images whose entry point is this binary.
        Some("memcached") => {
            argv.remove(1);
        }
        Some(word @ ("proxy" | "mcrouter" | "check-config")) => {
            let only_check = word == "check-config";
            argv.remove(1);
            return proxy(argv, only_check);
        }
        Some("healthcheck") => {
            argv.remove(1);
            return healthcheck(argv);
        }
        Some("seccomp-profile") => {
            argv.remove(1);
            return seccomp_profile(argv);
        }
        Some("drain") => {
            argv.remove(1);
            return drain(argv);
        }
        Some("replay") => {
            argv.remove(1);
            return replay(argv);
        }
        _ => {}
    }
    let mut args = match Args::read(argv) {
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
    if args.memory_limit.is_none()
        && let Some(limit_bytes) = Limits::read().memory_bytes
    {
        let megabytes = cache_megabytes(limit_bytes);
        tracing::info!(
            "-m {megabytes} (MB): what the control group's limit of {} MB leaves",
            limit_bytes >> 20
        );
        args.memory_limit = Some(megabytes.to_string());
    }
    exit_code(check(&args).and_then(run))
}

/// Print what is wrong with a command line, or the help that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(BAD_OPTION) } else { ExitCode::SUCCESS }
}

fn healthcheck(argv: Vec<OsString>) -> ExitCode {
    let args = match healthcheck::Args::try_parse_from(argv) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match healthcheck::check(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corecached healthcheck: {error}");
            ExitCode::FAILURE
        }
    }
}

fn drain(argv: Vec<OsString>) -> ExitCode {
    let args = match admin::drain::Args::try_parse_from(argv) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match admin::drain::drain(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corecached drain: {error}");
            ExitCode::FAILURE
        }
    }
}

fn seccomp_profile(argv: Vec<OsString>) -> ExitCode {
    let args = match seccomp::Args::try_parse_from(argv) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match seccomp::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corecached seccomp-profile: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The proxy, or with `only_check` no more than a look at its configuration.
fn proxy(argv: Vec<OsString>, only_check: bool) -> ExitCode {
    let args = match proxy::args::Args::read(argv) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    if args.version {
        println!("corecached {VERSION}");
        return ExitCode::SUCCESS;
    }
    start_logging(args.verbose, args.operate.log_format);
    exit_code(args.check().and_then(|checked| {
        let validates = args.validate_config.as_deref();
        if only_check || validates.is_some_and(|mode| mode != "run") {
            println!("{}", Control::check(&checked)?);
            return Ok(());
        }
        run_proxy(checked, !args.disable_reload_configs)
    }))
}

fn run_proxy(mut checked: Checked, reloads: bool) -> Result<(), ConfigError> {
    let (spool, spooler) = start_spool(&mut checked).unzip();
    let control = Control::start(&checked)?;
    let forwarding = Arc::new(Forwarding {
        snapshot: control.snapshot(),
        options: checked.upstream.clone(),
        spooler,
        awaits_servers: control.awaits_servers(),
        subscribers: Mutex::default(),
    });
    let start = |config| {
        let server = server::start_as(config, Some(&forwarding))?;
        let (shared, forwarding) = (server.shared(), Arc::clone(&forwarding));
        std::thread::spawn(move || control.run(&shared, &forwarding, reloads));
        Ok(server)
    };
    let served = serve(checked.config, start);
    if let Some(spool) = spool {
        spool.stop();
    }
    served
}

/// The spool of failed deletes; where there can be none, they are answered with the error.
fn start_spool(checked: &mut Checked) -> Option<(Spool, Spooler)> {
    let options = checked.spool.as_ref()?;
    match Spool::start(options) {
        Ok(started) => Some(started),
        Err(error) => {
            let folder = options.dir.display();
            if options.make {
                tracing::warn!(
                    "--async-dir {folder}: {error}: deletes that fail are answered with the error"
                );
            } else {
                tracing::info!("{folder}: {error}: deletes that fail are answered with the error");
            }
            checked.options.spool_deletes = false;
            None
        }
    }
}

fn replay(argv: Vec<OsString>) -> ExitCode {
    let args = match spool::replay::Args::try_parse_from(argv) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match spool::replay::main(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("corecached replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn exit_code(outcome: Result<(), ConfigError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corecached: {error}");
            ExitCode::from(error.exit_code)
        }
    }
}

fn start_logging(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    // The libraries speak of themselves only to those who ask for everything.
    // A LoggingRoute was asked for by name, so what it says needs no -v.
    let logging_route = level.max(tracing::Level::INFO);
    let targets = Targets::new()
        .with_target("corecached", level)
        .with_target("corecached::proxy::route::logging", logging_route)
        .with_default(if verbose > 2 { tracing::Level::DEBUG } else { tracing::Level::ERROR });
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_filter(targets)).init();
        }
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_filter(targets)).init(),
    }
}

fn run(config: Config) -> Result<(), ConfigError> {
    serve(config, server::start)
}

/// Run the server that `start` makes until a signal ends it.
fn serve(
    config: Config,
    start: impl FnOnce(Config) -> Result<Server, ConfigError>,
) -> Result<(), ConfigError> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| ConfigError::new(what, "", &error.to_string(), 71);
    if config.daemon {
        nix::unistd::daemon(true, config.verbosity > 0).map_err(|error| failed("-d", &error))?;
    }
    if config.core_dumps {
        corecached::runtime::process::allow_core_dumps();
    }
    // Before any thread starts, so that all of them leave these signals to the one that waits for them.
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP])
        .map_err(|error| failed("signals", &error))?;
    let pid_file = config.pid_file.clone();
    let server = start(config)?;
    if let Some(file) = &pid_file {
        corecached::runtime::process::write_pid(file)?;
    }
    let shared = server.shared();
    // Whether a stop is under way that waits for others to take notice of it.
    let mut waits = false;
    std::thread::spawn(move || {
        for signal in &mut signals {
            match signal {
                SIGHUP => shared.reload(),
                SIGTERM if !shared.drain_time_left().is_zero() && !std::mem::replace(&mut waits, true) => {
                    shared.announce_stop();
                    let left = shared.drain_time_left();
                    tracing::info!("stopping on signal {signal}, in {} ms", left.as_millis());
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || {
                        std::thread::sleep(left);
                        shared.stop();
                    });
                }
                _ => {
                    tracing::info!("stopping on signal {signal}");
                    if signal == SIGUSR1 {
                        shared.keep_contents();
                    }
                    shared.stop();
                }
            }
        }
    });
    let outcome = server.wait().map_err(|error| failed("server", &error));
    if let Some(file) = &pid_file {
        let _ = std::fs::remove_file(file);
    }
    outcome
}
