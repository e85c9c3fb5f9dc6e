//! The proxy under test, and how it is told of other servers: corecached by its configuration file, twemproxy by a
//! restart.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Failure;
use crate::pool::Pool;

/// A proxy that takes no connections this long after its start has failed.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Which one.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Corecached, with warm resize.
    Warm { program: PathBuf, window_ms: u64, grace_ms: u64 },
    /// Corecached, without.
    Cold { program: PathBuf },
    /// Twemproxy.
    Twemproxy { program: PathBuf },
}

impl Kind {
    /// What tables call it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Warm { .. } => "corecached, warm resize",
            Self::Cold { .. } => "corecached, without",
            Self::Twemproxy { .. } => "twemproxy, restarted",
        }
    }

    /// Whether keys follow.
    #[must_use]
    pub const fn is_warm(&self) -> bool {
        matches!(self, Self::Warm { .. })
    }
}

/// A proxy that runs; ended when dropped.
#[derive(Debug)]
pub struct Proxy {
    kind: Kind,
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Proxy {
    /// Start it before these caches.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(kind: Kind, caches: &[SocketAddr]) -> Result<Self, Failure> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = tempfile::tempdir()?;
        write(&kind, &folder, port, caches)?;
        let child = spawn(&kind, &folder, port)?;
        let proxy = Self { kind, folder, port, child };
        proxy.wait_until_up()?;
        Ok(proxy)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The caches are these from now on.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn tell(&mut self, caches: &[SocketAddr]) -> Result<(), Failure> {
        write(&self.kind, &self.folder, self.port, caches)?;
        if let Kind::Twemproxy { .. } = self.kind {
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
                return Err(Failure::new(format!("{}: takes no connections", self.kind.name())));
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

/// Write what it is told, in one step: it is watched.
fn write(kind: &Kind, folder: &TempDir, port: u16, caches: &[SocketAddr]) -> Result<(), Failure> {
    let pool = Pool { destinations: caches.to_vec() };
    let text = match kind {
        Kind::Twemproxy { .. } => pool.yaml(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Kind::Cold { .. } => pool.json(),
        Kind::Warm { window_ms, grace_ms, .. } => pool.json().replace(
            "\"servers\":",
            &format!("\"warm_resize\":{{\"window_ms\":{window_ms},\"grace_ms\":{grace_ms}}},\"servers\":"),
        ),
    };
    let (path, new) = (folder.path().join("config"), folder.path().join("new"));
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)?;
    Ok(())
}

fn spawn(kind: &Kind, folder: &TempDir, port: u16) -> Result<Child, Failure> {
    let config = folder.path().join("config").display().to_string();
    let port = port.to_string();
    let (program, words): (_, Vec<String>) = match kind {
        Kind::Twemproxy { program } => {
            let spare = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port().to_string();
            (
                program,
                ["-c", &config, "-a", "127.0.0.1", "-s", &spare, "-v", "0", "-o", "/dev/null"]
                    .map(str::to_owned)
                    .into(),
            )
        }
        Kind::Warm { program, .. } | Kind::Cold { program } => {
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
