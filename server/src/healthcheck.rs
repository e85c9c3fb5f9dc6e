//! `corecached healthcheck`: a real round trip, for the probes of whoever runs the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use clap::Parser;

/// Asks a cache or a proxy for a sign of life; the exit code is 0 when it answers in time, else 1.
#[derive(Debug, Parser)]
#[command(name = "corecached healthcheck", bin_name = "corecached healthcheck", disable_version_flag = true)]
pub struct Args {
    /// Whom to ask
    #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:11211")]
    pub target: String,

    /// Milliseconds to connect and to answer
    #[arg(short = 't', long, value_name = "MS", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
}

/// A line that every memcached of the last years answers without looking at a key.
const REQUEST: &[u8] = b"mn\r\n";
const REPLY: &[u8] = b"MN\r\n";

/// One round trip.
///
/// # Errors
/// What went wrong, with the target.
pub fn check(args: &Args) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_millis(args.timeout_ms);
    let failed = |step: &str, error: &dyn std::fmt::Display| format!("{}: {step}: {error}", args.target);
    let addresses: Vec<SocketAddr> =
        args.target.to_socket_addrs().map_err(|error| failed("look up", &error))?.collect();
    let mut refused = failed("look up", &"no address");
    for address in addresses {
        match round_trip(address, deadline) {
            Ok(()) => return Ok(()),
            Err((step, error)) => refused = failed(step, &error),
        }
    }
    Err(refused)
}

fn round_trip(address: SocketAddr, deadline: Instant) -> Result<(), (&'static str, std::io::Error)> {
    // A timeout of zero means none: a millisecond is the least.
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let at = |step: &'static str| move |error| (step, error);
    let mut stream = TcpStream::connect_timeout(&address, left()).map_err(at("connect"))?;
    stream.set_write_timeout(Some(left())).map_err(at("send"))?;
    stream.write_all(REQUEST).map_err(at("send"))?;
    let mut reply = [0; REPLY.len()];
    stream.set_read_timeout(Some(left())).map_err(at("receive"))?;
    stream.read_exact(&mut reply).map_err(at("receive"))?;
    if reply != REPLY {
        let text = String::from_utf8_lossy(&reply).into_owned();
        return Err(("receive", std::io::Error::other(format!("{text:?} is no reply to mn"))));
    }
    Ok(())
}
