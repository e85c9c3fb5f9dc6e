//! A server's certificates and what clients must show: read at start, and again on SIGHUP, `refresh_certs`,
//! or when [`super::follow`] finds that they changed.
//!
//! What is read becomes one immutable value; a shard takes the newest when a client connects, and connections
//! keep the one they began with. A file that cannot be used leaves everything as it was. Tickets are made
//! with keys that all shards share, so that a session resumes on any of them; the keys outlive a reload
//! unless the authorities have changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::{RootCertStore, ServerConfig};

use super::ciphers;
use super::error::{TlsError, TlsFileError, of_suboption};
use super::files::{certificates, fingerprint, identity, key, read};
use super::options::{TlsOptions, Usage, Verify};
use super::p521;
use crate::driver::ConnId;

/// Sessions remembered with `-o ssl_session_cache`, for clients that know no tickets.
const SESSIONS_MAX: usize = 20_480;
/// `refresh_certs` that may be pending; further ones are refused.
const RELOAD_REQUESTS_MAX: usize = 64;

/// What connections of clients begin with, as the files were when they were last read and good.
#[derive(Debug)]
pub(super) struct LoadedCertificates {
    default: Arc<ServerConfig>,
    basic: Arc<ServerConfig>,
    mutual: Option<Arc<ServerConfig>>,
    tickets: TicketKeys,
    /// What the file of authorities held: tickets stay good while it is the same.
    authorities: Vec<u8>,
    read_at: Instant,
}

impl LoadedCertificates {
    /// What a connection that is secured like this begins with; `None` when it is plain, or nobody can be
    /// verified.
    pub(super) fn for_usage(&self, usage: Usage) -> Option<&Arc<ServerConfig>> {
        match usage {
            Usage::Plain => None,
            Usage::Default => Some(&self.default),
            Usage::Basic => Some(&self.basic),
            Usage::Mutual => self.mutual.as_ref(),
        }
    }
}

/// Keys that tickets are encrypted with, in the order default, basic, mutual. Each usage has its own: a
/// ticket that was given out where no certificate is asked for must not open a connection where one is.
#[derive(Clone, Debug)]
struct TicketKeys([Arc<dyn ProducesTickets>; 3]);

impl TicketKeys {
    fn new() -> Result<Self, TlsError> {
        let made = || ring::Ticketer::new().map_err(TlsError::TicketKeys);
        Ok(Self([made()?, made()?, made()?]))
    }
}

/// Counters of what happened on secured connections, over all shards.
#[derive(Debug, Default)]
pub struct TlsCounters {
    /// Full handshakes: sessions that were not resumed.
    pub new_sessions: AtomicU64,
    /// Handshakes that failed.
    pub handshake_errors: AtomicU64,
    /// Handshakes that were not done in time.
    pub handshake_timeouts: AtomicU64,
    /// Connections that broke the protocol after the handshake.
    pub proto_errors: AtomicU64,
}

