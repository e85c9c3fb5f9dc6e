//! From a checked configuration to a running server: limits, sockets, users, files, shards, and the threads
//! beside them.

use std::net::SocketAddr;
use std::sync::Arc;

use corecached_admin::{Admin, AdminView, Role};
use corecached_cache::config::{CacheArgs, CacheConfig, check};
use corecached_cache::{CacheContext, Users, Warm, budget};
use corecached_engine::KeyHasher;
use corecached_net::endpoints::{IoBackend, Listen};
use corecached_net::granted;
use corecached_net::listen::Admission;
use corecached_net::tls::Certificates;
use corecached_net::tls::follow::follow;
use corecached_proxy::{CheckedProxy, Control, Forwarding, ProxyArgs, ProxyView, Spool, Spooler};
use corecached_shard::clock::Clock;
use corecached_shard::config::ServerConfig;
use corecached_shard::counters::Cells;
use corecached_shard::lifecycle::Lifecycle;
use corecached_shard::network::Network;
use corecached_shard::{ConfigError, ServerContext, host_glommio, mesh};

use crate::bind::{Bound, bind};
use crate::control_group::{GroupLimits, cache_megabytes, machine_warning, memory_warning};
use crate::cores;
use crate::error::{EX_OSERR, LaunchError, StartError};
use crate::launch::{Backend, Host, Launch, Secured};
use crate::process::{self, Background, random_seed};
use crate::recipe::{CacheRecipe, ProxyRecipe, Recipe};
use crate::server::{Server, serve};
use crate::udp::Udp;

/// The exit code of memcached when a file that it was given cannot be used.
const EX_FILE: u8 = 1;
/// The exit code of memcached when a file of TLS cannot be used.
const EX_TLS_FILE: u8 = 64;

/// Runs a cache until it is stopped.
///
/// # Errors
/// A setting or the system does not allow the cache to start, or the cache ended early.
pub(crate) fn cache(mut args: CacheArgs) -> Result<(), StartError> {
    // First, so that the process in the terminal says nothing that the other says too.
    let background = args.daemon.then(Background::enter).transpose().map_err(StartError::Daemon)?;
    let limits = GroupLimits::read();
    if args.memory_limit.is_none()
        && let Some(limit_bytes) = limits.memory_bytes
    {
        let megabytes = cache_megabytes(limit_bytes);
        tracing::info!(
            "-m {megabytes} (MB): what the control group's limit of {} MB leaves",
            limit_bytes >> 20
        );
        args.memory_limit = Some(megabytes.to_string());
    }
    let config = check(&args)?;
    if config.server.user.is_none() && process::is_root() {
        tracing::warn!("running as root: name the user to become (-u USER); -u root says that root is meant");
    }
    serve(&config.server.clone(), background, || start_cache(config, limits))
}

/// Runs a proxy until it is stopped.
///
/// # Errors
/// A setting or the system does not allow the proxy to start, or the proxy ended early.
pub(crate) fn proxy(args: &ProxyArgs) -> Result<(), StartError> {
    let mut checked = args.check()?;
    let (spool, spooler) = start_spool(&mut checked).unzip();
    let control = Control::start(&checked)?;
    let forwarding = Arc::new(Forwarding::new(control.snapshot(), checked.upstream.clone(), spooler));
    let reloads = !args.disable_reload_configs;
    let served = serve(&checked.server.clone(), None, || start_proxy(checked, control, forwarding, reloads));
    if let Some(spool) = spool {
        spool.stop();
    }
    served
}

/// Prints the routes of a proxy's configuration.
///
/// # Errors
/// The command line or the configuration is wrong.
pub(crate) fn check_proxy(args: &ProxyArgs) -> Result<(), StartError> {
    println!("{}", Control::check(&args.check()?)?);
    Ok(())
}

/// Starts the spool of failed deletes. `None` when it is not asked for or cannot be started; failed deletes
/// are then answered with the error.
fn start_spool(checked: &mut CheckedProxy) -> Option<(Spool, Spooler)> {
    let options = checked.spool.as_ref()?;
    match Spool::start(options) {
        Ok(started) => Some(started),
        Err(error) => {
            let folder = options.dir.display();
            if options.make {
                tracing::warn!(
                    "--async-dir {folder}: {error}: deletes that fail are answered with the error"
                );
            } else {
                tracing::info!("{folder}: {error}: deletes that fail are answered with the error");
            }
            checked.options.spool_deletes = false;
            None
        }
    }
}

