//! The server: listening sockets, one shard a core, and what all of them share.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use corecached_engine::{KeyHasher, Seconds, Store, StoreConfig};
use crossbeam_channel::{Receiver, Sender, bounded};
use sha1::{Digest, Sha1};

use crate::admin::conns::spell_listen;
use crate::admin::crawler::Crawler;
use crate::admin::http::Admin;
use crate::admin::watch::Watch;
use crate::config::{Address, Config, ConfigError, IoBackend, Listen, Serves};
use crate::conn::users::Users;
use crate::metrics::{Cells, Descriptions};
use crate::net::epoll::Epoll;
use crate::net::granted;
use crate::net::listen::{Admission, listen_on_all_shards, listen_on_one_shard, listen_unix};
use crate::net::uring::Uring;
use crate::net::{Driver, DriverSetup};
use crate::proxy::args::STORE_BYTES;
use crate::proxy::chronicle::Chronicle;
use crate::proxy::relay::{RelaySetup, Snapshot, UpstreamOptions};
use crate::proxy::spool::Spooler;
use crate::runtime::clock::Clock;
use crate::runtime::container::{self, Limits};
use crate::runtime::paging::Paging;
use crate::runtime::{budget, cores, host_glommio, host_thread, paging, process};
use crate::shard::mesh::{self, Presence};
use crate::shard::slice::Slices;
use crate::shard::{CoreSetup, Shard};
use crate::tls::follow::follow;
use crate::tls::{Certificates, Tls, Usage};
use crate::udp::Udp;
use crate::warm::Warm;

/// `EX_OSERR` of sysexits: what memcached exits with when it cannot listen.
const EX_OSERR: u8 = 71;
/// What memcached exits with when a file it was given is not what it should be.
const EX_FILE: u8 = 1;
/// What memcached exits with when a file of TLS is not what it should be.
const EX_TLS_FILE: u8 = 64;

/// What a client that chooses its connection by key needs to know (`-o core_ports`).
#[derive(Clone, Debug)]
pub struct CorePorts {
    /// Of a [`KeyHasher`] whose hashes [`crate::shard::owner_of`] takes.
    pub owner_seed: u64,
    /// Where each core alone listens.
    pub ports: Vec<u16>,
}

/// What all shards share. Nothing in it is written on the data path.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// Hashes every key, once.
    pub hasher: KeyHasher,
    /// The time.
    pub clock: Clock,
    /// Published numbers, one a shard.
    pub cells: Box<[Cells]>,
    /// Who may connect.
    pub admission: Arc<Admission>,
    /// What is spoken on each listening socket.
    pub serves: Box<[Serves]>,
    /// The address of each, as `stats conns` spells it.
    pub listens: Box<[String]>,
    /// Who may use it, if not everybody.
    pub users: Option<Arc<Users>>,
    /// Where contents outlive a graceful stop.
    pub warm: Option<Arc<Warm>>,
    /// What secured connections begin with, if there are any.
    pub certificates: Option<Arc<Certificates>>,
    /// How to reach the core that owns a key, if that is to be known.
    pub core_ports: Option<CorePorts>,
    /// Which shards sleep, and how to wake them.
    pub presence: Arc<[Presence]>,
    /// The server is stopping.
    pub stopping: AtomicBool,
    /// Shards that have no connection left while stopping.
    pub drained: AtomicUsize,
    /// How the network is reached, for `stats`.
    pub backend: String,
    /// Bytes for each shard's store: its part of the limit, less what the process takes beside the stores.
    pub slice_bytes: AtomicUsize,
    /// Provides memory ahead of its first use.
    pub paging: Paging,
    /// Lists of all items, as `lru_crawler` makes them.
    pub crawler: Crawler,
    /// Who is told what happens.
    pub watch: Watch,
    /// Of a proxy: configurations that were wrong.
    pub config_failures: AtomicUsize,
    /// Of a proxy: what its control thread did.
    pub chronicle: Chronicle,
    /// Of a proxy: what its shards say of themselves when they are asked.
    pub descriptions: Descriptions,
    /// Times that it was said to read its files again.
    pub reloads: AtomicUsize,
    /// What the control group grants.
    pub limits: Limits,
    /// Of a proxy: a pool has no server yet, and it is waited for.
    awaits_servers: AtomicBool,
    /// When it was announced that the server will stop.
    announced: OnceLock<Instant>,
    verbosity: AtomicU32,
    memory_bytes: AtomicUsize,
}