impl TlsCounters {
    /// Counts from zero again, as `stats reset` asks.
    pub fn reset(&self) {
        let errors = [&self.handshake_errors, &self.handshake_timeouts, &self.proto_errors];
        for count in errors.into_iter().chain([&self.new_sessions]) {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// A server's certificates, which can be read again while it runs. Shared by shards and control threads.
#[derive(Debug)]
pub struct Certificates {
    options: TlsOptions,
    loaded: RwLock<Arc<LoadedCertificates>>,
    /// Hash of what the files held when they were last read, good or not. Locked while they are read, so that
    /// an earlier reading cannot replace a later one.
    fingerprint: Mutex<u64>,
    /// Raised by each reload that succeeded.
    generation: AtomicU64,
    /// What happened on secured connections.
    pub counters: Arc<TlsCounters>,
    reload_requests: (Sender<ReloadRequest>, Receiver<ReloadRequest>),
    /// The results for each shard.
    reload_results: Box<[(Sender<ReloadResult>, Receiver<ReloadResult>)]>,
}

/// A connection, with its shard, that waits for the result of a reload.
type ReloadRequest = (usize, ConnId);
/// A connection, and the reply line it gets.
type ReloadResult = (ConnId, Vec<u8>);

impl Certificates {
    /// Reads the files that `options` name, for a server of `shards` shards.
    ///
    /// # Errors
    /// The first file or option that cannot be used, and why.
    pub fn load(options: &TlsOptions, shards: usize) -> Result<Self, TlsError> {
        let fingerprint = Mutex::new(fingerprint(options.files()));
        let loaded = RwLock::new(Arc::new(load(options, None)?));
        Ok(Self {
            options: options.clone(),
            loaded,
            fingerprint,
            generation: AtomicU64::new(0),
            counters: Arc::default(),
            reload_requests: bounded(RELOAD_REQUESTS_MAX),
            reload_results: (0..shards).map(|_| bounded(RELOAD_REQUESTS_MAX)).collect(),
        })
    }

    /// The options that name the files.
    #[must_use]
    pub fn options(&self) -> &TlsOptions {
        &self.options
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Certificates::load`]; then everything stays as it was.
    fn reload(&self) -> Result<(), TlsError> {
        self.reload_if(|_, _| true).map(|_| ())
    }

    /// Reads the files again, and logs the result.
    pub fn reload_or_warn(&self) {
        match self.reload() {
            Ok(()) => tracing::info!("read the certificates again"),
            Err(error) => tracing::warn!("{error}: the certificates stay as they were"),
        }
    }

    /// Reads the files again if they changed, and returns whether they did.
    ///
    /// # Errors
    /// As [`Certificates::load`], once for each change; then everything stays as it was.
    pub(super) fn reload_changed(&self) -> Result<bool, TlsError> {
        self.reload_if(|before, now| before != now)
    }

    fn reload_if(&self, wanted: impl FnOnce(u64, u64) -> bool) -> Result<bool, TlsError> {
        let mut known = self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner);
        let now = fingerprint(self.options.files());
        let before = std::mem::replace(&mut *known, now);
        if !wanted(before, now) {
            return Ok(false);
        }
        let loaded = Arc::new(load(&self.options, Some(&self.current()))?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(true)
    }

    /// What was read last, of files that were good.
    pub(super) fn current(&self) -> Arc<LoadedCertificates> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that changes whenever [`Certificates::current`] does.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Seconds since the files were last read and good.
    #[must_use]
    pub fn age_s(&self) -> u64 {
        self.current().read_at.elapsed().as_secs()
    }

    /// Has the control thread read the files again, for a connection that waits for the result. False when
    /// too many requests are pending.
    pub fn request_reload(&self, shard: usize, conn: ConnId) -> bool {
        self.reload_requests.0.try_send((shard, conn)).is_ok()
    }

    /// The next result for this shard: the connection that waits for it, and the reply line.
    pub fn take_reload_result(&self, shard: usize) -> Option<(ConnId, Vec<u8>)> {
        self.reload_results[shard].1.try_recv().ok()
    }

    /// Serves [`Certificates::request_reload`] for ever, on a control thread. `wake` is called with the shard
    /// that a result is for.
    pub fn serve_reload_requests(&self, wake: impl Fn(usize)) {
        while let Ok((shard, conn)) = self.reload_requests.1.recv() {
            let reply = match self.reload() {
                Ok(()) => {
                    tracing::info!("read the certificates again");
                    corecached_protocol::line::OK.to_vec()
                }
                Err(error) => {
                    tracing::warn!("{error}: the certificates stay as they were");
                    format!("{error}\r\n").into_bytes()
                }
            };
            // Full of results that a shard has not taken, this waits for the shard, and requests are refused
            // meanwhile.
            if self.reload_results[shard].0.send((conn, reply)).is_ok() {
                wake(shard);
            }
        }
    }
}

fn load(options: &TlsOptions, before: Option<&LoadedCertificates>) -> Result<LoadedCertificates, TlsError> {
    let chain_error = of_suboption("ssl_chain_cert", &options.chain);
    let chain_file = read(&options.chain).map_err(&chain_error)?;
    let chain = certificates(&chain_file).map_err(&chain_error)?;
    let (key_path, key_option) = match &options.key {
        Some(path) => (path, "ssl_key"),
        None => (&options.chain, "ssl_chain_cert"),
    };
    let key_error = of_suboption(key_option, key_path);
    let key = read(key_path).and_then(|bytes| key(&bytes, options.key_format)).map_err(&key_error)?;
    let shown = identity(chain, chain_error, &key, key_error)?;
    let authorities = match &options.authorities {
        Some(path) => read(path).map_err(of_suboption("ssl_ca_cert", path))?,
        None => Vec::new(),
    };
    let tickets = match before {
        Some(before) if before.authorities == authorities => before.tickets.clone(),
        _ => TicketKeys::new()?,
    };
    let provider = Arc::new(CryptoProvider { cipher_suites: options.suites.clone(), ..p521::provider() });
    let roots = match &options.authorities {
        Some(path) => {
            let authorities_error = of_suboption("ssl_ca_cert", path);
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&authorities).map_err(&authorities_error)? {
                let added = roots.add(certificate).map_err(TlsFileError::Authority);
                added.map_err(&authorities_error)?;
            }
            Some(Arc::new(roots))
        }
        None => None,
    };
    let config = |verify: Verify,
                  tickets: &Arc<dyn ProducesTickets>|
     -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&ciphers::versions(options.only_13))
            .map_err(TlsError::Versions)?;
        let verifier = |roots: &Arc<RootCertStore>| {
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider));
            let builder = if verify == Verify::Require { builder } else { builder.allow_unauthenticated() };
            builder.build().map_err(TlsError::ClientVerifier)
        };
        let builder = match (verify, &roots) {
            (Verify::Ask | Verify::Require, Some(roots)) => {
                builder.with_client_cert_verifier(verifier(roots)?)
            }
            (Verify::No, _) => builder.with_no_client_auth(),
            (_, None) => return Err(TlsError::NoAuthorities),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&shown) as _);
        config.ticketer = Arc::clone(tickets);
        config.session_storage = if options.session_cache {
            ServerSessionMemoryCache::new(SESSIONS_MAX)
        } else {
            Arc::new(NoServerSessionStorage {})
        };
        Ok(Arc::new(config))
    };
    let [of_default, of_basic, of_mutual] = &tickets.0;
    Ok(LoadedCertificates {
        default: config(options.verify, of_default)?,
        basic: config(Verify::No, of_basic)?,
        mutual: roots.is_some().then(|| config(Verify::Require, of_mutual)).transpose()?,
        tickets,
        authorities,
        read_at: Instant::now(),
    })
}
