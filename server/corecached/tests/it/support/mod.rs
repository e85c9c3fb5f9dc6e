//! What the tests share: servers as child processes, clients with deadlines, seeded random numbers.

mod client;
mod cluster;
mod folder;
mod hosts;
mod memcached;
mod names;
mod packet;
mod random;
mod server;
mod tls;

use std::time::{Duration, Instant};

pub use client::{Client, Stats};
pub use cluster::{Cluster, Endpoint, EndpointState};
pub use folder::{Folder, Mounted};
pub use hosts::Hosts;
pub use memcached::Memcached;
pub use names::{LateNames, Names};
pub use packet::{Packet, opcode};
pub use random::Random;
pub use server::{Backend, Exit, Launch, Server};
pub use tls::{Authority, Identity};

/// Limit for everything that a test waits for: far more than a loaded machine needs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks at something that is waited for.
const POLL_PAUSE: Duration = Duration::from_millis(2);

/// Returns a port of the loopback interface that is free for TCP and UDP.
pub fn free_port() -> u16 {
    loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Calls `found` until it returns a value.
///
/// # Panics
/// It has returned none within [`DEADLINE`]; the message names `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for {what}");
        std::thread::sleep(POLL_PAUSE);
    }
}

/// Calls `holds` until it returns true.
///
/// # Panics
/// It has not within [`DEADLINE`]; the message names `what`.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// `bytes` as text for messages. The middle of a long text is left out.
pub fn shorten(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 600;
    if bytes.len() <= SHOWN_MAX {
        return format!("{:?}", bytes.escape_ascii().to_string());
    }
    let (head, tail) = (&bytes[..SHOWN_MAX / 2], &bytes[bytes.len() - SHOWN_MAX / 2..]);
    format!(
        "{:?} .. {} bytes .. {:?}",
        head.escape_ascii().to_string(),
        bytes.len(),
        tail.escape_ascii().to_string()
    )
}