fn start_cache(mut config: CacheConfig, limits: GroupLimits) -> Result<Server, StartError> {
    let plan = cores::plan_cache(&config, limits.cpu_cores);
    let shards = plan.cores.len();
    let beyond =
        memory_warning(config.memory_bytes, &limits).or_else(|| machine_warning(config.memory_bytes));
    let (usable_bytes, unusable) = cores::usable_memory(config.memory_bytes, shards);
    config.memory_bytes = usable_bytes;
    for warning in beyond.iter().chain(&unusable) {
        tracing::warn!("{warning}");
    }
    let mut starting = Starting::new(&config.server, plan, limits)?;
    let udp = bind_udp(&config, &mut starting.bound)?;
    let users = config.auth_file.as_ref().map(|file| {
        Users::read(file, !config.sasl).map_err(|error| {
            let flag = if config.sasl { "MEMCACHED_SASL_PWDB" } else { "-Y" };
            let remedy = format!("give a file of user:password lines: {error}");
            ConfigError::new(flag, &file.display().to_string(), &remedy, EX_FILE)
        })
    });
    let users = users.transpose()?;
    starting.read_files(&config.server)?;
    // Opened after the change of user, so that the file belongs to the user who will write it.
    let warm = config.memory_file.as_ref().map(|file| {
        Warm::open(file, random_seed()).map_err(|error| {
            let remedy = format!("give a file that can be read and written: {error}");
            ConfigError::new("-e", &file.display().to_string(), &remedy, EX_FILE)
        })
    });
    let warm = warm.transpose()?;
    let seed = warm.as_ref().map_or_else(random_seed, Warm::seed);
    let mut context = CacheContext::new(config, shards);
    context.config.shown.port = starting.bound.addresses.first().map_or(0, SocketAddr::port);
    let datagrams = udp.as_ref().map(Udp::addresses).unwrap_or_default();
    context.config.shown.udp_port = datagrams.first().map_or(0, SocketAddr::port);
    context.config.shown.udp_addresses.clone_from(&datagrams);
    context.users = users.map(Arc::new);
    context.warm = warm.map(Arc::new);
    context.certificates.clone_from(&starting.certificates);
    context.memory.set_stores_bytes(budget::initial_stores_bytes(context.config.memory_bytes));
    let context = Arc::new(context);
    let hasher = KeyHasher::new(seed);
    let clock = Arc::new(Clock::start());
    let recipe = CacheRecipe {
        context: Arc::clone(&context),
        hasher: hasher.clone(),
        clock: Arc::clone(&clock),
        shards,
    };
    let (server, hosts) = starting.launch(&context.config.server, recipe, &hasher, &clock, false, false)?;
    let role = format!("{} MB", context.memory.limit_bytes() >> 20);
    let view = starting.view(&context.config.server, server, Role::Cache(Arc::clone(&context)));
    starting.write_ports(&datagrams)?;
    if let Some(udp) = udp {
        tracing::info!("answering datagrams on {datagrams:?}");
        udp.run(&view.server.lifecycle, context.config.udp_reply_max);
    }
    let (watched, server) = (Arc::clone(&context), view.server.clone());
    std::thread::spawn(move || budget::run(&watched.memory, &server));
    let served = Arc::clone(&context);
    std::thread::spawn(move || served.paging.run());
    if context.config.lock_memory
        && let Err(error) = process::lock_memory()
    {
        tracing::warn!(
            "-k: memory is not locked: {error}; lift the limit on locked memory (ulimit -l unlimited, LimitMEMLOCK=infinity in a unit), or leave -k out"
        );
    }
    Ok(starting.finish(&context.config.server, view, hosts, &role))
}

