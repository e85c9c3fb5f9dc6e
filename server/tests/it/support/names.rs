//! Names that a test decides.

use std::process::{Child, Command, Stdio};

use super::{Folder, free_port, wait_until};

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
        // SAFETY: no memory is touched; the process is our child.
        unsafe { libc::kill(self.server.id() as i32, libc::SIGHUP) };
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
