//! Pages over HTTP, on a thread of their own: `/` for people, `/metrics`, `/healthz`, `/readyz`, and `/drain` for whoever
//! is on this machine. Owns the listening socket and the look at the shards' heartbeats; never touches a shard.
//!
//! Every request has a connection of its own, which is closed after the answer. At most [`CONNECTIONS_MAX`] are open;
//! more wait in the kernel's queue until one has been answered or has run out of time.

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

/// Connections answered at once: several times what scrapers and probes of one server come to.
pub const CONNECTIONS_MAX: usize = 32;
/// A request must have been read and answered within this time.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Bytes of a request's head: the least that the library takes.
const HEAD_BYTES_MAX: usize = 8192;
/// Time between two looks at the shards.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause when no connection can be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// `EX_OSERR` of sysexits.
const EX_OSERR: u8 = 71;

/// A socket that listens, before there is anything to tell.
#[derive(Debug)]
pub struct Admin {
    listener: std::net::TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Admin {
    /// Listen on `address`.
    ///
    /// # Errors
    /// When it cannot be had.
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

    /// Answer for as long as the process lives, also while it stops.
    pub fn run(self, view: AdminView) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = runtime.and_then(|runtime| runtime.block_on(serve(self.listener, view)));
        if let Err(error) = outcome {
            tracing::error!("the admin server ended: {error}");
        }
    }
}

/// What requests are answered from.
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
    tokio::spawn(look(Arc::clone(&state)));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("the admin server cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A client on this machine, whatever address of it the server listens on.
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
            // Whoever does not ask in time, or asks nonsense, is cut off.
            let _ = tokio::time::timeout(REQUEST_TIME, connection).await;
            drop(place);
        });
    }
}

async fn look(state: Arc<AdminState>) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        every.tick().await;
        let mut beats = state.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.look(&state.view.server.cells, Instant::now());
    }
}

/// An answer as plain text.
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

    /// The page for people.
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

    /// Whether the process should go on at all.
    fn health(&self) -> Response<Full<Bytes>> {
        let stuck = self.beats.lock().unwrap_or_else(PoisonError::into_inner).stuck(Instant::now());
        match stuck.as_slice() {
            [] => text(StatusCode::OK, "ok\n"),
            shards => text(StatusCode::SERVICE_UNAVAILABLE, format!("stuck shards: {shards:?}\n")),
        }
    }

    /// Whether clients should be sent here.
    fn readiness(&self) -> Response<Full<Bytes>> {
        match self.view.server.lifecycle.unready() {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }
}

/// Whoever says what it accepts, and does not name OpenMetrics, gets the older format.
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