fn start_proxy(
    checked: CheckedProxy,
    control: Control,
    forwarding: Arc<Forwarding>,
    reloads: bool,
) -> Result<Server, StartError> {
    let limits = GroupLimits::read();
    let plan = cores::plan_proxy(&checked.server, limits.cpu_cores);
    let shards = plan.cores.len();
    let mut starting = Starting::new(&checked.server, plan, limits)?;
    starting.read_files(&checked.server)?;
    let view = Arc::new(ProxyView::new(shards));
    let hasher = KeyHasher::new(random_seed());
    let clock = Arc::new(Clock::start());
    control.tell(&view, clock.now_s().into());
    let recipe =
        ProxyRecipe { forwarding: Arc::clone(&forwarding), front: checked.front, view: Arc::clone(&view) };
    let (secures, awaits) = (forwarding.secures(), control.awaits_servers());
    let (server, hosts) = starting.launch(&checked.server, recipe, &hasher, &clock, secures, awaits)?;
    let admin_view = starting.view(&checked.server, server, Role::Proxy(Arc::clone(&view)));
    starting.write_ports(&[])?;
    let server = starting.finish(&checked.server, admin_view, hosts, "proxy");
    let context = server.view.server.clone();
    std::thread::spawn(move || control.run(&context, &view, &forwarding, reloads));
    Ok(server)
}

/// Binds the sockets of `-U`, and lets every shard accept from the listening socket that their requests go
/// to.
fn bind_udp(config: &CacheConfig, bound: &mut Bound) -> Result<Option<Udp>, ConfigError> {
    if config.udp.is_empty() {
        return Ok(None);
    }
    let refused = |what: &str, error: &std::io::Error| {
        ConfigError::new("-U", what, &format!("free it, or give another port: {error}"), EX_OSERR)
    };
    let (udp, inner) = Udp::bind(&config.udp, random_seed())
        .map_err(|(address, error)| refused(&address.to_string(), &error))?;
    bound.add(&inner, config.udp[0].protocol).map_err(|error| refused("", &error))?;
    Ok(Some(udp))
}

/// A server whose shards do not run yet.
struct Starting {
    limits: GroupLimits,
    cores: Vec<core_affinity::CoreId>,
    bound: Bound,
    certificates: Option<Arc<Certificates>>,
    admin: Option<Admin>,
}

impl Starting {
    /// Raises the limit of open files, and binds the listening sockets.
    fn new(config: &ServerConfig, plan: cores::Plan, limits: GroupLimits) -> Result<Self, ConfigError> {
        for note in &plan.notes {
            tracing::warn!("{note}");
        }
        if let Some(warning) = process::raise_descriptors(config.connections_max) {
            tracing::warn!("{warning}");
        }
        let bound = bind(config, plan.cores.len())?;
        Ok(Self { limits, cores: plan.cores, bound, certificates: None, admin: None })
    }

    /// Reads the certificates, binds the socket of the admin server, and then becomes the user of `-u`.
    fn read_files(&mut self, config: &ServerConfig) -> Result<(), ConfigError> {
        if let Some(options) = &config.tls {
            let certificates = Certificates::load(options, self.cores.len())
                .map_err(|error| ConfigError::new("-Z", "", &error.to_string(), EX_TLS_FILE))?;
            self.certificates = Some(Arc::new(certificates));
        }
        self.admin = config.operation.admin_listen.map(Admin::bind).transpose()?;
        process::drop_privileges(config.user.as_deref())
    }

