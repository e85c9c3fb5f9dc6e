//! A running server: its threads, its signals, and its end.

use std::path::PathBuf;
use std::sync::Arc;

use corecached_admin::{AdminView, Role};
use corecached_shard::config::ServerConfig;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::error::StartError;
use crate::launch::Host;
use crate::process::{self, Background};

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    /// The view that the admin server reads.
    pub view: AdminView,
    /// The executors or threads of its shards.
    pub hosts: Vec<Host>,
    /// The file of the Unix socket that it listens on (`-s`). It is removed at the end.
    pub unix_socket: Option<PathBuf>,
}

impl Server {
    /// Waits until every shard has ended. When one of them fails, the others are stopped.
    ///
    /// # Errors
    /// A shard ended with an error.
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
            && !warm.conclude()
        {
            outcome = Err(StartError::NotKept);
        }
        if let Some(path) = &self.unix_socket {
            let _ = std::fs::remove_file(path);
        }
        outcome
    }
}

/// Reads again what may change: certificates, users and their passwords, and the configuration of a proxy,
/// which its control thread reads. What cannot be read stays as it was.
fn reload(view: &AdminView) {
    view.server.lifecycle.count_reload();
    match &view.role {
        Role::Cache(cache) => cache.reload(),
        Role::Proxy(_) => view.certificates.iter().for_each(|certificates| certificates.reload_or_warn()),
    }
}

/// Runs the server that `start` makes until a signal ends it. With `background` this is a daemon.
///
/// # Errors
/// The server did not start, or it ended early.
pub(crate) fn serve(
    config: &ServerConfig,
    background: Option<Background>,
    start: impl FnOnce() -> Result<Server, StartError>,
) -> Result<(), StartError> {
    if config.core_dumps {
        process::allow_core_dumps();
    }
    // Registered before any thread starts, so that the thread that waits for these signals gets all of them.
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP])
        .map_err(StartError::Signals)?;
    let server = start()?;
    if let Some(file) = &config.pid_file {
        process::write_pid(file);
    }
    if let Some(background) = background {
        // The log of -v goes on to where it went, as in memcached.
        background.serves(config.verbosity > 0);
    }
    let view = server.view.clone();
    std::thread::spawn(move || follow_signals(&mut signals, &view));
    let outcome = server.wait();
    if let Some(file) = &config.pid_file {
        let _ = std::fs::remove_file(file);
    }
    outcome
}

/// Acts on signals until the process ends: reloads on SIGHUP, stops on the others.
fn follow_signals(signals: &mut signal_hook::iterator::Signals, view: &AdminView) {
    let lifecycle = &view.server.lifecycle;
    // A SIGTERM was received and the server serves on for the time of --drain-delay-ms; a second one stops it
    // at once.
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
