//! `corecached drain`: what an orchestrator runs before it stops a server. The server says it is not ready, and goes on
//! serving while whoever routes to it takes notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Parser;

/// Has a server fail /readyz from now on, then waits while it goes on serving; the signal that ends it comes after.
#[derive(Debug, Parser)]
#[command(name = "corecached drain", bin_name = "corecached drain", disable_version_flag = true)]
pub struct Args {
    /// Where the server's --admin-listen is, from this machine
    #[arg(value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9150")]
    pub target: SocketAddr,

    /// Milliseconds to wait once it has heard
    #[arg(short = 'w', long, value_name = "MS", default_value = "0", value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub wait_ms: u64,
}

/// The server answers at once, or it is no use waiting for it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Of an answer: enough for its first line, and a bound.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Announce and wait.
///
/// # Errors
/// The server could not be told, with the target and why. Nothing is waited for then.
pub fn drain(args: &Args) -> Result<(), String> {
    let failed = |step: &str, error: &dyn std::fmt::Display| format!("{}: {step}: {error}", args.target);
    let mut stream =
        TcpStream::connect_timeout(&args.target, TIMEOUT).map_err(|error| failed("connect", &error))?;
    let limits =
        stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
    limits.map_err(|error| failed("connect", &error))?;
    let request = format!(
        "POST /drain HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        args.target
    );
    stream.write_all(request.as_bytes()).map_err(|error| failed("send", &error))?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|error| failed("receive", &error))?;
    let answer = String::from_utf8_lossy(&answer);
    let first = answer.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        return Err(failed("receive", &format!("{first:?} is not success")));
    }
    std::thread::sleep(Duration::from_millis(args.wait_ms));
    Ok(())
}