impl Shared {
    /// What `shards` shards share before they start; `seed` is the hasher's.
    #[must_use]
    pub fn new(config: Config, shards: usize, presence: Arc<[Presence]>, seed: u64, backend: String) -> Self {
        Self {
            descriptions: Descriptions::new(shards),
            reloads: AtomicUsize::new(0),
            limits: Limits::read(),
            awaits_servers: AtomicBool::new(false),
            announced: OnceLock::new(),
            hasher: KeyHasher::new(seed),
            clock: Clock::start(),
            cells: (0..shards).map(|_| Cells::default()).collect(),
            admission: Arc::new(Admission::new(config.connections_max)),
            presence,
            serves: [Serves::default()].into(),
            listens: Box::default(),
            users: None,
            warm: None,
            certificates: None,
            core_ports: None,
            stopping: AtomicBool::new(false),
            drained: AtomicUsize::new(0),
            backend,
            verbosity: AtomicU32::new(config.verbosity),
            memory_bytes: AtomicUsize::new(config.memory_bytes),
            slice_bytes: AtomicUsize::new(config.memory_bytes / shards),
            paging: Paging::default(),
            crawler: Crawler::default(),
            watch: Watch::default(),
            config_failures: AtomicUsize::new(0),
            chronicle: Chronicle::default(),
            config,
        }
    }

    /// Say that the server will stop, and go on serving.
    pub fn announce_stop(&self) {
        self.announced.get_or_init(Instant::now);
    }

    /// What is left of the time between announcement and stop.
    #[must_use]
    pub fn drain_time_left(&self) -> Duration {
        let passed = self.announced.get().map_or(Duration::ZERO, Instant::elapsed);
        self.config.operation.drain_delay.saturating_sub(passed)
    }

    /// Whether clients should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    /// Why clients should not be sent here, if so.
    #[must_use]
    pub fn unready(&self) -> Option<&'static str> {
        if self.announced.get().is_some() || self.stopping.load(Ordering::Relaxed) {
            return Some("draining");
        }
        self.awaits_servers.load(Ordering::Relaxed).then_some("a pool has no server yet")
    }

    /// A proxy need not wait for servers any more before clients are sent to it.
    pub fn servers_are_found(&self) {
        self.awaits_servers.store(false, Ordering::Relaxed);
    }

    /// Stop: accept nothing more, answer what was read, close.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        for presence in self.presence.iter() {
            presence.wake();
        }
    }

    /// Have the stop that follows keep the contents for the next start, if there is a file for them.
    pub fn keep_contents(&self) {
        if let Some(warm) = &self.warm {
            warm.keep_contents();
        }
    }

    /// Read again what may change: certificates, users and their passwords, and what a proxy's control thread reads. What
    /// cannot be read stays as it was.
    pub fn reload(&self) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        if let Some(users) = &self.users {
            match users.reload() {
                Ok(()) => tracing::info!("read {} again", users.file().display()),
                Err(error) => tracing::warn!("{}: {error}: users stay as they were", users.file().display()),
            }
        }
        if let Some(certificates) = &self.certificates {
            match certificates.reload() {
                Ok(()) => tracing::info!("read the certificates again"),
                Err(error) => tracing::warn!("{error}: the certificates stay as they were"),
            }
        }
    }

    /// `-v`, or what `verbosity` set.
    pub fn verbosity(&self) -> u32 {
        self.verbosity.load(Ordering::Relaxed)
    }

    /// See [`Shared::verbosity`].
    pub fn set_verbosity(&self, level: u32) {
        self.verbosity.store(level, Ordering::Relaxed);
    }

    /// `-m`, or what `cache_memlimit` set, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// See [`Shared::memory_bytes`].
    pub fn set_memory_bytes(&self, bytes: usize) {
        self.give_stores(budget::carry_over(self.memory_bytes(), self.stores_bytes(), bytes));
        self.memory_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Of the memory limit, what is left to the stores together, in bytes.
    pub fn stores_bytes(&self) -> usize {
        self.slice_bytes.load(Ordering::Relaxed) * self.cells.len()
    }

    /// See [`Shared::stores_bytes`].
    pub fn give_stores(&self, bytes: usize) {
        self.slice_bytes.store(bytes / self.cells.len(), Ordering::Relaxed);
    }
}

