//! One request to the API server of a cluster, as the pod's service account. There are few requests, so each
//! uses a connection of its own. Token and authorities are read for every request, because both are replaced
//! while the pod runs.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::endpoints::SliceError;
use corecached_net::tls::{Trust, TrustOptions};

/// The folder in which a pod finds its service account.
pub(crate) const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The time for each step: to connect, to send the request, and until the head of the response has come.
const STEP_TIME: Duration = Duration::from_secs(3);
/// Most bytes of the head of a response.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a token.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a response that explains a refusal, and most characters of it that are logged.
const REASON_BYTES_MAX: usize = 64 << 10;
const REASON_SHOWN_MAX: usize = 300;
/// A peer that is gone is noticed after four times this time without a packet.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// How to reach the API server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiAccess {
    /// Its name or address, without brackets.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// The file of the authorities that its certificate must be signed by; `None` connects without TLS.
    pub(crate) authorities: Option<PathBuf>,
    /// The file of the token.
    pub(crate) token: PathBuf,
    /// When to ask again, and when to give up.
    pub(crate) retry: RetryPolicy,
}

/// When to ask a server again that does not answer as it should, and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// The longest pause before the server is asked again.
    pub(crate) pause_max: Duration,
    /// Without an answer for this time, what is known is not used any more.
    pub(crate) patience: Duration,
    /// A watch that is silent for this time is begun again where it ended. Servers send a bookmark about
    /// every minute if anything changes; one that hangs does not accept another watch.
    pub(crate) silence_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            pause_max: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            silence_max: Duration::from_secs(90),
        }
    }
}

impl ApiAccess {
    /// The access of a pod: the server as its environment names it, the token and the authorities in the
    /// folder `account`.
    ///
    /// # Errors
    /// The environment does not name the server.
    pub(crate) fn from_environment(account: &Path) -> Result<Self, AccessError> {
        let variable = |name| std::env::var(name).map_err(|_| AccessError::NotSet { name });
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        Ok(Self {
            host: variable("KUBERNETES_SERVICE_HOST")?,
            port: port.parse().map_err(|_| AccessError::BadPort { port })?,
            authorities: Some(account.join("ca.crt")),
            token: account.join("token"),
            retry: RetryPolicy::default(),
        })
    }
}

/// Why the environment does not name an API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessError {
    /// A variable is not set.
    #[error(
        "{name} is not set: outside a pod, set it and KUBERNETES_SERVICE_PORT to where the cluster's API server is"
    )]
    NotSet { name: &'static str },
    /// The port is not a number from 0 to 65535.
    #[error("KUBERNETES_SERVICE_PORT {port:?} is no port")]
    BadPort { port: String },
}

/// Why a request to the API server failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// The server refused it. The text names the remedy.
    #[error("{0}")]
    Refused(String),
    /// The server does not know any more what has changed since: everything must be listed again.
    #[error("what was known is out of date")]
    Expired,
    /// The server could not be reached, or its response could not be read.
    #[error("{0}")]
    Broken(String),
    /// The response does not contain slices that can be used.
    #[error(transparent)]
    Slices(#[from] SliceError),
}

