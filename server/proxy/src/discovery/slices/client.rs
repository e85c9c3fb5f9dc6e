//! One request to the API server of a cluster, as the pod's service account: a connection each, as there are few. Token
//! and authorities are read anew every time, for both are replaced while the pod runs.

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

use corecached_net::tls::{Trust, TrustOptions};

/// Where a pod finds its service account.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// To connect, to ask, and until the head of the answer is here: each.
const STEP_TIME: Duration = Duration::from_secs(3);
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a token.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Bytes of an answer that says why there is no other, and characters of it that are shown.
const REASON_BYTES_MAX: usize = 64 << 10;
const REASON_SHOWN_MAX: usize = 300;
/// A peer that is gone is noticed after this time, and three more of it, in silence.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whose certificates it may show; `None`: in the clear.
    pub authorities: Option<PathBuf>,
    /// Where the token is.
    pub token: PathBuf,
    /// How hard to try.
    pub pace: Pace,
}

/// How hard to try where the server does not answer as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The longest pause before it is asked again.
    pub pause_max: Duration,
    /// Without an answer for so long what is known is not relied on any more.
    pub patience: Duration,
    /// A watch that is silent for so long is begun anew where it was. Servers tell about every minute how far they are, where
    /// anything happens; one that hangs takes no other watch.
    pub silence_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pause_max: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            silence_max: Duration::from_secs(90),
        }
    }
}

impl Access {
    /// As a pod has it: the server by its environment, token and authorities in the folder `account`.
    ///
    /// # Errors
    /// The environment does not name the server.
    pub fn from_environment(account: &Path) -> Result<Self, String> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| {
                format!("{name} is not set: outside a pod, set it and KUBERNETES_SERVICE_PORT to where the cluster's API server is")
            })
        };
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        Ok(Self {
            host: variable("KUBERNETES_SERVICE_HOST")?,
            port: port.parse().map_err(|_| format!("KUBERNETES_SERVICE_PORT {port:?} is no port"))?,
            authorities: Some(account.join("ca.crt")),
            token: account.join("token"),
            pace: Pace::default(),
        })
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server will not say, with the remedy.
    Refused(String),
    /// What happened since is not known any more: everything is to be listed again.
    Expired,
    /// It could not be asked, or answered nonsense.
    Broken(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) | Self::Broken(text) => f.write_str(text),
            Self::Expired => f.write_str("what was known is out of date"),
        }
    }
}

/// `future`'s outcome within `time`, with what was being done in its error.
pub async fn within<T, E: fmt::Display>(
    time: Duration,
    what: &str,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(time, future).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Fault::Broken(format!("{what}: {error}"))),
        Err(_) => Err(Fault::Broken(format!("{what}: no answer within {time:?}"))),
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Access {
    /// The body of the answer to a `GET` of `path`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn get(&self, path: &str) -> Result<Body, Fault> {
        let place = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        let stream = self.connect(&place).await?;
        let mut http = hyper::client::conn::http1::Builder::new();
        http.max_buf_size(HEAD_BYTES_MAX);
        let (mut sender, connection) =
            within(STEP_TIME, &place, http.handshake::<_, Empty<Bytes>>(TokioIo::new(stream))).await?;
        tokio::spawn(async move { drop(connection.await) }); // ends with the body
        let request = Request::get(path)
            .header(HOST, &place)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("corecached/", env!("CARGO_PKG_VERSION")))
            .header(AUTHORIZATION, self.authorization()?)
            .body(Empty::new())
            .map_err(|error| Fault::Broken(format!("{place}{path}: {error}")))?;
        let response = within(STEP_TIME, &place, sender.send_request(request)).await?;
        match response.status() {
            StatusCode::OK => Ok(Body::of(response.into_body())),
            StatusCode::GONE => Err(Fault::Expired),
            status => {
                let reason = Body::of(response.into_body()).reason().await;
                let text = format!("{place} answered {status}{reason}");
                Err(match self.remedy(status) {
                    Some(remedy) => Fault::Refused(format!("{text}: {remedy}")),
                    None => Fault::Broken(text),
                })
            }
        }
    }

    /// What to do about a refusal; `None`: it may pass by itself.
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

    async fn connect(&self, place: &str) -> Result<Box<dyn Stream>, Fault> {
        let stream = within(STEP_TIME, place, TcpStream::connect((self.host.as_str(), self.port))).await?;
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
        let trust = Trust::load(&options).map_err(Fault::Broken)?;
        let secure = trust.towards(&self.host).map_err(|error| Fault::Broken(format!("{place}: {error}")))?;
        let connector = TlsConnector::from(Arc::clone(&secure.config));
        Ok(Box::new(within(STEP_TIME, place, connector.connect(secure.name, stream)).await?))
    }

    fn authorization(&self) -> Result<HeaderValue, Fault> {
        let broken = |error: String| Fault::Broken(format!("{}: {error}", self.token.display()));
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

/// What comes behind the head, whole or by line.
#[derive(Debug)]
pub struct Body {
    body: Incoming,
    buffer: Vec<u8>,
    /// Bytes of it that hold no line feed.
    scanned: usize,
}

impl Body {
    fn of(body: Incoming) -> Self {
        Self { body, buffer: Vec::new(), scanned: 0 }
    }

    /// What the answer to a refused request says, as it stands behind its status; nothing where it says nothing.
    async fn reason(self) -> String {
        let Ok(Ok(body)) = tokio::time::timeout(STEP_TIME, self.whole(REASON_BYTES_MAX)).await else {
            return String::new();
        };
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(message) = json.get("message").and_then(Value::as_str) else { return String::new() };
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        format!(" ({})", message.chars().take(REASON_SHOWN_MAX).map(shown).collect::<String>())
    }

    /// One piece more; false at the end.
    async fn fill(&mut self, bytes_max: usize) -> Result<bool, Fault> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        let frame = frame.map_err(|error| Fault::Broken(error.to_string()))?;
        if let Some(data) = frame.data_ref() {
            if self.buffer.len() + data.len() > bytes_max {
                return Err(Fault::Broken(format!("an answer of more than {bytes_max} bytes")));
            }
            self.buffer.extend_from_slice(data);
        }
        Ok(true)
    }

    /// All of it.
    ///
    /// # Errors
    /// It breaks off, or is too long.
    pub async fn whole(mut self, bytes_max: usize) -> Result<Vec<u8>, Fault> {
        while self.fill(bytes_max).await? {}
        Ok(self.buffer)
    }

    /// The next line, without its end; `None` behind the last.
    ///
    /// # Errors
    /// It breaks off, or is too long.
    pub async fn line(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, Fault> {
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
