//! Settings of the process that memcached makes at start: limits, user, locked memory, and the files with its
//! id and ports.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use corecached_shard::ConfigError;
use nix::unistd::{Uid, User};
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

/// The variable of the environment that tells a process that it was started for the background.
const IN_BACKGROUND: &str = "CORECACHED_IN_BACKGROUND";

/// A process that left its terminal, while the one that was started there still waits for the outcome.
#[derive(Debug)]
pub(crate) struct Background(());

impl Background {
    /// Goes to the background (`-d`): this program is started anew with the same arguments, without a terminal,
    /// and there this returns. The process that was started first waits for the other to serve or to fail, and
    /// ends with the exit code of that, so that a failure is seen. A fork would do without the second start, but
    /// is not safe code.
    ///
    /// # Errors
    /// The program cannot be started again.
    pub(crate) fn enter() -> io::Result<Self> {
        if std::env::var_os(IN_BACKGROUND).is_some() {
            rustix::process::setsid()?;
            return Ok(Self(()));
        }
        let mut argv = std::env::args_os();
        let mut command = Command::new("/proc/self/exe");
        command.arg0(argv.next().unwrap_or_default()).args(argv).env(IN_BACKGROUND, "1");
        let mut other = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let says = other.stdout.take().map(|mut output| output.read(&mut [0]));
        let serves = matches!(says, Some(Ok(1)));
        let code = if serves { Some(0) } else { other.wait()?.code() };
        std::process::exit(code.unwrap_or(i32::from(EX_OSERR)))
    }

    /// Lets the process that was started first end. Nothing is printed to stdout any more from now on, and
    /// unless `keeps_log` nothing to stderr.
    pub(crate) fn serves(self, keeps_log: bool) {
        let _ = io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush());
        if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(&null);
            if !keeps_log {
                let _ = rustix::stdio::dup2_stderr(&null);
            }
        }
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
