//! `corecached seccomp-profile`: the system call filter for containers that allows io_uring, printed, or
//! installed where the kubelet of a node looks for it. The filter is the file of the Helm chart, built into
//! the binary; this process does not apply it to itself.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::error::CommandError;

/// The filter, as JSON of the container runtimes.
const PROFILE: &str = include_str!("../../../../deploy/chart/seccomp/corecached-io-uring.json");

/// Prints a seccomp profile that allows containers to use io_uring, or installs it on a node.
#[derive(Debug, Parser)]
#[command(
    name = "corecached seccomp-profile",
    bin_name = "corecached seccomp-profile",
    disable_version_flag = true
)]
pub(crate) struct SeccompArgs {
    /// Write the profile to this file instead, and create missing folders
    #[arg(short = 'i', long, value_name = "FILE")]
    pub install: Option<PathBuf>,

    /// Stay until a signal ends it, as a `DaemonSet` expects of its pods
    #[arg(long, requires = "install")]
    pub stay: bool,
}

/// Prints or installs the profile.
///
/// # Errors
/// The profile could not be written.
pub(crate) fn run(args: &SeccompArgs) -> Result<(), CommandError> {
    let Some(file) = &args.install else {
        return std::io::stdout().write_all(PROFILE.as_bytes()).map_err(CommandError::Print);
    };
    // Registered before the file is written, so that a signal that arrives early is not lost.
    let signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(CommandError::Signals)?;
    install(file).map_err(|source| CommandError::Install { file: file.clone(), source })?;
    if args.stay {
        signals.forever().next();
    }
    Ok(())
}

/// Writes the profile to `file`, whole or not at all: a kubelet may read it at any moment.
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
