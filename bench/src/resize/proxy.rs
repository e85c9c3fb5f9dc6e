//! The proxy under test. A new list of caches reaches corecached by a change of its configuration file, and
//! twemproxy by a restart.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Failure;
use crate::pool::Pool;

/// Time that a proxy gets to accept connections after its start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// The kind of a proxy, and its options.
#[derive(Clone, Debug)]
pub(super) enum ProxyKind {
    /// corecached with warm resize.
    Warm { program: PathBuf, window_ms: u64, grace_ms: u64 },
    /// corecached without warm resize.
    Cold { program: PathBuf },
    /// twemproxy.
    Twemproxy { program: PathBuf },
}

impl ProxyKind {
    /// Returns its name in tables.
    #[must_use]
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Warm { .. } => "corecached, warm resize",
            Self::Cold { .. } => "corecached, without",
            Self::Twemproxy { .. } => "twemproxy, restarted",
        }
    }

    /// Tells whether this proxy uses warm resize.
    #[must_use]
    pub(super) const fn is_warm(&self) -> bool {
        matches!(self, Self::Warm { .. })
    }
}

/// A running proxy. It is stopped when this is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    kind: ProxyKind,
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Proxy {
    /// Starts a proxy for these caches.
    ///
    /// # Errors
    /// It cannot be started, or accepts no connections in time.
    pub(super) fn start(kind: ProxyKind, caches: &[SocketAddr]) -> Result<Self, Failure> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = tempfile::tempdir()?;
        write(&kind, &folder, port, caches)?;
        let child = spawn(&kind, &folder, port)?;
        let proxy = Self { kind, folder, port, child };
        proxy.wait_until_up()?;
        Ok(proxy)
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Replaces the list of caches.
    ///
    /// # Errors
    /// The configuration cannot be written, or twemproxy cannot be restarted.
    pub(super) fn set_caches(&mut self, caches: &[SocketAddr]) -> Result<(), Failure> {
        write(&self.kind, &self.folder, self.port, caches)?;
        if let ProxyKind::Twemproxy { .. } = self.kind {
            self.end();
            self.child = spawn(&self.kind, &self.folder, self.port)?;
            self.wait_until_up()?;
        }
        Ok(())
    }

    fn wait_until_up(&self) -> Result<(), Failure> {
        let began = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            if began.elapsed() > START_LIMIT {
                return Err(Failure::new(format!("{}: accepts no connections", self.kind.name())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes the configuration. The file is replaced in one step, because corecached watches it.
fn write(kind: &ProxyKind, folder: &TempDir, port: u16, caches: &[SocketAddr]) -> Result<(), Failure> {
    let pool = Pool { destinations: caches.to_vec() };
    let text = match kind {
        ProxyKind::Twemproxy { .. } => pool.yaml(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        ProxyKind::Cold { .. } => pool.json(),
        ProxyKind::Warm { window_ms, grace_ms, .. } => pool.json().replace(
            "\"servers\":",
            &format!("\"warm_resize\":{{\"window_ms\":{window_ms},\"grace_ms\":{grace_ms}}},\"servers\":"),
        ),
    };
    let (path, new) = (folder.path().join("config"), folder.path().join("new"));
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)?;
    Ok(())
}

fn spawn(kind: &ProxyKind, folder: &TempDir, port: u16) -> Result<Child, Failure> {
    let config = folder.path().join("config").display().to_string();
    let port = port.to_string();
    let (program, words): (_, Vec<String>) = match kind {
        ProxyKind::Twemproxy { program } => {
            let spare = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port().to_string();
            (
                program,
                ["-c", &config, "-a", "127.0.0.1", "-s", &spare, "-v", "0", "-o", "/dev/null"]
                    .map(str::to_owned)
                    .into(),
            )
        }
        ProxyKind::Warm { program, .. } | ProxyKind::Cold { program } => {
            let fixed =
                ["proxy", "--listen-addresses", "127.0.0.1", "--num-proxies", "1", "--asynclog-disable"];
            let told = ["--reconfiguration-delay-ms", "50", "-p", &port, "-f", &config];
            (program, fixed.iter().chain(&told).map(|word| (*word).to_owned()).collect())
        }
    };
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| Failure::from(error).during(program.display()))
}
