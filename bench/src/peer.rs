//! A server that is measured: how it is started, which cores it runs on, and how it is stopped.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::load::Target;
use crate::pool::Pool;
use crate::{Failure, process, scheduling};

/// Time that a server gets to accept connections after its start; then the start has failed.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Time that a server gets to end after SIGTERM; then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Time between two checks of either.
const POLL: Duration = Duration::from_millis(10);

/// Placeholders that give a server its port, one of which every peer must have.
const PORT: [&str; 2] = ["{port}", "{yaml}"];
/// Placeholders that give a proxy its caches.
const POOL: [&str; 4] = ["{servers}", "{config}", "{json}", "{yaml}"];

/// How to start a server. These placeholders in its arguments are replaced:
///
/// | placeholder | replaced by |
/// | --- | --- |
/// | `{port}`, `{spare}` | port to listen on; another free port |
/// | `{threads}`, `{memory}` | number of worker threads; memory limit in MiB |
/// | `{servers}` | for proxies: `host:port` of the caches, separated by commas |
/// | `{config}`, `{json}` | for proxies: a configuration of mcrouter, as the path of a file or as JSON |
/// | `{yaml}` | for proxies: path of a configuration of twemproxy, which also contains the port |
/// | `{directory}` | a directory for this server alone, removed after it has ended |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Name in tables.
    pub name: String,
    /// Path of the binary; searched in PATH when it has no slash.
    pub program: PathBuf,
    /// Arguments, with placeholders.
    pub arguments: Vec<String>,
    /// Flag that makes the binary print its version; `None`: the running server is sent `version`.
    pub version_flag: Option<&'static str>,
    /// Prefix of the names of its worker threads. Only these get SCHED_FIFO.
    pub worker_prefix: String,
}

/// The cores and limits that servers are started with.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Cores that servers are pinned to; empty: not pinned.
    pub cores: Vec<usize>,
    /// Number of worker threads.
    pub threads: usize,
    /// Memory limit, MiB.
    pub memory_mib: usize,
    /// Whether workers run before ordinary threads (SCHED_FIFO).
    pub fifo: bool,
    /// The caches, if the servers are proxies.
    pub pool: Option<Pool>,
}

impl Peer {
    /// corecached as a cache on one of its backends, `io_uring` or `epoll`.
    #[must_use]
    pub fn corecached(program: &Path, backend: &str) -> Self {
        let arguments =
            format!("-l 127.0.0.1 -p {{port}} -t {{threads}} -m {{memory}} -c 16384 --io-backend {backend}");
        Self {
            name: format!("corecached {backend}"),
            program: program.to_owned(),
            arguments: words(&arguments),
            version_flag: Some("-V"),
            worker_prefix: "shard-".to_owned(),
        }
    }

    /// corecached as a proxy on one of its backends, `io_uring` or `epoll`.
    #[must_use]
    pub fn corecached_proxy(program: &Path, backend: &str) -> Self {
        let arguments = format!(
            "proxy --listen-addresses 127.0.0.1 -p {{port}} -a {{directory}} --num-proxies {{threads}} --io-backend {backend} --config-str {{json}}"
        );
        Self { arguments: words(&arguments), ..Self::corecached(program, backend) }
    }

    /// twemproxy. It always has one worker.
    #[must_use]
    pub fn twemproxy(program: &Path) -> Self {
        Self {
            name: "twemproxy".to_owned(),
            program: program.to_owned(),
            arguments: words("-c {yaml} -a 127.0.0.1 -s {spare} -v 0 -o /dev/null"),
            version_flag: Some("-V"),
            worker_prefix: String::new(),
        }
    }

    /// Tells whether this is a proxy: whether its arguments contain a placeholder for caches.
    #[must_use]
    pub fn is_proxy(&self) -> bool {
        self.mentions(&POOL)
    }

    fn mentions(&self, words: &[&str]) -> bool {
        self.arguments.iter().any(|argument| words.iter().any(|word| argument.contains(word)))
    }