/// The output of `future`, which has `time`. An error says with `what` that was being done.
async fn within<T, E: fmt::Display>(
    time: Duration,
    what: &str,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(time, future).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(ApiError::Broken(format!("{what}: {error}"))),
        Err(_) => Err(ApiError::Broken(format!("{what}: no answer within {time:?}"))),
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl ApiAccess {
    /// The body of the response to a `GET` of `path`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub(crate) async fn get(&self, path: &str) -> Result<ResponseBody, ApiError> {
        let server = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        let stream = self.connect(&server).await?;
        let mut http = hyper::client::conn::http1::Builder::new();
        http.max_buf_size(HEAD_BYTES_MAX);
        let (mut sender, connection) =
            within(STEP_TIME, &server, http.handshake::<_, Empty<Bytes>>(TokioIo::new(stream))).await?;
        tokio::spawn(async move { drop(connection.await) }); // ends when the body is dropped
        let request = Request::get(path)
            .header(HOST, &server)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("corecached/", env!("CARGO_PKG_VERSION")))
            .header(AUTHORIZATION, self.authorization()?)
            .body(Empty::new())
            .map_err(|error| ApiError::Broken(format!("{server}{path}: {error}")))?;
        let response = within(STEP_TIME, &server, sender.send_request(request)).await?;
        match response.status() {
            StatusCode::OK => Ok(ResponseBody::new(response.into_body())),
            StatusCode::GONE => Err(ApiError::Expired),
            status => {
                let reason = ResponseBody::new(response.into_body()).reason().await;
                let text = format!("{server} answered {status}{reason}");
                Err(match self.remedy(status) {
                    Some(remedy) => ApiError::Refused(format!("{text}: {remedy}")),
                    None => ApiError::Broken(text),
                })
            }
        }
    }

    /// What to do about a refusal; `None` if it may pass by itself.
    fn remedy(&self, status: StatusCode) -> Option<String> {
        match status {
            StatusCode::UNAUTHORIZED => {
                Some(format!("{} must hold a token that the cluster takes", self.token.display()))
            }
            StatusCode::FORBIDDEN => {
                Some("let the service account list and watch endpointslices there".to_owned())
            }
            StatusCode::NOT_FOUND => Some(
                "discovery.k8s.io/v1, which Kubernetes has from 1.21 on, must be served there".to_owned(),
            ),
            _ => None,
        }
    }

    async fn connect(&self, server: &str) -> Result<Box<dyn Stream>, ApiError> {
        let stream = within(STEP_TIME, server, TcpStream::connect((self.host.as_str(), self.port))).await?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let keepalive = keepalive.with_retries(KEEPALIVE_PROBES);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let Some(authorities) = &self.authorities else { return Ok(Box::new(stream)) };
        let options = TrustOptions {
            authorities: authorities.clone(),
            flag: "the service account's",
            identity: None,
            name: None,
        };
        let trust = Trust::load(&options).map_err(|error| ApiError::Broken(error.to_string()))?;
        let secure =
            trust.for_host(&self.host).map_err(|error| ApiError::Broken(format!("{server}: {error}")))?;
        let connector = TlsConnector::from(Arc::clone(&secure.config));
        Ok(Box::new(within(STEP_TIME, server, connector.connect(secure.name, stream)).await?))
    }

    fn authorization(&self) -> Result<HeaderValue, ApiError> {
        let broken = |error: String| ApiError::Broken(format!("{}: {error}", self.token.display()));
        let token = std::fs::read_to_string(&self.token).map_err(|error| broken(error.to_string()))?;
        let token = token.trim();
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(broken(format!("holds no token of 1 to {TOKEN_BYTES_MAX} bytes")));
        }
        let mut value =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| broken("holds no token".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The body of a response, read whole or by line.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    body: Incoming,
    buffer: Vec<u8>,
    /// The first bytes of the buffer that are known to contain no line feed.
    scanned: usize,
}

impl ResponseBody {
    fn new(body: Incoming) -> Self {
        Self { body, buffer: Vec::new(), scanned: 0 }
    }

    /// The explanation of a refusal, to be written after its status; empty if there is none.
    async fn reason(self) -> String {
        let Ok(Ok(body)) = tokio::time::timeout(STEP_TIME, self.whole(REASON_BYTES_MAX)).await else {
            return String::new();
        };
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(message) = json.get("message").and_then(Value::as_str) else { return String::new() };
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        format!(" ({})", message.chars().take(REASON_SHOWN_MAX).map(shown).collect::<String>())
    }

    /// Reads one more piece. Returns false at the end.
    async fn fill(&mut self, bytes_max: usize) -> Result<bool, ApiError> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        let frame = frame.map_err(|error| ApiError::Broken(error.to_string()))?;
        if let Some(data) = frame.data_ref() {
            if self.buffer.len() + data.len() > bytes_max {
                return Err(ApiError::Broken(format!("an answer of more than {bytes_max} bytes")));
            }
            self.buffer.extend_from_slice(data);
        }
        Ok(true)
    }

    /// The whole body.
    ///
    /// # Errors
    /// The body breaks off, or is longer than `bytes_max`.
    pub(crate) async fn whole(mut self, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
        while self.fill(bytes_max).await? {}
        Ok(self.buffer)
    }

    /// The next line without its end; `None` after the last one.
    ///
    /// # Errors
    /// The body breaks off, or a line is longer than `bytes_max`.
    pub(crate) async fn line(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, ApiError> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
                let rest = self.buffer.split_off(self.scanned + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.scanned = 0;
                line.pop();
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len();
            if !self.fill(bytes_max).await? {
                return Ok(None);
            }
        }
    }
}
