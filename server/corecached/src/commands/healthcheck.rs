//! `corecached healthcheck`: a real round trip to a server, for the probes of an orchestrator.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use rustls::{ClientConnection, StreamOwned};

use corecached_cache::Users;
use corecached_net::tls::{ClientTls, Trust, TrustOptions};

use super::error::CommandError;

/// Makes a round trip to a cache or a proxy; the exit code is 0 when it answers in time, else 1.
#[derive(Debug, Parser)]
#[command(name = "corecached healthcheck", bin_name = "corecached healthcheck", disable_version_flag = true)]
pub(crate) struct HealthcheckArgs {
    /// Address of the server
    #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:11211")]
    pub target: String,

    /// Milliseconds to connect and to answer
    #[arg(short = 't', long, value_name = "MS", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,

    /// Authenticate first, as the first user of this file: the one that the server was given with -Y
    #[arg(short = 'Y', long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,

    /// Also store a value and read it back; the value expires by itself
    #[arg(short = 's', long)]
    pub store: bool,

    /// Connect over TLS, as to a server with -Z or to a proxy's --ssl-port
    ///
    /// Any certificate is accepted, whatever its name, unless --pem-ca-path is given. That is enough on one
    /// machine.
    #[arg(short = 'Z', long)]
    pub enable_ssl: bool,

    /// Authorities that must have signed the certificate of the server, which must have the server's name too
    #[arg(long, value_name = "FILE", requires = "enable_ssl")]
    pub pem_ca_path: Option<PathBuf>,

    /// Name that the certificate of the server must have [default: HOST]
    #[arg(long, value_name = "NAME", requires = "pem_ca_path")]
    pub ssl_server_name: Option<String>,

    /// Certificate to show to a server that asks for one
    #[arg(long, value_name = "FILE", requires = "enable_ssl", requires = "pem_key_path")]
    pub pem_cert_path: Option<PathBuf>,

    /// Private key of that certificate
    #[arg(long, value_name = "FILE", requires = "pem_cert_path")]
    pub pem_key_path: Option<PathBuf>,
}

/// A request without a key. Every memcached since 1.6 has it.
const REQUEST: &[u8] = b"mn\r\n";
const REPLY: &[u8] = b"MN";
/// Bytes of a reply line that are read: more than an expected line has, so that another line can be shown in
/// full.
const LINE_BYTES_MAX: usize = 256;
/// TTL of a stored value, seconds.
const STORED_S: u32 = 10;

/// A request, and the lines of the reply that is expected.
type Exchange = (Vec<u8>, Vec<Vec<u8>>);

/// A connection on which no read and no write lasts past the deadline, even if the server sends a byte at a
/// time.
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

/// Makes one round trip, or more if `args` ask for them.
///
/// # Errors
/// Why the round trip failed, at the last address of the server if it has several.
pub(crate) fn check(args: &HealthcheckArgs) -> Result<(), CommandError> {
    let deadline = Instant::now() + Duration::from_millis(args.timeout_ms);
    let exchanges = exchanges(args)?;
    let secure = secure(args)?;
    let addresses: Vec<SocketAddr> =
        args.target.to_socket_addrs().map_err(CommandError::exchange(&args.target, "look up"))?.collect();
    let mut refused = CommandError::NoAddress { target: args.target.clone() };
    for address in addresses {
        match connect_and_converse(address, deadline, secure.as_ref(), &args.target, &exchanges) {
            Ok(()) => return Ok(()),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn exchanges(args: &HealthcheckArgs) -> Result<Vec<Exchange>, CommandError> {
    let mut all = Vec::new();
    if let Some(file) = &args.auth_file {
        let users =
            Users::read(file, true).map_err(|source| CommandError::Users { file: file.clone(), source })?;
        let token = users.first_token();
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

/// What the connection is secured with; `None` for a plain connection.
fn secure(args: &HealthcheckArgs) -> Result<Option<ClientTls>, CommandError> {
    if !args.enable_ssl {
        return Ok(None);
    }
    let identity = args.pem_cert_path.clone().zip(args.pem_key_path.clone());
    let trust = match args.pem_ca_path.clone() {
        None => Trust::insecure_accept_any(identity.as_ref())?,
        Some(authorities) => Trust::load(&TrustOptions {
            authorities,
            flag: "--pem-ca-path",
            identity,
            name: args.ssl_server_name.clone(),
        })?,
    };
    let host = args.target.rsplit_once(':').map_or(&*args.target, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let no_name = |source| CommandError::ServerName { target: args.target.clone(), source };
    trust.for_host(host).map(Some).map_err(no_name)
}

fn connect_and_converse(
    address: SocketAddr,
    deadline: Instant,
    secure: Option<&ClientTls>,
    target: &str,
    exchanges: &[Exchange],
) -> Result<(), CommandError> {
    let failed = |step| CommandError::exchange(target, step);
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let socket = TcpStream::connect_timeout(&address, left).map_err(failed("connect"))?;
    let mut timed = Timed { socket, deadline };
    let Some(ClientTls { config, name }) = secure else { return converse(&mut timed, target, exchanges) };
    let mut tls = ClientConnection::new(config.clone(), name.clone())
        .map_err(std::io::Error::other)
        .map_err(failed("TLS"))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut timed).map_err(failed("TLS"))?;
    }
    converse(&mut StreamOwned::new(tls, timed), target, exchanges)
}

fn converse(
    stream: &mut (impl Read + Write),
    target: &str,
    exchanges: &[Exchange],
) -> Result<(), CommandError> {
    let failed = |step| CommandError::exchange(target, step);
    for (request, replies) in exchanges {
        stream.write_all(request).and_then(|()| stream.flush()).map_err(failed("send"))?;
        for expected in replies {
            let line = read_line(stream).map_err(failed("receive"))?;
            if line != *expected {
                let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
                let target = target.to_owned();
                return Err(CommandError::Reply { target, line: text(&line), expected: text(expected) });
            }
        }
    }
    Ok(())
}

/// One line without its CRLF, or the first [`LINE_BYTES_MAX`] bytes of a longer one. It reads a byte at a
/// time, so that nothing of the next line is read; lines are short and few.
fn read_line(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
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
