//! `corecached seccomp-profile`: the system call filter for containers under which io_uring may be used, printed or put
//! where a node's kubelet looks for it. It is the chart's file, built in. Never filters anything itself.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

/// The filter.
pub const PROFILE: &str = include_str!("../../../../deploy/chart/seccomp/corecached-io-uring.json");

/// Prints a seccomp profile for containers that allows io_uring, or installs it on a node.
#[derive(Debug, Parser)]
#[command(
    name = "corecached seccomp-profile",
    bin_name = "corecached seccomp-profile",
    disable_version_flag = true
)]
pub struct Args {
    /// Write it to this file instead, with the folders on the way
    #[arg(short = 'i', long, value_name = "FILE")]
    pub install: Option<PathBuf>,

    /// Stay until a signal ends it, as a `DaemonSet` asks of its pods
    #[arg(long, requires = "install")]
    pub stay: bool,
}

/// Print or install.
///
/// # Errors
/// It could not be written, with where and why.
pub fn run(args: &Args) -> Result<(), String> {
    let Some(file) = &args.install else {
        return std::io::stdout().write_all(PROFILE.as_bytes()).map_err(|error| format!("print: {error}"));
    };
    // Before anything is done, so that a signal that comes early is not lost.
    let signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(|error| format!("signals: {error}"))?;
    install(file).map_err(|error| format!("--install {}: {error}", file.display()))?;
    if args.stay {
        signals.forever().next();
    }
    Ok(())
}

/// Whole or not at all: a kubelet may read it at any moment.
fn install(file: &Path) -> std::io::Result<()> {
    if std::fs::read(file).is_ok_and(|there| there == PROFILE.as_bytes()) {
        return Ok(());
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let half = file.with_extension(format!("{}.half", std::process::id()));
    let written = std::fs::write(&half, PROFILE).and_then(|()| std::fs::rename(&half, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&half);
    }
    written
}
