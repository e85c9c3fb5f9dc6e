//! A running server: its threads, and what ends it.

use std::path::PathBuf;
use std::sync::Arc;

use corecached_admin::{AdminView, Role};
use corecached_shard::config::ServerConfig;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::error::StartError;
use crate::launch::Host;
use crate::process;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// What operators see of it.
    pub view: AdminView,
    /// What its shards run on.
    pub hosts: Vec<Host>,
    /// The Unix socket that it listens on, if it does.
    pub unix_socket: Option<PathBuf>,
}

impl Server {
    /// Waits until it has stopped.
    ///
    /// # Errors
    /// What ended a shard early.
    fn wait(self) -> Result<(), StartError> {
        let mut outcome = Ok(());
        for host in self.hosts {
            if let Err(error) = host.join() {
                tracing::error!("a shard ended: {error}");
                self.view.server.lifecycle.stop();
                outcome = Err(StartError::Shard(error));
            }
        }
        if let (Role::Cache(cache), Ok(())) = (&self.view.role, &outcome)
            && let Some(warm) = &cache.warm
        {
            warm.conclude();
        }
        if let Some(path) = &self.unix_socket {
            let _ = std::fs::remove_file(path);
        }
        outcome
    }
}

/// Reads again what may change: certificates, users and their passwords, and what a proxy's control thread reads. What cannot
/// be read stays as it was.
fn reload(view: &AdminView) {
    view.server.lifecycle.count_reload();
    match &view.role {
        Role::Cache(cache) => cache.reload(),
        Role::Proxy(_) => view.certificates.iter().for_each(|certificates| certificates.reload_or_warn()),
    }
}

/// Runs the server that `start` makes until a signal ends it.
///
/// # Errors
/// What keeps it from starting, or what ended it early.
pub fn serve(
    config: &ServerConfig,
    start: impl FnOnce() -> Result<Server, StartError>,
) -> Result<(), StartError> {
    if config.daemon {
        nix::unistd::daemon(true, config.verbosity > 0).map_err(|error| StartError::Daemon(error.into()))?;
    }
    if config.core_dumps {
        process::allow_core_dumps();
    }
    // Before any thread starts, so that all of them leave these signals to the one that waits for them.
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP])
        .map_err(StartError::Signals)?;
    let server = start()?;
    if let Some(file) = &config.pid_file {
        process::write_pid(file)?;
    }
    let view = server.view.clone();
    std::thread::spawn(move || follow_signals(&mut signals, &view));
    let outcome = server.wait();
    if let Some(file) = &config.pid_file {
        let _ = std::fs::remove_file(file);
    }
    outcome
}

/// Does what signals say, for as long as the process lives.
fn follow_signals(signals: &mut signal_hook::iterator::Signals, view: &AdminView) {
    let lifecycle = &view.server.lifecycle;
    // A stop is under way that waits for others to take notice of it.
    let mut waits = false;
    for signal in signals {
        match signal {
            SIGHUP => reload(view),
            SIGTERM if !lifecycle.drain_time_left().is_zero() && !std::mem::replace(&mut waits, true) => {
                lifecycle.announce_stop();
                let left = lifecycle.drain_time_left();
                tracing::info!("stopping on signal {signal}, in {} ms", left.as_millis());
                let lifecycle = Arc::clone(lifecycle);
                std::thread::spawn(move || {
                    std::thread::sleep(left);
                    lifecycle.stop();
                });
            }
            _ => {
                tracing::info!("stopping on signal {signal}");
                if let (SIGUSR1, Role::Cache(cache)) = (signal, &view.role) {
                    cache.keep_contents();
                }
                lifecycle.stop();
            }
        }
    }
}
