//! A TCP forwarder to a cache that can delay requests.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::Failure;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks that are held for one connection; at this number the forwarder stops reading from the sender.
const CHUNKS_MAX: usize = 4096;

/// A forwarder to one cache. Bytes keep their order; each is delayed by the current delay. Its threads end
/// with their connections.
#[derive(Debug)]
pub(super) struct SlowForwarder {
    address: SocketAddr,
    delay_ms: Arc<AtomicU64>,
}

impl SlowForwarder {
    /// Starts to forward to the cache at `target`, without delay.
    ///
    /// # Errors
    /// It cannot listen on a port.
    pub(super) fn start(target: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms);
        std::thread::spawn(move || {
            for inwards in listener.incoming().map_while(Result::ok) {
                let Ok(outwards) = TcpStream::connect(target) else { continue };
                let _ = (inwards.set_nodelay(true), outwards.set_nodelay(true));
                let (Ok(from), Ok(to)) = (outwards.try_clone(), inwards.try_clone()) else { continue };
                forward(inwards, outwards, Arc::clone(&delay));
                forward(from, to, Arc::default());
            }
        });
        Ok(Self { address, delay_ms })
    }

    /// Returns the address that it listens on.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Delays requests by this many milliseconds from now on.
    pub(super) fn slow_by(&self, delay_ms: u64) {
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, delay_ms: Arc<AtomicU64>) {
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(len @ 1..) = from.read(&mut chunk) {
            let at = Instant::now() + Duration::from_millis(delay_ms.load(Ordering::Relaxed));
            if sender.send((at, chunk[..len].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((at, bytes)) = receiver.recv() {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_order_and_no_sooner_than_they_are_to() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let forwarder = SlowForwarder::start(server.local_addr().unwrap()).unwrap();
        let mut client = TcpStream::connect(forwarder.address()).unwrap();
        let mut server = server.accept().unwrap().0;
        forwarder.slow_by(30);
        let began = Instant::now();
        client.write_all(b"one").unwrap();
        client.write_all(b"two").unwrap();
        let mut came = [0; 6];
        server.read_exact(&mut came).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(30));
        assert_eq!(&came, b"onetwo");
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"answer");
    }
}