    /// memcached with its defaults, called `name` in tables.
    #[must_use]
    pub fn memcached(name: &str, program: &Path) -> Self {
        let user = if rustix::process::geteuid().is_root() { "-u root " } else { "" };
        let arguments = format!("{user}-U 0 -l 127.0.0.1 -p {{port}} -t {{threads}} -m {{memory}} -c 16384");
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: words(&arguments),
            version_flag: Some("-V"),
            // The background threads of memcached share locks with its workers: with SCHED_FIFO they would
            // block the workers for up to 50 ms.
            worker_prefix: "mc-worker".to_owned(),
        }
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    /// The server cannot be started, ends at once, or accepts no connections within 10 s.
    pub fn start(&self, setting: &Setting) -> Result<Server, Failure> {
        let failed =
            |words: String| Failure::new(format!("{} ({}): {words}", self.name, self.program.display()));
        let port = free_port()?;
        let directory = tempfile::tempdir()?;
        if let Some(pool) = &setting.pool {
            pool.write(directory.path(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        }
        let spare = free_port()?;
        let filled = |directory: &Path| -> Vec<String> {
            let path = |name: &str| directory.join(name).display().to_string();
            let pool = setting.pool.as_ref();
            let fill = |argument: &String| {
                argument
                    .replace("{port}", &port.to_string())
                    .replace("{spare}", &spare.to_string())
                    .replace("{threads}", &setting.threads.to_string())
                    .replace("{memory}", &setting.memory_mib.to_string())
                    .replace("{servers}", &pool.map(Pool::list).unwrap_or_default())
                    .replace("{json}", &pool.map(Pool::json).unwrap_or_default())
                    .replace("{config}", &path("pool.json"))
                    .replace("{yaml}", &path("pool.yml"))
                    .replace("{directory}", &directory.display().to_string())
            };
            self.arguments.iter().map(fill).collect()
        };
        // For the report: the path of the temporary directory is of no use there.
        let arguments = filled(Path::new("."));
        let null = || File::options().read(true).write(true).open("/dev/null");
        let mut command = Command::new(&self.program);
        command
            .args(filled(directory.path()))
            .stdin(Stdio::from(null()?))
            .stdout(Stdio::from(null()?))
            .stderr(Stdio::piped());
        // A child process inherits the cores of the thread that starts it.
        let child = std::thread::scope(|scope| {
            let start = || -> Result<Child, Failure> {
                if !setting.cores.is_empty() {
                    scheduling::pin(&setting.cores)?;
                }
                command.spawn().map_err(|error| failed(error.to_string()))
            };
            scope.spawn(start).join().unwrap_or_else(|_| Err(Failure::new("the starting thread panicked")))
        })?;
        let mut server = Server {
            name: self.name.clone(),
            version: String::new(),
            child,
            port,
            arguments,
            _directory: directory,
        };
        server.wait_until_up().map_err(|failure| failed(failure.to_string()))?;
        if let Some(mut errors) = server.child.stderr.take() {
            // Later output is discarded; left unread, it would fill the pipe and block the server.
            std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        }
        server.version = self.version(&server);
        if setting.fifo {
            server.run_workers_first(&self.worker_prefix)?;
        }
        Ok(server)
    }

    /// Returns the version that the server reports, in one line; empty when it reports none.
    fn version(&self, server: &Server) -> String {
        match self.version_flag {
            Some(flag) => {
                // twemproxy prints its version on standard error.
                let said = Command::new(&self.program)
                    .arg(flag)
                    .output()
                    .map(|output| if output.stdout.is_empty() { output.stderr } else { output.stdout });
                String::from_utf8_lossy(&said.unwrap_or_default())
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            }
            None => {
                let said = server.ask("version").unwrap_or_default();
                said.strip_prefix("VERSION ").map(str::to_owned).unwrap_or_default()
            }
        }
    }
}

impl FromStr for Peer {
    type Err = Failure;

    /// Parses `name=path:arguments`, where arguments are separated by blanks.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::new(format!(
                "{text}: not a peer: write name=path:arguments, with {{port}} in the arguments (a proxy may have {{yaml}} instead)"
            ))
        };
        let (name, rest) = text.split_once('=').ok_or_else(bad)?;
        let (program, arguments) = rest.split_once(':').ok_or_else(bad)?;
        if name.is_empty() || program.is_empty() || !PORT.iter().any(|word| arguments.contains(word)) {
            return Err(bad());
        }
        let is_memcached = Path::new(program).file_name().is_some_and(|file| file == "memcached");
        Ok(Self {
            name: name.to_owned(),
            program: PathBuf::from(program),
            arguments: words(arguments),
            version_flag: is_memcached.then_some("-V"),
            worker_prefix: if is_memcached { "mc-worker".to_owned() } else { String::new() },
        })
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A running server. It is stopped when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// Name in tables.
    pub name: String,
    /// Version that it reports.
    pub version: String,
    child: Child,
    port: u16,
    /// Arguments that it was started with.
    pub arguments: Vec<String>,
    /// The directory of `{directory}`; removed after the process has ended.
    _directory: TempDir,
}