/// How the network is reached, and why.
#[derive(Clone, Copy, Debug)]
enum Backend {
    Uring,
    Epoll,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    hosts: Vec<Host>,
}

#[derive(Debug)]
enum Host {
    Glommio(glommio::ExecutorJoinHandle<std::io::Result<()>>),
    Thread(std::thread::JoinHandle<std::io::Result<()>>),
}

/// What makes a server a proxy.
#[derive(Debug)]
pub struct Forwarding {
    /// Where requests go at first.
    pub snapshot: Arc<Snapshot>,
    /// Of all destinations.
    pub options: UpstreamOptions,
    /// Takes the deletes that no destination takes.
    pub spooler: Option<Spooler>,
    /// Clients should not be sent here until [`Shared::servers_are_found`].
    pub awaits_servers: bool,
    /// Where each shard hears of what follows; filled at start.
    pub subscribers: Mutex<Vec<Sender<Arc<Snapshot>>>>,
}

/// Snapshots under way to one shard.
const SNAPSHOTS_MAX: usize = 16;

impl Forwarding {
    /// Who is to hear of a new snapshot.
    pub fn subscribers(&self) -> MutexGuard<'_, Vec<Sender<Arc<Snapshot>>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one of so many shards.
    fn relay(&self, seed: u64, shards: usize) -> RelaySetup {
        let (sender, updates) = bounded(SNAPSHOTS_MAX);
        self.subscribers().push(sender);
        let (snapshot, mut options) = (Arc::clone(&self.snapshot), self.options.clone());
        options.merge.hot = options.merge.hot.share(shards);
        RelaySetup { snapshot, updates, options, spooler: self.spooler.clone(), seed }
    }
}

/// Start a cache.
///
/// # Errors
/// The first thing that cannot be had: an address, a user, memory, the network backend asked for.
pub fn start(config: Config) -> Result<Server, ConfigError> {
    start_as(config, None)
}

