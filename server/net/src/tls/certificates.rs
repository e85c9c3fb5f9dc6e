//! The server's certificates and what clients must show: read at start, and again on SIGHUP, `refresh_certs`, or when
//! [`super::follow`] finds that they changed.
//!
//! What is read becomes one immutable value; a shard takes the newest when a client connects, and connections keep the
//! one they began with. A file that cannot be used leaves everything as it was. Tickets are made with keys that all
//! shards share, so that a session resumes on any of them; they outlive a reload unless whom to trust has changed.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::{RootCertStore, ServerConfig};

use super::ciphers;
use super::files::{fingerprint, read};
use super::options::{KeyFormat, TlsOptions, Usage, Verify};
use crate::driver::ConnId;

/// Sessions remembered with `-o ssl_session_cache`, for clients that know no tickets.
const SESSIONS_MAX: usize = 20_480;
/// `refresh_certs` that wait for the control thread; more are told to come again.
const ASKS_MAX: usize = 64;

/// What connections begin with, as it was read last.
#[derive(Debug)]
pub struct Loaded {
    default: Arc<ServerConfig>,
    basic: Arc<ServerConfig>,
    mutual: Option<Arc<ServerConfig>>,
    tickets: Tickets,
    /// The file of authorities, which decides whether tickets stay good.
    authorities: Vec<u8>,
    at: Instant,
}

impl Loaded {
    /// What a connection of this kind begins with; `None` is plain.
    #[must_use]
    pub fn of(&self, usage: Usage) -> Option<&Arc<ServerConfig>> {
        match usage {
            Usage::Plain => None,
            Usage::Default => Some(&self.default),
            Usage::Basic => Some(&self.basic),
            Usage::Mutual => self.mutual.as_ref(),
        }
    }
}

/// Keys of tickets, of each kind its own: one that was given out where no certificate is asked for must not open a
/// connection where one is.
#[derive(Clone, Debug)]
struct Tickets([Arc<dyn ProducesTickets>; 3]);

impl Tickets {
    fn new() -> Result<Self, String> {
        let made = || ring::Ticketer::new().map_err(|error| format!("no keys for tickets: {error}"));
        Ok(Self([made()?, made()?, made()?]))
    }
}

/// What happened on secured connections.
#[derive(Debug, Default)]
pub struct Counts {
    /// Full handshakes: sessions that were not resumed.
    pub new_sessions: AtomicU64,
    /// Handshakes that came to nothing.
    pub handshake_errors: AtomicU64,
    /// Handshakes that were not done in time.
    pub handshake_timeouts: AtomicU64,
    /// Connections that broke the protocol behind the handshake.
    pub proto_errors: AtomicU64,
}

