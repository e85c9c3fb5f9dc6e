//! A server as a child process: corecached, or a memcached. It is killed when the value is dropped.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::{DEADLINE, Folder, Memcached, wait_for};

/// The kernel interface that a server reaches the network through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `--io-backend=io_uring`
    IoUring,
    /// `--io-backend=epoll`
    Epoll,
}

impl Backend {
    /// The backends that this machine has: epoll, and io_uring unless the kernel refuses it.
    pub fn all() -> &'static [Self] {
        static REFUSED: OnceLock<Option<std::io::Error>> = OnceLock::new();
        match REFUSED.get_or_init(io_uring_refused) {
            None => &[Self::IoUring, Self::Epoll],
            Some(error) => {
                eprintln!("this kernel refuses io_uring_setup ({error}): only epoll is tested");
                &[Self::Epoll]
            }
        }
    }

    /// The flag that selects it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::IoUring => "--io-backend=io_uring",
            Self::Epoll => "--io-backend=epoll",
        }
    }
}

/// The error of the kernel when this process makes a ring; `None` when it may.
fn io_uring_refused() -> Option<std::io::Error> {
    let mut parameters = [0u64; 15]; // struct io_uring_params is 120 bytes
    // SAFETY: the kernel reads and writes 120 bytes at the pointer, and `parameters` has 120 bytes.
    let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    if made < 0 {
        return Some(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nothing else uses it.
    unsafe { libc::close(made as i32) };
    None
}

/// How a process ended, and what it had written.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A server to be started.
#[derive(Debug)]
pub struct Launch {
    command: Command,
    folder: Folder,
    unix_socket: Option<PathBuf>,
    ports: PathBuf,
}

impl Launch {
    /// corecached with `args` and no others.
    pub fn bare(args: &[&str]) -> Self {
        Self::from_program(env!("CARGO_BIN_EXE_corecached"), args)
    }

    /// corecached with `args`, on a free port.
    pub fn new(args: &[&str]) -> Self {
        let mut launch = Self::bare(&["-l", "127.0.0.1", "-p", "-1"]);
        launch.command.args(args);
        launch
    }

    /// `memcached` with `args`, on a free port.
    pub fn memcached(memcached: &Memcached, args: &[&str]) -> Self {
        let mut launch =
            Self::from_program(&memcached.program, &["-u", "root", "-l", "127.0.0.1", "-p", "-1"]);
        launch.command.args(args);
        launch
    }

    fn from_program(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Self {
        let folder = Folder::new();
        let ports = folder.file("ports");
        let mut command = Command::new(program);
        command.args(args).env("MEMCACHED_PORT_FILENAME", &ports);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec only a system call is made. It has the child killed when the thread
        // that started it ends, also when the test itself is killed.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        Self { command, folder, unix_socket: None, ports }
    }

    /// Has it listen on a Unix socket, which [`Server::unix_socket`] names.
    pub fn on_unix_socket(mut self) -> Self {
        let path = self.folder.file("socket");
        self.command.arg("-s").arg(&path);
        self.unix_socket = Some(path);
        self
    }

    /// Has it write its ports to `file` instead of a file in its own folder.
    pub fn ports_to(mut self, file: &std::path::Path) -> Self {
        self.command.env("MEMCACHED_PORT_FILENAME", file);
        self.ports = file.to_owned();
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs `prepare` in the child before it becomes the server.
    ///
    /// # Safety
    /// `prepare` runs between fork and exec: it may only make system calls.
    pub unsafe fn prepare(mut self, prepare: fn() -> std::io::Result<()>) -> Self {
        // SAFETY: the caller passes a function that only makes system calls.
        unsafe { self.command.pre_exec(prepare) };
        self
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// It ends instead.
    #[track_caller]
    pub fn serve(self) -> Server {
        match self.try_serve() {
            Ok(server) => server,
            Err(exit) => panic!("the server ended at start with {}:\n{}", exit.status, exit.stderr),
        }
    }

    /// Starts it and waits until it serves or ends.
    ///
    /// # Errors
    /// It ended.
    pub fn try_serve(mut self) -> Result<Server, Exit> {
        let mut running = Running::start(&mut self.command);
        let start = Instant::now();
        let address = loop {
            if let Some(exit) = running.ended() {
                return Err(exit);
            }
            let text = std::fs::read_to_string(&self.ports).unwrap_or_default();
            let port = text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.parse::<u16>().ok());
            let unix_ready = || {
                self.unix_socket
                    .as_ref()
                    .is_some_and(|path| std::os::unix::net::UnixStream::connect(path).is_ok())
            };
            if let Some(port) = port {
                break SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            }
            if unix_ready() {
                break SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            }
            assert!(start.elapsed() < DEADLINE, "not serving within {DEADLINE:?}: {}", running.stderr());
            std::thread::sleep(Duration::from_millis(5));
        };
        let ports = std::fs::read_to_string(&self.ports).unwrap_or_default();
        let port = ports.lines().find_map(|line| line.strip_prefix("ADMIN INET: ")?.parse::<u16>().ok());
        let admin = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(Server { running, address, admin, folder: self.folder, unix_socket: self.unix_socket })
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// It does not end within [`DEADLINE`].
    #[track_caller]
    pub fn exit(mut self) -> Exit {
        let mut running = Running::start(&mut self.command);
        wait_for("the process to end", || running.ended())
    }
}

/// A child process whose output is collected.
#[derive(Debug)]
struct Running {
    child: Child,
    stdout: Collected,
    stderr: Collected,
}

#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = pipe.read(&mut chunk) {
                sink.lock().unwrap().extend_from_slice(&chunk[..len]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Everything that was written, once the process has ended.
    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.text()
    }
}

impl Running {
    #[track_caller]
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, stdout: Collected::from(stdout), stderr: Collected::from(stderr) }
    }

    fn stderr(&self) -> String {
        self.stderr.text()
    }

    fn ended(&mut self) -> Option<Exit> {
        let status = self.child.try_wait().unwrap()?;
        Some(Exit { status, stdout: self.stdout.finish(), stderr: self.stderr.finish() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    running: Running,
    /// Its address, if it listens on TCP.
    pub address: SocketAddr,
    admin: Option<SocketAddr>,
    folder: Folder,
    unix_socket: Option<PathBuf>,
}

impl Server {
    /// The address of its admin server, if it has one.
    pub fn try_admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The address of its admin server.
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("started with --admin-listen")
    }

    /// Starts corecached with `args`, on a free port.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        Launch::new(args).serve()
    }

    /// Starts corecached on `backend` with this number of shards.
    #[track_caller]
    pub fn start_on(backend: Backend, shards: usize, args: &[&str]) -> Self {
        Launch::new(&[backend.flag(), "-t", &shards.to_string()]).args(args).serve()
    }

    /// Starts the newest memcached that there is with `args`, on a free port.
    #[track_caller]
    pub fn memcached(args: &[&str]) -> Self {
        Launch::memcached(Memcached::newest(), args).serve()
    }

    /// The file of its Unix socket, if it has one.
    pub fn unix_socket(&self) -> Option<&PathBuf> {
        self.unix_socket.as_ref()
    }

    /// A folder that lives as long as the server.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// Resident memory, bytes.
    pub fn resident_bytes(&self) -> usize {
        self.status_kib("VmRSS:") << 10
    }

    /// The most resident memory that it ever had, bytes.
    pub fn peak_resident_bytes(&self) -> usize {
        self.status_kib("VmHWM:") << 10
    }

    #[track_caller]
    fn status_kib(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a running process has it");
        line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
    }

    /// Sends it `signal`.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        // The process has not been waited for, so the id still names it.
        kill_process(Pid::from_child(&self.running.child), signal).expect("a signal may be sent to a child");
    }

    /// Stops it with SIGSTOP, and waits until all its threads have stopped.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid());
        wait_for("every thread to stop", || {
            let is_stopped = |task: std::fs::DirEntry| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
            };
            std::fs::read_dir(&tasks).unwrap().flatten().all(is_stopped).then_some(())
        });
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.running.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// It does not end within `limit`.
    #[track_caller]
    pub fn exit_within(&mut self, limit: Duration) -> Exit {
        let start = Instant::now();
        loop {
            if let Some(exit) = self.running.ended() {
                return exit;
            }
            assert!(start.elapsed() < limit, "still running after {limit:?}; stderr: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Launch {
    /// Adds arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }
}

impl Exit {
    /// Its exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        debug_assert!(self.status.code().is_some() || self.status.signal().is_some());
        self.status.code()
    }
}
