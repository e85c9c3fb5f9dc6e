//! Settings of the process that memcached makes at start: limits, user, locked memory, and the files with its
//! id and ports.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use corecached_shard::ConfigError;
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, Pid, Uid, User};
use rustix::pipe::PipeFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `EX_NOUSER` of sysexits.
const EX_NOUSER: u8 = 67;
/// `EX_OSERR` of sysexits.
const EX_OSERR: u8 = 71;
/// Descriptors that a server needs in addition to those of connections: listeners, rings, logs.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Raises the limit of open files as far as is allowed. Returns a warning when that is too few for `-c`.
#[must_use]
pub(crate) fn raise_descriptors(connections_max: usize) -> Option<String> {
    let wanted = connections_max as u64 + DESCRIPTORS_BESIDE;
    let set = |most| setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // As root the hard limit can be raised too.
    if maximum.is_some_and(|most| most < wanted) && set(Some(wanted)).is_ok() {
        return None;
    }
    let raised = if set(maximum).is_ok() { maximum } else { current };
    let raised = raised.filter(|&raised| raised < wanted)?;
    Some(format!(
        "only {raised} files may be open, too few for -c {connections_max}: lower -c, or raise the limit (ulimit -n)"
    ))
}

/// Raises the limit of core files as far as is allowed (`-r`).
pub(crate) fn allow_core_dumps() {
    let most = getrlimit(Resource::Core).maximum;
    let _ = setrlimit(Resource::Core, Rlimit { current: most, maximum: most });
}

/// A random number. It comes from the kernel, through the random keys of the standard library's hasher.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// Whether this process has the rights of root.
#[must_use]
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Becomes the user of `-u` if the process runs as root. Listening sockets must be bound before.
///
/// # Errors
/// There is no such user, or the kernel refuses.
pub(crate) fn drop_privileges(user: Option<&str>) -> Result<(), ConfigError> {
    let Some(name) = user.filter(|_| is_root()) else { return Ok(()) };
    let found = match name.parse::<u32>() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let Ok(Some(user)) = found else {
        return Err(ConfigError::new("-u", name, "give a user of this machine", EX_NOUSER));
    };
    if user.uid.is_root() {
        return Ok(());
    }
    let refused =
        |error: nix::Error| ConfigError::new("-u", name, &format!("cannot become it: {error}"), EX_OSERR);
    nix::unistd::setgroups(&[user.gid]).map_err(refused)?;
    nix::unistd::setgid(user.gid).map_err(refused)?;
    nix::unistd::setuid(user.uid).map_err(refused)
}

/// Writes the process id to `file` (`-P`). Where it cannot be written, a warning says so: as in memcached, that
/// is no reason not to serve.
pub(crate) fn write_pid(file: &Path) {
    if let Err(error) = std::fs::write(file, format!("{}\n", std::process::id())) {
        tracing::warn!("-P {}: {error}: the process id is in no file", file.display());
    }
}

/// A process that left its terminal, while the process that was started still waits for the outcome there.
#[derive(Debug)]
pub(crate) struct Background {
    /// The process that was started reads the other end: a byte says that the server serves.
    outcome: OwnedFd,
}

impl Background {
    /// Goes to the background (`-d`): returns in a new process without a terminal. The process that was started
    /// waits for it to serve or to fail, and ends with the exit code of that, so that a failure is seen.
    ///
    /// # Errors
    /// No process or pipe can be made.
    pub(crate) fn enter() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: This is called before any thread is started, so that the child has all of the process.
        match unsafe { nix::unistd::fork() }? {
            ForkResult::Parent { child } => {
                drop(write);
                std::process::exit(exit_code_of(child, &read));
            }
            ForkResult::Child => {
                rustix::process::setsid()?;
                Ok(Self { outcome: write })
            }
        }
    }

    /// Lets the process that was started end. Unless `keeps_output`, nothing is printed any more from now on.
    pub(crate) fn serves(self, keeps_output: bool) {
        let null = std::fs::File::options().read(true).write(true).open("/dev/null");
        if let (false, Ok(null)) = (keeps_output, null) {
            let _ = rustix::stdio::dup2_stdin(&null);
            let _ = rustix::stdio::dup2_stdout(&null);
            let _ = rustix::stdio::dup2_stderr(&null);
        }
        let _ = rustix::io::write(&self.outcome, &[1]);
    }
}

/// Waits until `child` serves or has ended. Returns the exit code that says which.
fn exit_code_of(child: Pid, outcome: &OwnedFd) -> i32 {
    if matches!(rustix::io::retry_on_intr(|| rustix::io::read(outcome, &mut [0])), Ok(1)) {
        return 0;
    }
    match nix::sys::wait::waitpid(child, None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        _ => i32::from(EX_OSERR),
    }
}

/// Locks all pages of the process, present and future, in memory (`-k`). A page is locked when it is first
/// used, so address space that is only reserved costs nothing.
///
/// # Errors
/// The process may not lock so much memory (`ulimit -l`).
pub(crate) fn lock_memory() -> rustix::io::Result<()> {
    use rustix::mm::{MlockAllFlags, mlockall};
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
}

/// Writes the ports that are listened on to the file that `MEMCACHED_PORT_FILENAME` names, if it is set. A
/// line is `TCP INET: 11211`, or `ADMIN INET: 9150` for the admin server.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_ports(named: &[(&str, &[SocketAddr])]) -> Result<(), ConfigError> {
    let Some(file) = std::env::var_os("MEMCACHED_PORT_FILENAME") else { return Ok(()) };
    let file = std::path::PathBuf::from(file);
    let write = || -> std::io::Result<()> {
        // Renamed when it is complete, so that a reader never sees half a file.
        let mut beside = file.clone().into_os_string();
        beside.push(".lck");
        let mut made = std::fs::File::create(&beside)?;
        for (what, address) in
            named.iter().flat_map(|(what, of)| of.iter().map(move |address| (what, address)))
        {
            let family = if address.is_ipv4() { "INET" } else { "INET6" };
            writeln!(made, "{what} {family}: {}", address.port())?;
        }
        std::fs::rename(&beside, &file)
    };
    write().map_err(|error| {
        let remedy = format!("give a file that can be written: {error}");
        ConfigError::new("MEMCACHED_PORT_FILENAME", &file.display().to_string(), &remedy, EX_OSERR)
    })
}