/// Start a cache, or a proxy.
///
/// # Errors
/// As [`start`].
pub fn start_as(config: Config, forwarding: Option<&Forwarding>) -> Result<Server, ConfigError> {
    let limits = Limits::read();
    let plan = cores::plan(&config, limits.cpu_cores)?;
    for note in &plan.notes {
        tracing::warn!("{note}");
    }
    if let Some(warning) =
        container::memory_warning(config.memory_bytes, &limits).filter(|_| !config.is_proxy)
    {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = process::raise_descriptors(&config) {
        tracing::warn!("{warning}");
    }
    let mut bound = bind(&config, plan.cores.len())?;
    if let Some(file) = &config.auth_file {
        let users = Users::read(file).map_err(|error| {
            let flag = if config.sasl { "MEMCACHED_SASL_PWDB" } else { "-Y" };
            let remedy = format!("give a file of user:password lines: {error}");
            ConfigError::new(flag, &file.display().to_string(), &remedy, EX_FILE)
        })?;
        bound.users = Some(Arc::new(users));
    }
    if let Some(options) = &config.tls {
        let certificates = Certificates::load(options, plan.cores.len())
            .map_err(|error| ConfigError::new("-Z", "", &error, EX_TLS_FILE))?;
        bound.certificates = Some(Arc::new(certificates));
    }
    let admin = config.operation.admin_listen.map(Admin::bind).transpose()?;
    process::drop_privileges(&config)?;
    if let Some(file) = &config.memory_file {
        let warm = Warm::open(file, random_seed()).map_err(|error| {
            let remedy = format!("give a file that can be read and written: {error}");
            ConfigError::new("-e", &file.display().to_string(), &remedy, EX_FILE)
        })?;
        bound.warm = Some(Arc::new(warm));
    }
    let first_core = plan.cores[0].id;
    let uring = || -> Result<(), String> {
        granted::probe()?;
        host_glommio::probe(first_core)
    };
    let wanted = config.io_backend;
    let mut config = config;
    config.shown.port = bound.addresses.first().map_or(0, SocketAddr::port);
    let datagrams = bound.udp.as_ref().map(Udp::addresses).unwrap_or_default();
    config.shown.udp_port = datagrams.first().map_or(0, SocketAddr::port);
    let refused = match wanted {
        IoBackend::Epoll => None,
        IoBackend::Auto | IoBackend::IoUring => {
            match uring().and_then(|()| {
                launch(&config, &plan, &bound, forwarding, Backend::Uring, "io_uring".to_owned())
            }) {
                Ok((shared, hosts)) => return finish(shared, bound, hosts, admin),
                Err(reason) => Some(reason),
            }
        }
    };
    let name = match refused {
        Some(reason) if wanted == IoBackend::IoUring => {
            let remedy = format!("allow it, or use auto or epoll; this system says: {reason}");
            return Err(ConfigError::new("--io-backend", "io_uring", &remedy, EX_OSERR));
        }
        Some(reason) => {
            tracing::warn!("io_uring is not available ({reason}): serving through epoll");
            format!("epoll (io_uring: {reason})")
        }
        None => "epoll".to_owned(),
    };
    let (shared, hosts) = launch(&config, &plan, &bound, forwarding, Backend::Epoll, name)
        .map_err(|reason| ConfigError::new("--io-backend", "epoll", &reason, EX_OSERR))?;
    finish(shared, bound, hosts, admin)
}

fn finish(
    shared: Arc<Shared>,
    bound: Bound,
    hosts: Vec<Host>,
    admin: Option<Admin>,
) -> Result<Server, ConfigError> {
    let Bound { addresses, udp, .. } = bound;
    let datagrams = udp.as_ref().map(Udp::addresses).unwrap_or_default();
    let admin_address = admin.as_ref().map(|admin| admin.address);
    let named = [("TCP", &addresses[..]), ("UDP", &datagrams), ("ADMIN", admin_address.as_slice())];
    process::write_ports(&named)?;
    if let Some(udp) = udp {
        tracing::info!("answering datagrams on {datagrams:?}");
        udp.run(&shared);
    }
    if let Some(admin) = admin {
        tracing::info!("metrics and health on http://{}", admin.address);
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || admin.run(&shared));
    }
    if let Some(certificates) = &shared.certificates {
        let (served, woken) = (Arc::clone(certificates), Arc::clone(&shared.presence));
        std::thread::spawn(move || served.serve(|shard| woken[shard].wake()));
        if certificates.options().watch {
            let followed = Arc::clone(certificates);
            std::thread::spawn(move || follow(&followed));
        }
    }
    if !shared.config.is_proxy {
        let watched = Arc::clone(&shared);
        std::thread::spawn(move || budget::run(&watched));
        let served = Arc::clone(&shared);
        std::thread::spawn(move || paging::run(&served));
    }
    if shared.config.lock_memory
        && let Err(error) = process::lock_memory()
    {
        tracing::warn!("-k: memory is not locked: {error}");
    }
    let role = match shared.config.is_proxy {
        true => "proxy".to_owned(),
        false => format!("{} MB", shared.memory_bytes() >> 20),
    };
    let (shards, backend) = (shared.cells.len(), &shared.backend);
    tracing::info!("listening on {addresses:?}, {shards} shards, {role}, backend {backend}");
    if !shared.config.without_effect.is_empty() {
        tracing::info!("accepted without effect here: {}", shared.config.without_effect.join(" "));
    }
    Ok(Server { shared, addresses, hosts })
}

/// What is had before any shard starts: listening sockets, and what is read from files.
struct Bound {
    /// Of each shard.
    sockets: Vec<Vec<OwnedFd>>,
    /// The addresses they got.
    addresses: Vec<SocketAddr>,
    /// What is spoken on each socket of a shard.
    serves: Vec<Serves>,
    /// Where datagrams are answered.
    udp: Option<Udp>,
    /// Where each shard alone listens, if it does.
    core_ports: Vec<u16>,
    /// Who may use it, if not everybody.
    users: Option<Arc<Users>>,
    /// Where contents outlive a graceful stop.
    warm: Option<Arc<Warm>>,
    /// What secured connections begin with.
    certificates: Option<Arc<Certificates>>,
}