    /// Starts the shards: on io_uring where the configuration and the kernel allow it, else on epoll.
    fn launch<R: Recipe>(
        &self,
        config: &ServerConfig,
        recipe: R,
        hasher: &KeyHasher,
        clock: &Arc<Clock>,
        secures_destinations: bool,
        awaits_servers: bool,
    ) -> Result<(ServerContext, Vec<Host>), ConfigError> {
        let recipe = Arc::new(recipe);
        let secured = (self.certificates.is_some() || secures_destinations).then(|| Secured {
            certificates: self.certificates.clone(),
            usages: self.bound.protocols.iter().map(|protocol| protocol.usage).collect(),
        });
        let run = |backend, name: String| -> Result<(ServerContext, Vec<Host>), LaunchError> {
            let (meshes, presence) = mesh::connect(self.cores.len());
            let lifecycle = Lifecycle::new(presence, config.operation.drain_delay, awaits_servers);
            let context = ServerContext {
                clock: Arc::clone(clock),
                lifecycle: Arc::new(lifecycle),
                network: Arc::new(self.network(config, name)),
                cells: self.cores.iter().map(|_| Cells::default()).collect(),
            };
            let launch = Launch {
                cores: &self.cores,
                bound: &self.bound,
                hasher,
                context: &context,
                secured: secured.clone(),
            };
            let hosts = launch.run(&recipe, meshes, backend)?;
            Ok((context, hosts))
        };
        let first_core = self.cores[0].id;
        let uring = || {
            granted::probe()?;
            host_glommio::probe(first_core).map_err(LaunchError::Executor)?;
            run(Backend::Uring, "io_uring".to_owned())
        };
        let name = match config.io_backend {
            IoBackend::Epoll => "epoll".to_owned(),
            IoBackend::Auto | IoBackend::IoUring => match uring() {
                Ok(launched) => return Ok(launched),
                Err(error) if config.io_backend == IoBackend::IoUring => {
                    let remedy = format!("allow it, or use auto or epoll; this system says: {error}");
                    return Err(ConfigError::new("--io-backend", "io_uring", &remedy, EX_OSERR));
                }
                Err(error) => {
                    tracing::warn!("io_uring is not available ({error}): serving through epoll");
                    format!("epoll (io_uring: {error})")
                }
            },
        };
        run(Backend::Epoll, name)
            .map_err(|error| ConfigError::new("--io-backend", "epoll", &error.to_string(), EX_OSERR))
    }

    fn network(&self, config: &ServerConfig, backend: String) -> Network {
        let addresses = match &config.listen {
            Listen::Tcp(_) => {
                self.bound.addresses.iter().map(corecached_cache::listen_address_text).collect()
            }
            Listen::Unix { path, .. } => [format!("unix:{}", path.display())].into(),
        };
        Network {
            admission: Arc::new(Admission::new(config.connections_max)),
            listeners: self.bound.protocols.clone().into(),
            addresses,
            backend,
            idle_timeout_s: config.idle_timeout_s,
        }
    }

    fn view(&self, config: &ServerConfig, server: ServerContext, role: Role) -> AdminView {
        AdminView {
            server,
            connections_max: config.connections_max,
            memory_limit_bytes: self.limits.memory_bytes,
            cpu_limit_cores: self.limits.cpu_cores,
            certificates: self.certificates.clone(),
            role,
        }
    }

    /// Writes the ports that are listened on to the file that `MEMCACHED_PORT_FILENAME` names.
    fn write_ports(&self, datagrams: &[SocketAddr]) -> Result<(), ConfigError> {
        let admin = self.admin.as_ref().map(|admin| admin.address);
        let named = [("TCP", &self.bound.addresses[..]), ("UDP", datagrams), ("ADMIN", admin.as_slice())];
        process::write_ports(&named)
    }

    /// Starts the threads that every server has in addition to its shards, and logs what runs.
    fn finish(self, config: &ServerConfig, view: AdminView, hosts: Vec<Host>, role: &str) -> Server {
        if let Some(admin) = self.admin {
            tracing::info!("metrics and health on http://{}", admin.address);
            let view = view.clone();
            std::thread::spawn(move || admin.run(view));
        }
        if let Some(certificates) = &self.certificates {
            let (served, woken) = (Arc::clone(certificates), Arc::clone(view.server.lifecycle.presence()));
            std::thread::spawn(move || served.serve_reload_requests(|shard| woken[shard].wake()));
            if certificates.options().watch {
                let followed = Arc::clone(certificates);
                std::thread::spawn(move || follow(&followed));
            }
        }
        let (shards, backend) = (view.server.cells.len(), &view.server.network.backend);
        let place = match &config.listen {
            Listen::Unix { path, .. } => path.display().to_string(),
            Listen::Tcp(_) => format!("{:?}", self.bound.addresses),
        };
        tracing::info!("listening on {place}, {shards} shards, {role}, backend {backend}");
        if !config.without_effect.is_empty() {
            tracing::info!("accepted without effect here: {}", config.without_effect.join(" "));
        }
        let unix_socket = match &config.listen {
            Listen::Unix { path, .. } => Some(path.clone()),
            Listen::Tcp(_) => None,
        };
        Server { view, hosts, unix_socket }
    }
}
