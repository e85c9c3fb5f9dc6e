//! `corecached healthcheck`: a real round trip, for the probes of whoever runs the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;

use crate::conn::users::Users;

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

    /// Show the password of the first user in this file first: the one that the server was given with -Y
    #[arg(short = 'Y', long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,

    /// Store a value as well, and get it back; it expires by itself
    #[arg(short = 's', long)]
    pub store: bool,
}

/// A line that every memcached of the last years answers without looking at a key.
const REQUEST: &[u8] = b"mn\r\n";
const REPLY: &[u8] = b"MN";
/// Of a reply: more than any that is waited for, so that whatever else comes can be shown.
const LINE_BYTES_MAX: usize = 256;
/// Seconds that a stored value stays.
const STORED_S: u32 = 10;

/// What is said, and the lines that must come back.
type Exchange = (Vec<u8>, Vec<Vec<u8>>);
/// What was being done, and why it failed.
type Failure = (&'static str, std::io::Error);

/// One round trip, or as many as `args` ask for.
///
/// # Errors
/// What went wrong, with the target.
pub fn check(args: &Args) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_millis(args.timeout_ms);
    let failed = |step: &str, error: &dyn std::fmt::Display| format!("{}: {step}: {error}", args.target);
    let exchanges = exchanges(args)?;
    let addresses: Vec<SocketAddr> =
        args.target.to_socket_addrs().map_err(|error| failed("look up", &error))?.collect();
    let mut refused = failed("look up", &"no address");
    for address in addresses {
        match converse(address, deadline, &exchanges) {
            Ok(()) => return Ok(()),
            Err((step, error)) => refused = failed(step, &error),
        }
    }
    Err(refused)
}

fn exchanges(args: &Args) -> Result<Vec<Exchange>, String> {
    let mut all = Vec::new();
    if let Some(file) = &args.auth_file {
        let failed = |error: String| format!("--auth-file {}: {error}", file.display());
        let users = Users::read(file).map_err(failed)?;
        let token = users.first_token().ok_or_else(|| failed("has no user".to_owned()))?;
        let mut request = format!("set auth 0 0 {}\r\n", token.len()).into_bytes();
        request.extend_from_slice(&token);
        request.extend_from_slice(b"\r\n");
        all.push((request, vec![b"STORED".to_vec()]));
    }
    all.push((REQUEST.to_vec(), vec![REPLY.to_vec()]));
    if args.store {
        let now_ns = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let key = format!("corecached-healthcheck-{}-{now_ns}", std::process::id());
        let value = now_ns.to_string();
        let len = value.len();
        let set = format!("set {key} 0 {STORED_S} {len}\r\n{value}\r\n");
        all.push((set.into_bytes(), vec![b"STORED".to_vec()]));
        let found = [format!("VALUE {key} 0 {len}"), value, "END".to_owned()].map(String::into_bytes);
        all.push((format!("get {key}\r\n").into_bytes(), found.to_vec()));
    }
    Ok(all)
}

fn converse(address: SocketAddr, deadline: Instant, exchanges: &[Exchange]) -> Result<(), Failure> {
    // A timeout of zero means none: a millisecond is the least.
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let at = |step: &'static str| move |error| (step, error);
    let mut stream = TcpStream::connect_timeout(&address, left()).map_err(at("connect"))?;
    for (request, replies) in exchanges {
        stream.set_write_timeout(Some(left())).map_err(at("send"))?;
        stream.write_all(request).map_err(at("send"))?;
        for expected in replies {
            let line = line(&mut stream, left).map_err(at("receive"))?;
            if line != *expected {
                let text = format!("{:?} instead of {:?}", show(&line), show(expected));
                return Err(("receive", std::io::Error::other(text)));
            }
        }
    }
    Ok(())
}

/// One line, without its end; or what came instead of one in [`LINE_BYTES_MAX`] bytes. Byte by byte: there are few.
fn line(stream: &mut TcpStream, left: impl Fn() -> Duration) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_BYTES_MAX {
        stream.set_read_timeout(Some(left()))?;
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
        if line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
            break;
        }
    }
    Ok(line)
}

fn show(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}