impl Counts {
    /// `stats reset`
    pub fn reset(&self) {
        let errors = [&self.handshake_errors, &self.handshake_timeouts, &self.proto_errors];
        for count in errors.into_iter().chain([&self.new_sessions]) {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// See the head of the file.
#[derive(Debug)]
pub struct Certificates {
    options: TlsOptions,
    loaded: RwLock<Arc<Loaded>>,
    /// Of what the files held when they were last read, good or not. Held while they are read, so that what was read last
    /// stays.
    fingerprint: Mutex<u64>,
    /// Raised by each reload that succeeded.
    generation: AtomicU64,
    /// See [`Counts`].
    pub counts: Arc<Counts>,
    asks: (Sender<Ask>, Receiver<Ask>),
    answers: Box<[(Sender<Answer>, Receiver<Answer>)]>,
}

/// Which connection of which shard waits.
type Ask = (usize, ConnId);
/// What to tell it.
type Answer = (ConnId, Vec<u8>);

impl Certificates {
    /// What `options` name, for so many shards.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(options: &TlsOptions, shards: usize) -> Result<Self, String> {
        let fingerprint = Mutex::new(fingerprint(options.files()));
        let loaded = RwLock::new(Arc::new(load(options, None)?));
        Ok(Self {
            options: options.clone(),
            loaded,
            fingerprint,
            generation: AtomicU64::new(0),
            counts: Arc::default(),
            asks: bounded(ASKS_MAX),
            answers: (0..shards).map(|_| bounded(ASKS_MAX)).collect(),
        })
    }

    /// What they are read from.
    #[must_use]
    pub fn options(&self) -> &TlsOptions {
        &self.options
    }

    /// Read the files again.
    ///
    /// # Errors
    /// As [`Certificates::load`]; then everything stays as it was.
    pub fn reload(&self) -> Result<(), String> {
        self.reload_if(|_, _| true).map(|_| ())
    }

    /// Reads the files again, and says in the log what came of it.
    pub fn reload_or_warn(&self) {
        match self.reload() {
            Ok(()) => tracing::info!("read the certificates again"),
            Err(error) => tracing::warn!("{error}: the certificates stay as they were"),
        }
    }

    /// Read the files again, if they changed; whether they did.
    ///
    /// # Errors
    /// As [`Certificates::reload`]. Told once for each change.
    pub fn reload_changed(&self) -> Result<bool, String> {
        self.reload_if(|before, now| before != now)
    }

    fn reload_if(&self, wanted: impl FnOnce(u64, u64) -> bool) -> Result<bool, String> {
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

    /// What was read last.
    #[must_use]
    pub fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes with [`Certificates::current`].
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Seconds since the files were read.
    #[must_use]
    pub fn age_s(&self) -> u64 {
        self.current().at.elapsed().as_secs()
    }

    /// Have the control thread read the files again and tell the connection. False when too many wait for that.
    pub fn ask(&self, shard: usize, conn: ConnId) -> bool {
        self.asks.0.try_send((shard, conn)).is_ok()
    }

    /// What one of this shard's connections waits for.
    pub fn answer(&self, shard: usize) -> Option<Answer> {
        self.answers[shard].1.try_recv().ok()
    }

    /// On the control thread: answer [`Certificates::ask`] for ever. `wake` is called with the shard to tell.
    pub fn serve(&self, wake: impl Fn(usize)) {
        while let Ok((shard, conn)) = self.asks.1.recv() {
            let answer = match self.reload() {
                Ok(()) => {
                    tracing::info!("read the certificates again");
                    corecached_protocol::line::OK.to_vec()
                }
                Err(error) => {
                    tracing::warn!("{error}: the certificates stay as they were");
                    format!("{error}\r\n").into_bytes()
                }
            };
            // As many fit as may ask, and a shard that is gone asks no more.
            if self.answers[shard].0.send((conn, answer)).is_ok() {
                wake(shard);
            }
        }
    }
}

fn load(options: &TlsOptions, before: Option<&Loaded>) -> Result<Loaded, String> {
    let named = |option: &str, path: &Path| {
        let option = option.to_owned();
        let path = path.display().to_string();
        move |error: String| format!("-o {option}={path}: {error}")
    };
    let chain_error = named("ssl_chain_cert", &options.chain);
    let chain_file = read(&options.chain).map_err(&chain_error)?;
    let chain = certificates(&chain_file).map_err(&chain_error)?;
    let (key_path, key_option) = match &options.key {
        Some(path) => (path, "ssl_key"),
        None => (&options.chain, "ssl_chain_cert"),
    };
    let key_error = named(key_option, key_path);
    let key = read(key_path).and_then(|bytes| key(bytes, options.key_format)).map_err(&key_error)?;
    let authorities = match &options.authorities {
        Some(path) => read(path).map_err(named("ssl_ca_cert", path))?,
        None => Vec::new(),
    };
    let tickets = match before {
        Some(before) if before.authorities == authorities => before.tickets.clone(),
        _ => Tickets::new()?,
    };
    let provider =
        Arc::new(CryptoProvider { cipher_suites: options.suites.clone(), ..ring::default_provider() });
    let roots = match &options.authorities {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&authorities).map_err(named("ssl_ca_cert", path))? {
                let added = roots.add(certificate).map_err(|error| error.to_string());
                added.map_err(named("ssl_ca_cert", path))?;
            }
            Some(Arc::new(roots))
        }
        None => None,
    };
    let config = |verify: Verify, tickets: &Arc<dyn ProducesTickets>| -> Result<Arc<ServerConfig>, String> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&ciphers::versions(options.only_13))
            .map_err(|error| format!("-o ssl_ciphers: {error}"))?;
        let verifier = |roots: &Arc<RootCertStore>| {
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider));
            let builder = if verify == Verify::Require { builder } else { builder.allow_unauthenticated() };
            builder.build().map_err(|error| format!("-o ssl_ca_cert: {error}"))
        };
        let builder = match (verify, &roots) {
            (Verify::Ask | Verify::Require, Some(roots)) => {
                builder.with_client_cert_verifier(verifier(roots)?)
            }
            (Verify::No, _) => builder.with_no_client_auth(),
            (_, None) => return Err("-o ssl_ca_cert: name a file of authorities".to_owned()),
        };
        let made = builder.with_single_cert(chain.clone(), key.clone_key());
        let mut config = made.map_err(|error| key_error(format!("not of the certificate: {error}")))?;
        config.ticketer = Arc::clone(tickets);
        config.session_storage = if options.session_cache {
            ServerSessionMemoryCache::new(SESSIONS_MAX)
        } else {
            Arc::new(NoServerSessionStorage {})
        };
        Ok(Arc::new(config))
    };
    let [of_default, of_basic, of_mutual] = &tickets.0;
    Ok(Loaded {
        default: config(options.verify, of_default)?,
        basic: config(Verify::No, of_basic)?,
        mutual: roots.is_some().then(|| config(Verify::Require, of_mutual)).transpose()?,
        tickets,
        authorities,
        at: Instant::now(),
    })
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no certificate in PEM format in it".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("not certificates in PEM format: {error}")),
    }
}

pub(super) fn key(bytes: Vec<u8>, format: KeyFormat) -> Result<PrivateKeyDer<'static>, String> {
    match format {
        KeyFormat::Pem => PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                "there is no private key in PEM format in it, at least none without a passphrase".to_owned()
            }
            error => format!("not a private key in PEM format: {error}"),
        }),
        KeyFormat::Der => {
            PrivateKeyDer::try_from(bytes).map_err(|error| format!("not a private key: {error}"))
        }
    }
}
