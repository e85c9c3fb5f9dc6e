//! `corecached healthcheck`: a real round trip, for the probes of whoever runs the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use rustls::{ClientConnection, StreamOwned};

use corecached_cache::Users;
use corecached_net::tls::{ClientTls, Trust, TrustOptions};

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

    /// Speak TLS, as to a server with -Z or a proxy's --ssl-port
    ///
    /// Any certificate will do, whatever name it bears, unless --pem-ca-path is given: enough on the same machine.
    #[arg(short = 'Z', long)]
    pub enable_ssl: bool,

    /// Certificates of the authorities that must have signed the server's, which must bear its name too
    #[arg(long, value_name = "FILE", requires = "enable_ssl")]
    pub pem_ca_path: Option<PathBuf>,

    /// Name that the server's certificate must bear [default: HOST]
    #[arg(long, value_name = "NAME", requires = "pem_ca_path")]
    pub ssl_server_name: Option<String>,

    /// Certificate to show, to a server that wants to see one
    #[arg(long, value_name = "FILE", requires = "enable_ssl", requires = "pem_key_path")]
    pub pem_cert_path: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE", requires = "pem_cert_path")]
    pub pem_key_path: Option<PathBuf>,
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

/// A connection on which nothing waits past the deadline, whatever little comes.
struct Timed {
    socket: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> std::io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(std::io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush()
    }
}

/// One round trip, or as many as `args` ask for.
///
/// # Errors
/// What went wrong, with the target.
pub fn check(args: &Args) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_millis(args.timeout_ms);
    let failed = |step: &str, error: &dyn std::fmt::Display| format!("{}: {step}: {error}", args.target);
    let exchanges = exchanges(args)?;
    let secure = secure(args)?;
    let addresses: Vec<SocketAddr> =
        args.target.to_socket_addrs().map_err(|error| failed("look up", &error))?.collect();
    let mut refused = failed("look up", &"no address");
    for address in addresses {
        match ask(address, deadline, secure.as_ref(), &exchanges) {
            Ok(()) => return Ok(()),
            Err((step, error)) => refused = failed(step, &error),
        }
    }
    Err(refused)
}

fn exchanges(args: &Args) -> Result<Vec<Exchange>, String> {
    let mut all = Vec::new();
    if let Some(file) = &args.auth_file {
        let failed = |error: &dyn std::fmt::Display| format!("--auth-file {}: {error}", file.display());
        let users = Users::read(file).map_err(|error| failed(&error))?;
        let token = users.first_token().ok_or_else(|| failed(&"has no user"))?;
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

/// How the connection is to be secured, if it is.
fn secure(args: &Args) -> Result<Option<ClientTls>, String> {
    if !args.enable_ssl {
        return Ok(None);
    }
    let identity = args.pem_cert_path.clone().zip(args.pem_key_path.clone());
    let trust = match args.pem_ca_path.clone() {
        None => Trust::insecure_accept_any(identity.as_ref()),
        Some(authorities) => Trust::load(&TrustOptions {
            authorities,
            flag: "--pem-ca-path",
            identity,
            name: args.ssl_server_name.clone(),
        }),
    };
    let trust = trust.map_err(|error| error.to_string())?;
    let host = args.target.rsplit_once(':').map_or(&*args.target, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    trust.for_host(host).map(Some).map_err(|error| format!("{}: {error}", args.target))
}

fn ask(
    address: SocketAddr,
    deadline: Instant,
    secure: Option<&ClientTls>,
    exchanges: &[Exchange],
) -> Result<(), Failure> {
    let at = |step: &'static str| move |error| (step, error);
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let socket = TcpStream::connect_timeout(&address, left).map_err(at("connect"))?;
    let mut timed = Timed { socket, deadline };
    let Some(ClientTls { config, name }) = secure else { return converse(&mut timed, exchanges) };
    let mut tls = ClientConnection::new(config.clone(), name.clone())
        .map_err(|error| ("TLS", std::io::Error::other(error)))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut timed).map_err(at("TLS"))?;
    }
    converse(&mut StreamOwned::new(tls, timed), exchanges)
}

fn converse(stream: &mut (impl Read + Write), exchanges: &[Exchange]) -> Result<(), Failure> {
    let at = |step: &'static str| move |error| (step, error);
    for (request, replies) in exchanges {
        stream.write_all(request).and_then(|()| stream.flush()).map_err(at("send"))?;
        for expected in replies {
            let line = line(stream).map_err(at("receive"))?;
            if line != *expected {
                let text = format!("{:?} instead of {:?}", show(&line), show(expected));
                return Err(("receive", std::io::Error::other(text)));
            }
        }
    }
    Ok(())
}

/// One line, without its end; or what came instead of one in [`LINE_BYTES_MAX`] bytes. Byte by byte: there are few.
fn line(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_BYTES_MAX {
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
