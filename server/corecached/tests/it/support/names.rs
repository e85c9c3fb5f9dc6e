//! DNS servers whose answers a test sets.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, Folder, free_port, wait_until};

/// A DNS server whose answers can be changed.
pub struct Names {
    server: Child,
    folder: Folder,
    port: u16,
}

impl Names {
    /// Starts a server without names. Where dnsmasq is not installed it prints so and returns `None`.
    pub fn start() -> Option<Self> {
        let folder = Folder::new();
        std::fs::write(folder.file("hosts"), "").unwrap();
        let port = free_port();
        let server = Command::new("/usr/sbin/dnsmasq")
            .args([
                "--no-daemon",
                "--no-resolv",
                "--no-hosts",
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
            ])
            .args(["--user=root", "--local=/test/", &format!("--port={port}")])
            .arg(format!("--addn-hosts={}", folder.file("hosts").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match server {
            Ok(mut server) => {
                // A signal before it is ready would end it.
                wait_until("the name server", || {
                    assert_eq!(server.try_wait().unwrap(), None, "dnsmasq ended");
                    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
                });
                Some(Self { server, folder, port })
            }
            Err(error) => {
                println!("skipped: /usr/sbin/dnsmasq cannot be started ({error}): install dnsmasq-base");
                None
            }
        }
    }

    /// The port on 127.0.0.1 at which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the addresses of `caches.test` to these hosts of 127.0.0.0/24.
    pub fn tell(&self, hosts: &[u8]) {
        let lines: String = hosts.iter().map(|host| format!("127.0.0.{host} caches.test\n")).collect();
        std::fs::write(self.folder.file("hosts"), lines).unwrap();
        kill_process(Pid::from_child(&self.server), Signal::HUP).expect("a signal may be sent to a child");
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A DNS server that does not answer until it is opened, and then forwards questions to another one.
pub struct LateNames {
    port: u16,
    counts: Arc<QuestionCounts>,
}

#[derive(Default)]
struct QuestionCounts {
    open: AtomicBool,
    asked: AtomicUsize,
    answered: AtomicUsize,
}

impl LateNames {
    /// A server that never answers.
    pub fn silent() -> Self {
        Self::start(None)
    }

    /// A server in front of `names`.
    pub fn before(names: &Names) -> Self {
        Self::start(Some(names.port()))
    }

    /// Starts the server. It ends with the process of the test.
    fn start(target: Option<u16>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let counts = Arc::new(QuestionCounts::default());
        let counted = Arc::clone(&counts);
        std::thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut packet) {
                counted.asked.fetch_add(1, Ordering::Relaxed);
                let Some(target) = target.filter(|_| counted.open.load(Ordering::Relaxed)) else { continue };
                let upwards = UdpSocket::bind("127.0.0.1:0").unwrap();
                upwards.set_read_timeout(Some(DEADLINE)).unwrap();
                upwards.send_to(&packet[..len], ("127.0.0.1", target)).unwrap();
                if let Ok(len) = upwards.recv(&mut packet) {
                    let _ = socket.send_to(&packet[..len], from);
                    counted.answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { port, counts }
    }

    /// The port on 127.0.0.1 at which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Has it answer from now on.
    pub fn open(&self) {
        self.counts.open.store(true, Ordering::Relaxed);
    }

    /// Count of questions so far.
    pub fn asked(&self) -> usize {
        self.counts.asked.load(Ordering::Relaxed)
    }

    /// Waits until the proxy has looked up the servers of a pool several times more: a lookup takes three
    /// questions.
    pub fn wait_for_answers(&self) {
        let answered = || self.counts.answered.load(Ordering::Relaxed);
        let before = answered();
        wait_until("names to be looked up", || answered() >= before + 12);
    }
}
