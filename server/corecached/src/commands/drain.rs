//! `corecached drain`: what an orchestrator runs before it stops a server. The server says that it is not
//! ready, and keeps serving while load balancers take notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Parser;

use super::error::CommandError;

/// Makes a server fail /readyz from now on, then waits while it keeps serving; stop it with a signal after that.
#[derive(Debug, Parser)]
#[command(name = "corecached drain", bin_name = "corecached drain", disable_version_flag = true)]
pub(crate) struct DrainArgs {
    /// Address of the server's --admin-listen, on this machine
    #[arg(value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9150")]
    pub target: SocketAddr,

    /// Milliseconds to wait after the announcement
    #[arg(short = 'w', long, value_name = "MS", default_value = "0", value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub wait_ms: u64,
}

/// Limit for connecting, for sending and for each read. The admin server answers at once.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a response that are read: enough for its first line.
const RESPONSE_BYTES_MAX: u64 = 4096;

/// Announces the stop, then waits.
///
/// # Errors
/// The stop could not be announced. In that case it does not wait.
pub(crate) fn drain(args: &DrainArgs) -> Result<(), CommandError> {
    let target = args.target.to_string();
    let failed = |step| CommandError::exchange(&target, step);
    let mut stream = TcpStream::connect_timeout(&args.target, TIMEOUT).map_err(failed("connect"))?;
    let limits =
        stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
    limits.map_err(failed("connect"))?;
    let request =
        format!("POST /drain HTTP/1.1\r\nhost: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",);
    stream.write_all(request.as_bytes()).map_err(failed("send"))?;
    let mut response = Vec::new();
    stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut response).map_err(failed("receive"))?;
    let response = String::from_utf8_lossy(&response);
    let status = response.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(CommandError::Status { status: status.to_owned(), target });
    }
    std::thread::sleep(Duration::from_millis(args.wait_ms));
    Ok(())
}
