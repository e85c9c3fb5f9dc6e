//! Names that a test decides.

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
    /// Knows nothing yet. `None`, said aloud, where there is no dnsmasq.
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

    /// Where it is asked, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `caches.test` stands for these hosts of 127.0.0.0/8 from now on.
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

/// A DNS server that says nothing until it is told to, and then what another says.
pub struct LateNames {
    port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    open: AtomicBool,
    asked: AtomicUsize,
    answered: AtomicUsize,
}

impl LateNames {
    /// One that never says anything.
    pub fn silent() -> Self {
        Self::start(None)
    }

    /// One that will say what `names` says.
    pub fn before(names: &Names) -> Self {
        Self::start(Some(names.port()))
    }

    /// It ends with the process of the test.
    fn start(target: Option<u16>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let counts = Arc::new(Counts::default());
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

    /// Where it is asked, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// It answers from now on.
    pub fn open(&self) {
        self.counts.open.store(true, Ordering::Relaxed);
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.counts.asked.load(Ordering::Relaxed)
    }

    /// The proxy has looked for the servers of a pool since, more than once: that takes three questions.
    pub fn wait_for_answers(&self) {
        let answered = || self.counts.answered.load(Ordering::Relaxed);
        let before = answered();
        wait_until("names to be looked up", || answered() >= before + 12);
    }
}