/// Listen on every address.
fn bind(config: &Config, shards: usize) -> Result<Bound, ConfigError> {
    let mut sockets: Vec<Vec<OwnedFd>> = (0..shards).map(|_| Vec::new()).collect();
    let (mut bound, mut serves) = (Vec::new(), Vec::new());
    match &config.listen {
        Listen::Tcp(addresses) => {
            for &Address { at: address, serves: of_address } in addresses {
                // Where any port will do, it is the same one for both families.
                let port = match (address.port(), bound.first()) {
                    (0, Some(first)) => SocketAddr::port(first),
                    (port, _) => port,
                };
                let address = SocketAddr::new(address.ip(), port);
                match listen_on_all_shards(address, shards, config.listen_backlog) {
                    Ok((made, address)) => {
                        made.into_iter().zip(&mut sockets).for_each(|(socket, shard)| shard.push(socket));
                        bound.push(address);
                        serves.push(of_address);
                    }
                    // A machine may have no IPv6 at all.
                    Err(_) if config.shown.listen.is_none() && address.is_ipv6() && !bound.is_empty() => {}
                    Err(error) => {
                        let remedy = format!("free it, or listen elsewhere: {error}");
                        return Err(ConfigError::new("-l/-p", &address.to_string(), &remedy, EX_OSERR));
                    }
                }
            }
        }
        Listen::Unix { path, mode, serves: of_socket } => {
            serves.push(*of_socket);
            let refused = |error: std::io::Error| {
                let remedy = format!("give a path where a socket can be made: {error}");
                ConfigError::new("-s", &path.display().to_string(), &remedy, EX_OSERR)
            };
            let socket = listen_unix(path, config.listen_backlog).map_err(refused)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)).map_err(refused)?;
            for shard in &mut sockets {
                shard.push(socket.try_clone().map_err(refused)?);
            }
        }
    }
    let mut udp = None;
    if !config.udp.is_empty() {
        let refused = |what: &str, error: &std::io::Error| {
            ConfigError::new("-U", what, &format!("free it, or give another port: {error}"), EX_OSERR)
        };
        let bound = Udp::bind(&config.udp, random_seed());
        let (made, inner) = bound.map_err(|(address, error)| refused(&address.to_string(), &error))?;
        for shard in &mut sockets {
            shard.push(inner.try_clone().map_err(|error| refused("", &error))?);
        }
        serves.push(Serves { usage: Usage::Plain, ..Serves::default() });
        udp = Some(made);
    }
    let mut core_ports = Vec::new();
    if let (Some(first), Listen::Tcp(addresses)) = (config.core_ports, &config.listen) {
        // As on the first port, whatever else is listened on.
        let alike: Vec<&SocketAddr> =
            bound.iter().filter(|address| address.port() == bound[0].port()).collect();
        serves.extend(alike.iter().map(|_| addresses[0].serves));
        for (shard, sockets) in sockets.iter_mut().enumerate() {
            let mut port = match first {
                0 => 0,
                first => u16::try_from(usize::from(first) + shard).unwrap_or(0),
            };
            for address in &alike {
                let wanted = SocketAddr::new(address.ip(), port);
                let (socket, got) = listen_on_one_shard(wanted, config.listen_backlog).map_err(|error| {
                    let remedy = format!("free it, or give another first port, or 0 for any: {error}");
                    ConfigError::new("-o core_ports", &wanted.to_string(), &remedy, EX_OSERR)
                })?;
                port = got.port();
                sockets.push(socket);
            }
            core_ports.push(port);
        }
    }
    Ok(Bound {
        sockets,
        addresses: bound,
        serves,
        udp,
        core_ports,
        users: None,
        warm: None,
        certificates: None,
    })
}

