//! Pages over HTTP, on a thread of their own: `/` for people, `/metrics`, `/healthz`, `/readyz`, and `/drain`
//! for clients on this machine. It owns the listening socket and watches the heartbeats of the shards; it
//! never touches a shard.
//!
//! Every request has a connection of its own, which is closed after the response. At most [`CONNECTIONS_MAX`]
//! are open; more wait in the kernel's queue until one of them has been answered or has run out of time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use corecached_shard::ConfigError;

use crate::heartbeats::Heartbeats;
use crate::html;
use crate::page::{CLASSIC_CONTENT_TYPE, MetricsPage, classic};
use crate::view::{AdminView, Role};

/// Connections that are answered at once: several times as many as the scrapers and probes of one server
/// open.
const CONNECTIONS_MAX: usize = 32;
/// Limit for reading a request and answering it. The connection is closed past it.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Longest head of a request, bytes: the least that hyper accepts.
const HEAD_BYTES_MAX: usize = 8192;
/// Time between two looks at the turns of the shards.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted, as when no descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// `EX_OSERR` of sysexits.
const EX_OSERR: u8 = 71;

/// The admin server. It listens from [`Admin::bind`] on and answers from [`Admin::run`] on.
#[derive(Debug)]
pub struct Admin {
    listener: std::net::TcpListener,
    /// The address that it listens on; a port of 0 is replaced by the port that the kernel chose.
    pub address: SocketAddr,
}

impl Admin {
    /// Listens on `address`.
    ///
    /// # Errors
    /// The address cannot be listened on; the error names `--admin-listen`.
    pub fn bind(address: SocketAddr) -> Result<Self, ConfigError> {
        let bind = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind().map_err(|error: std::io::Error| {
            let remedy = format!("free it, or listen elsewhere: {error}");
            ConfigError::new("--admin-listen", &address.to_string(), &remedy, EX_OSERR)
        })
    }

    /// Answers requests until the process ends, also while the server stops.
    pub fn run(self, view: AdminView) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = runtime.and_then(|runtime| runtime.block_on(serve(self.listener, view)));
        if let Err(error) = outcome {
            tracing::error!("the admin server ended: {error}");
        }
    }
}

/// What the responses are made from.
struct AdminState {
    view: AdminView,
    page: MetricsPage,
    beats: Mutex<Heartbeats>,
}

async fn serve(listener: std::net::TcpListener, view: AdminView) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let state = Arc::new(AdminState {
        page: MetricsPage::new(&view),
        beats: Mutex::new(Heartbeats::new(view.server.cells.len(), Instant::now())),
        view,
    });
    tokio::spawn(watch_heartbeats(Arc::clone(&state)));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return Ok(()) };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("the admin server cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A client on this machine has a loopback address, or the address that it connected to.
        let is_local = peer.ip().is_loopback() || stream.local_addr().is_ok_and(|own| own.ip() == peer.ip());
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let state = &state;
                async move { Ok::<_, Infallible>(state.answer(request, is_local).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
            let connection = http.serve_connection(TokioIo::new(stream), answer);
            // A client that sends no request in time, or a malformed one, is disconnected.
            let _ = tokio::time::timeout(REQUEST_TIME, connection).await;
            drop(permit);
        });
    }
}

async fn watch_heartbeats(state: Arc<AdminState>) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        every.tick().await;
        let mut beats = state.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.look(&state.view.server.cells, Instant::now());
    }
}

/// A response of plain text.
fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

impl AdminState {
    async fn answer(&self, request: Request<Incoming>, is_local: bool) -> Response<Full<Bytes>> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match (request.uri().path(), request.method()) {
            ("/metrics", _) if reads => self.metrics(knows_openmetrics(request.headers())).await,
            ("/", _) if reads => self.overview(request.uri().query()).await,
            ("/proxy", _) if reads && matches!(self.view.role, Role::Proxy(_)) => {
                self.overview(request.uri().query()).await
            }
            ("/healthz", _) if reads => self.health(),
            ("/readyz", _) if reads => self.readiness(),
            ("/drain", &Method::POST) if is_local => {
                self.view.server.lifecycle.announce_stop();
                tracing::info!("asked to drain: not ready any more, serving until a signal ends it");
                text(StatusCode::OK, "draining\n")
            }
            ("/drain", &Method::POST) => text(StatusCode::FORBIDDEN, "only from this machine\n"),
            ("/" | "/metrics" | "/healthz" | "/readyz", _) => refuse_method("GET"),
            ("/drain", _) => refuse_method("POST"),
            _ => text(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz and /readyz\n"),
        }
    }

    /// `/metrics`, in OpenMetrics format or in the Prometheus text format.
    async fn metrics(&self, open: bool) -> Response<Full<Bytes>> {
        match self.page.render().await {
            Ok(page) => {
                let (body, kind) = match open {
                    true => (page, MetricsPage::CONTENT_TYPE),
                    false => (classic(&page), CLASSIC_CONTENT_TYPE),
                };
                let mut response = text(StatusCode::OK, body);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// `/`: the page for people.
    async fn overview(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        self.view.refresh().await;
        let mut response = text(StatusCode::OK, html::render(&self.view, query));
        for (name, value) in [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, html::POLICY),
            (CACHE_CONTROL, "no-store"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// `/healthz`: whether the process should be left running.
    fn health(&self) -> Response<Full<Bytes>> {
        let stuck = self.beats.lock().unwrap_or_else(PoisonError::into_inner).stuck(Instant::now());
        match stuck.as_slice() {
            [] => text(StatusCode::OK, "ok\n"),
            shards => text(StatusCode::SERVICE_UNAVAILABLE, format!("stuck shards: {shards:?}\n")),
        }
    }

    /// `/readyz`: whether clients should be sent here.
    fn readiness(&self) -> Response<Full<Bytes>> {
        match self.view.server.lifecycle.unready() {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }
}

/// Whether the client takes OpenMetrics: it names that format, or it names no format at all.
fn knows_openmetrics(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().peekable();
    accepted.peek().is_none()
        || accepted
            .any(|value| value.to_str().is_ok_and(|value| value.contains("application/openmetrics-text")))
}

fn refuse_method(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
