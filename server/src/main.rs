//! The binary: arguments, logging, signals, exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use corecached::config::{Args, ConfigError, check};
use corecached::{MEMCACHED_VERSION, VERSION, server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

/// Exit code of a command line that cannot be read.
const BAD_OPTION: u8 = 1;
const LICENSE: &str = include_str!("../../LICENSE");

fn main() -> ExitCode {
    let args = match Args::read(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(BAD_OPTION) } else { ExitCode::SUCCESS };
        }
    };
    if args.version {
        println!("memcached {MEMCACHED_VERSION} (corecached {VERSION})");
        return ExitCode::SUCCESS;
    }
    if args.license {
        print!("{LICENSE}");
        return ExitCode::SUCCESS;
    }
    let level = match args.verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corecached: {error}");
            ExitCode::from(error.exit_code)
        }
    }
}

fn run(args: &Args) -> Result<(), ConfigError> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| ConfigError::new(what, "", &error.to_string(), 71);
    let config = check(args)?;
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
    let server = server::start(config)?;
    if let Some(file) = &pid_file {
        corecached::runtime::process::write_pid(file)?;
    }
    let shared = server.shared();
    std::thread::spawn(move || {
        for signal in &mut signals {
            if signal != SIGHUP {
                tracing::info!("stopping on signal {signal}");
                shared.stop();
            }
        }
    });
    let outcome = server.wait().map_err(|error| failed("server", &error));
    if let Some(file) = &pid_file {
        let _ = std::fs::remove_file(file);
    }
    outcome
}