/// A seed that tells nothing of the one it is made of.
fn owner_seed(seed: u64) -> u64 {
    let digest = Sha1::new().chain_update(b"corecached owner").chain_update(seed.to_le_bytes()).finalize();
    digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// Start every shard on `backend`. When one cannot be made, none runs.
fn launch(
    config: &Config,
    plan: &cores::Plan,
    bound: &Bound,
    forwarding: Option<&Forwarding>,
    backend: Backend,
    backend_name: String,
) -> Result<(Arc<Shared>, Vec<Host>), String> {
    let shards = plan.cores.len();
    let (meshes, presence) = mesh::connect(shards);
    let seed = bound.warm.as_ref().map_or_else(random_seed, |warm| warm.seed());
    let mut shared = Shared::new(config.clone(), shards, presence, seed, backend_name);
    shared.serves = bound.serves.clone().into();
    shared.listens = match &config.listen {
        Listen::Tcp(_) => bound.addresses.iter().map(spell_listen).collect(),
        Listen::Unix { path, .. } => [format!("unix:{}", path.display())].into(),
    };
    if !bound.core_ports.is_empty() {
        let owner_seed = owner_seed(seed);
        shared.hasher = KeyHasher::new(seed).with_owner_seed(owner_seed);
        shared.core_ports = Some(CorePorts { owner_seed, ports: bound.core_ports.clone() });
    }
    shared.users.clone_from(&bound.users);
    shared.warm.clone_from(&bound.warm);
    shared.certificates.clone_from(&bound.certificates);
    if !config.is_proxy {
        shared.give_stores(budget::given_at_first(config.memory_bytes));
    }
    shared.awaits_servers = forwarding.is_some_and(|forwarding| forwarding.awaits_servers).into();
    let shared = Arc::new(shared);
    let (report, reports) = bounded::<Result<(), String>>(shards);
    let slices = Slices::new(shards);
    let mut hosts = Vec::new();
    let mut starts: Vec<Sender<()>> = Vec::new();
    for (mesh, core) in meshes.into_iter().zip(&plan.cores) {
        let (start, started) = bounded(1);
        starts.push(start);
        let setup = DriverSetup {
            listeners: duplicate(&bound.sockets[mesh.me()]).map_err(|error| error.to_string())?,
            admission: Arc::clone(&shared.admission),
            receives_values: forwarding.is_some(),
        };
        let name = format!("shard-{}", mesh.me());
        let (slices, shared, report) = (slices.clone(), Arc::clone(&shared), report.clone());
        let relay = forwarding.map(|forwarding| forwarding.relay(random_seed(), mesh.shards()));
        let making = Making { setup, mesh, slices, shared, relay, report, started };
        let core = *core;
        // Whoever has no TLS runs no line of it.
        hosts.push(match (backend, secured(&making.shared, making.relay.as_ref())) {
            (Backend::Uring, None) => {
                Host::Glommio(host_glommio::spawn(core.id, &name, move || making.make(Uring::new))?)
            }
            (Backend::Uring, Some((certificates, usages))) => {
                let over = |setup| Ok(Tls::new(Uring::new(setup)?, certificates, usages));
                Host::Glommio(host_glommio::spawn(core.id, &name, move || making.make(over))?)
            }
            (Backend::Epoll, None) => {
                Host::on_thread(name, core, move || making.make(Epoll::new).map_or(Ok(()), host_thread::run))?
            }
            (Backend::Epoll, Some((certificates, usages))) => Host::on_thread(name, core, move || {
                let over = |setup| Ok(Tls::new(Epoll::new(setup)?, certificates, usages));
                making.make(over).map_or(Ok(()), host_thread::run)
            })?,
        });
    }
    drop(report);
    // Every shard reports before any runs; dropping `starts` ends those that wait.
    for _ in 0..shards {
        reports.recv().map_err(|_| "a shard ended at start".to_owned())??;
    }
    if let Some(warm) = &bound.warm {
        warm.consumed(shards).map_err(|error| format!("-e: {error}"))?;
    }
    for start in starts {
        let _ = start.send(());
    }
    Ok((shared, hosts))
}

/// What clients are shown, if anything, and how connections of each listening socket are secured.
type Secured = (Option<Arc<Certificates>>, Box<[Usage]>);

/// What secures connections; `None` where none ever is.
fn secured(shared: &Shared, relay: Option<&RelaySetup>) -> Option<Secured> {
    let secures = shared.certificates.is_some() || relay.is_some_and(|relay| relay.snapshot.trust.is_some());
    let usages = shared.serves.iter().map(|serves| serves.usage).collect();
    secures.then(|| (shared.certificates.clone(), usages))
}

impl Host {
    fn on_thread(
        name: String,
        core: core_affinity::CoreId,
        run: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> Result<Self, String> {
        let pinned = move || {
            core_affinity::set_for_current(core);
            run()
        };
        let started = std::thread::Builder::new().name(name).spawn(pinned);
        started.map(Self::Thread).map_err(|error| error.to_string())
    }
}

/// What a shard's thread makes it from.
struct Making {
    setup: DriverSetup,
    mesh: mesh::Mesh,
    slices: Slices<Store>,
    shared: Arc<Shared>,
    relay: Option<RelaySetup>,
    report: Sender<Result<(), String>>,
    started: Receiver<()>,
}

impl Making {
    /// Build the shard on its own thread, report, and wait for the others; `None` when one of them failed.
    fn make<D: Driver>(self, driver: impl FnOnce(DriverSetup) -> std::io::Result<D>) -> Option<Shard<D>> {
        let Self { setup, mesh, slices, shared, relay, report, started } = self;
        let config = &shared.config;
        let mut store = StoreConfig::new(config.memory_bytes / mesh.shards(), shared.hasher.clone());
        store.value_bytes_max = config.item_bytes_max;
        if config.is_proxy {
            // Not used: the proxy keeps nothing.
            store = StoreConfig::new(STORE_BYTES, shared.hasher.clone());
        }
        store.evict = config.evict;
        store.policy.weight = config.policy_weight;
        store.cas = config.cas;
        let made = Store::new(store, Seconds(shared.clock.now_s()))
            .map_err(|error| error.to_string())
            .and_then(|mut store| {
                let now = Seconds(shared.clock.now_s());
                if !config.is_proxy {
                    // Refused when the largest item would not fit any more: then it keeps all.
                    let _ = store.set_memory_bytes(shared.slice_bytes.load(Ordering::Relaxed), now);
                }
                if let Some(warm) = &shared.warm {
                    warm.load(mesh.me(), mesh.shards(), &shared.hasher, &mut store, now);
                }
                let driver = driver(setup).map_err(|error| error.to_string())?;
                Ok(Shard::new(driver, CoreSetup { mesh, store, slices, shared: Arc::clone(&shared), relay }))
            });
        match made {
            Ok(shard) => {
                let _ = report.send(Ok(()));
                drop(report);
                started.recv().ok().map(|()| shard)
            }
            Err(reason) => {
                let _ = report.send(Err(reason));
                None
            }
        }
    }
}

fn duplicate(sockets: &[OwnedFd]) -> std::io::Result<Vec<OwnedFd>> {
    sockets.iter().map(|socket| socket.as_fd().try_clone_to_owned()).collect()
}

/// From the kernel's random numbers, by way of the standard library's hasher keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What its shards share; [`Shared::stop`] stops it.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Until it has stopped.
    ///
    /// # Errors
    /// What ended a shard early.
    pub fn wait(self) -> std::io::Result<()> {
        let mut outcome = Ok(());
        for host in self.hosts {
            let ended = match host {
                Host::Glommio(handle) => {
                    handle.join().unwrap_or_else(|error| Err(std::io::Error::other(error.to_string())))
                }
                Host::Thread(handle) => {
                    handle.join().unwrap_or_else(|_| Err(std::io::Error::other("a shard panicked")))
                }
            };
            if let Err(error) = ended {
                tracing::error!("a shard ended: {error}");
                self.shared.stop();
                outcome = Err(error);
            }
        }
        if let (Some(warm), Ok(())) = (&self.shared.warm, &outcome) {
            warm.conclude();
        }
        if let Listen::Unix { path, .. } = &self.shared.config.listen {
            let _ = std::fs::remove_file(path);
        }
        outcome
    }
}