impl Server {
    /// Returns its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the address that it listens on, as a target of load.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::Tcp(self.address())
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn wait_until_up(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                let mut said = String::new();
                if let Some(mut errors) = self.child.stderr.take() {
                    let _ = std::io::Read::read_to_string(&mut errors, &mut said);
                }
                return Err(Failure::new(format!("ended with {status}: {}", said.trim())));
            }
            if began.elapsed() > START_LIMIT {
                let limit_s = START_LIMIT.as_secs();
                return Err(Failure::new(format!("accepts no connections after {limit_s} s")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn run_workers_first(&self, prefix: &str) -> Result<(), Failure> {
        for task in process::threads(self.pid()) {
            if process::thread_name(self.pid(), task).starts_with(prefix) {
                scheduling::run_first(task).map_err(|failure| failure.during(&self.name))?;
            }
        }
        Ok(())
    }

    /// Sends a command of one line and returns the first line of the reply.
    ///
    /// # Errors
    /// The server does not reply.
    fn ask(&self, command: &str) -> Result<String, Failure> {
        Ok(self.lines(command, |_| true)?.pop().unwrap_or_default())
    }

    /// Returns a number from the reply to `stats`.
    ///
    /// # Errors
    /// The server does not reply, or its reply has no number of this name.
    pub fn stat(&self, name: &str) -> Result<u64, Failure> {
        let lines = self.lines("stats", |line| line == "END" || line.starts_with("ERROR"))?;
        let figure =
            lines.iter().find_map(|line| line.strip_prefix("STAT ")?.strip_prefix(name)?.strip_prefix(' '));
        figure
            .and_then(|figure| figure.parse().ok())
            .ok_or_else(|| Failure::new(format!("{}: stats has no number {name}", self.name)))
    }

    fn lines(&self, command: &str, is_last: impl Fn(&str) -> bool) -> Result<Vec<String>, Failure> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(STOP_LIMIT))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            lines.push(line?);
            if lines.last().is_some_and(|line| is_last(line)) {
                break;
            }
        }
        Ok(lines)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let began = Instant::now();
        let _ = scheduling::signal(self.pid(), Signal::TERM);
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > STOP_LIMIT {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_read_from_one_argument() {
        let peer: Peer =
            "old=/opt/memcached:-p {port} -t {threads} -m {memory} -o no_lru_crawler".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.program.as_path()), ("old", Path::new("/opt/memcached")));
        assert_eq!(peer.arguments.len(), 8);
        assert_eq!(peer.worker_prefix, "mc-worker");
        for text in ["", "x", "x=y", "x=y:-p 11211", "=y:{port}", "x=:{port}"] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_peer_that_is_told_of_caches_is_a_proxy() {
        for (text, is_proxy) in [
            ("mc=memcached:-p {port}", false),
            ("mcrouter=mcrouter:-p {port} -f {config}", true),
            ("mcrouter=mcrouter:-p {port} --config-str={json}", true),
            ("other=proxy:{port} {servers}", true),
            ("nutcracker=nutcracker:-c {yaml}", true),
        ] {
            assert_eq!(text.parse::<Peer>().unwrap().is_proxy(), is_proxy, "{text}");
        }
        assert!(Peer::twemproxy(Path::new("nutcracker")).is_proxy());
        assert!(Peer::corecached_proxy(Path::new("corecached"), "epoll").is_proxy());
        assert!(!Peer::memcached("memcached", Path::new("memcached")).is_proxy());
    }

    #[test]
    fn a_proxy_is_started_with_its_caches_and_files() {
        let pool = Pool { destinations: vec!["127.0.0.1:1".parse().unwrap()] };
        let setting =
            Setting { cores: Vec::new(), threads: 1, memory_mib: 64, fifo: false, pool: Some(pool) };
        // It ends at once with a message about the one file that does not exist.
        let peer: Peer = "cat=/bin/cat:{config} {yaml} {directory}/none -- -{port}".parse().unwrap();
        let words = peer.start(&setting).unwrap_err().to_string();
        assert!(words.contains("none: No such file"), "{words}");
        assert!(!words.contains("pool."), "both are there: {words}");
    }

    #[test]
    fn a_server_that_cannot_start_says_why() {
        let setting = Setting { cores: Vec::new(), threads: 1, memory_mib: 64, fifo: false, pool: None };
        let peer: Peer = "none=/does/not/exist:-p {port}".parse().unwrap();
        assert!(peer.start(&setting).unwrap_err().to_string().contains("No such file"));
        let peer: Peer = "ends=/bin/sh:-c exit {port}".parse().unwrap();
        assert!(peer.start(&setting).unwrap_err().to_string().contains("ended with"));
    }
}
