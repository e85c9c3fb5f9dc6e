//! The control thread of a proxy. It reads the configuration, finds the addresses of the servers in it,
//! watches both and the files of TLS towards destinations, and sends a new [`Snapshot`] to every shard when
//! one of them has changed. When something new cannot be used, what was in use before remains in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use crate::args::CheckedProxy;
use crate::config::{Config, Member, Rings};
use crate::discovery::{Dns, Finders, Found};
use crate::forwarding::Forwarding;
use crate::ready_wait::ReadyWait;
use crate::relay::Snapshot;
use crate::route::Tree;
use crate::service_info::ConfigInfo;
use crate::source::{EX_CONFIG, Source};
use crate::view::ProxyView;
use corecached_net::tls::ReloadableTrust;
use corecached_net::watch_files::WatchedFiles;
use corecached_shard::{ConfigError, ServerContext};

/// How often names are looked up if a pool stands for all servers of a name: a change must be seen within a
/// second.
const RESOLVE_EVERY: Duration = Duration::from_millis(500);
/// How often the names of plain pools are looked up: a pod that was restarted has another address.
const LOOK_UP_EVERY: Duration = Duration::from_secs(2);
/// How often the configuration is kept anew, so that what is in use is never old.
const KEEP_EVERY: Duration = Duration::from_secs(600);
/// How often the thread checks whether the server stops or was told to read its files.
const TICK: Duration = Duration::from_millis(100);
/// Most notices in a channel: one is enough to wake the thread.
const NOTICES_MAX: usize = 1;
/// How long the thread waits for further changes before it acts on them: all routes are built again each
/// time.
const GATHER_TIME: Duration = Duration::from_millis(20);

/// The control thread, with the configuration it has read and the addresses it has found.
#[derive(Debug)]
pub struct Control {
    source: Source,
    /// When the configuration was last kept for a start with one that cannot be used.
    kept_at: Instant,
    /// `config` is what the shards use.
    is_in_use: bool,
    reload_delay: Duration,
    /// The files of TLS towards destinations.
    trusted: Option<ReloadableTrust>,
    finders: Finders,
    /// The last configuration that can be used.
    config: Arc<Config>,
    /// The names in `config` have not been looked up yet: the routes before it stay in use.
    unfound: bool,
    found: Found,
    /// The rings that pools with a warm resize change between.
    rings: Rings,
    snapshot: Arc<Snapshot>,
    ready_wait: ReadyWait,
    /// The proxy started before the wait was over, and has not been reported ready.
    awaits: bool,
}

impl Control {
    /// Reads the configuration and finds the addresses of the servers in it. Waits for these two seconds at
    /// most, one for the cluster and one for DNS: the others are looked for while the proxy serves.
    ///
    /// # Errors
    /// The configuration cannot be read or used, or there is no resolver. The error names the place and the
    /// remedy.
    pub fn start(checked: &CheckedProxy) -> Result<Self, ConfigError> {
        let mut ready_wait = ReadyWait::new(Instant::now(), checked.ready_wait);
        let dns = Dns::new(checked.dns_server)
            .map_err(|error| ConfigError::new("DNS", "", &format!("no resolver: {error}"), EX_CONFIG))?;
        let (source, config) = read_or_kept(checked)?;
        let (finders, mut found) = Finders::start(dns, &config, &checked.service_account);
        let trusted = checked.trusted.clone();
        let mut rings = Rings::default();
        rings.observe(&config, &found.pools, 0);
        rings.locate(&mut found.addresses);
        let snapshot = compile(&config, &found, &rings, trusted.as_ref())?;
        source.keep();
        let awaits = !ready_wait.is_over(&config, &found, Instant::now());
        Ok(Self {
            ready_wait,
            awaits,
            trusted,
            finders,
            source,
            kept_at: Instant::now(),
            is_in_use: true,
            reload_delay: Duration::from_millis(checked.reload_delay_ms),
            config,
            unfound: false,
            found,
            rings,
            snapshot,
        })
    }

    /// Checks a configuration without looking names up. Returns its resolved tree as JSON.
    ///
    /// # Errors
    /// The configuration cannot be read or used. The error names the place and the remedy.
    pub fn check(checked: &CheckedProxy) -> Result<String, ConfigError> {
        let (_, config) = read(checked)?;
        let rings = Rings::default();
        compile(&config, &Found::default(), &rings, checked.trusted.as_ref())?;
        Ok(config.to_string())
    }

    /// The snapshot that the shards are built with.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// Whether the proxy is not ready until this thread reports it, because a pool has no server with an
    /// address yet.
    #[must_use]
    pub const fn awaits_servers(&self) -> bool {
        self.awaits
    }

    /// Tells what is known of the configuration, which is in use from now on.
    pub fn tell(&self, view: &ProxyView, now_s: u64) {
        let (file, md5) = self.source.own();
        view.set_config_info(ConfigInfo { file, md5, since_s: now_s, host_id: self.config.options.host_id });
    }

    /// Watches for changes until the server stops. With `reloads` the configuration is read again when one of its
    /// files changes, and on SIGHUP.
    pub fn run(mut self, server: &ServerContext, view: &ProxyView, forwarding: &Forwarding, reloads: bool) {
        let (changed, changes) = bounded(NOTICES_MAX);
        let mut watched = WatchedFiles::new(changed);
        let mut looked_up = Instant::now();
        // Files may have changed after they were first read.
        let mut reload_at = Some(Instant::now());
        let mut reloads_seen = server.lifecycle.reloads();
        let mut unsent = false;
        let mut reloaded = false;
        view.control_log.set_layout(&self.config, &self.found.pools);
        while !server.lifecycle.is_stopping() {
            if wait(&changes, self.finders.notices()) {
                // Further changes may follow: editors and ConfigMaps write in several steps. They do not put it off
                // further, since a file that changes all the time would never be read.
                reload_at.get_or_insert_with(|| Instant::now() + self.reload_delay);
            }
            let asked = server.lifecycle.reloads();
            if asked != std::mem::replace(&mut reloads_seen, asked) {
                reload_at = Some(Instant::now());
            }
            let mut changed = false;
            if reload_at.is_some_and(|at| at <= Instant::now()) {
                reload_at = None;
                if reloads && self.reload(server, view) {
                    (self.unfound, reloaded) = (true, true);
                }
                changed |= self.reload_trusted();
                let files = self.source.files().filter(|_| reloads);
                if watched.follow(files.chain(self.trusted.iter().flat_map(ReloadableTrust::files))) {
                    // They may have changed after they were read and before they were watched.
                    reload_at = Some(Instant::now());
                }
            }
            if self.finders.take_slices() && !self.unfound {
                let found = self.finders.with_slices(&self.found, &self.config);
                changed |= self.take_found(found, server, view);
            }
            if let Some(found) = self.finders.take_lookup(&self.config) {
                looked_up = Instant::now();
                changed |= self.take_found(found, server, view) || self.unfound;
                self.unfound = false;
            }
            if self.unfound || looked_up.elapsed() >= self.look_up_every() {
                self.finders.look_up(&self.config, &self.found);
            }
            if !self.unfound {
                changed |= self.rings.observe(&self.config, &self.found.pools, server.clock.now_ms());
            }
            if changed && !self.unfound {
                self.rings.locate(&mut self.found.addresses);
                match compile(&self.config, &self.found, &self.rings, self.trusted.as_ref()) {
                    Ok(snapshot) => {
                        tracing::info!("routes changed: {} destinations", snapshot.tree.destinations().len());
                        self.snapshot = snapshot;
                        view.control_log.set_layout(&self.config, &self.found.pools);
                        unsent = true;
                        self.is_in_use = true;
                        if reloaded {
                            self.tell(view, server.clock.now_s().into());
                        }
                    }
                    Err(error) => {
                        tracing::error!("{error}; the routes before stay in use");
                        self.is_in_use = false;
                    }
                }
            }
            // After a reload, once it is known to be of use.
            if (reloaded && !self.unfound) || self.kept_at.elapsed() >= KEEP_EVERY {
                if self.is_in_use {
                    self.source.keep();
                }
                (self.kept_at, reloaded) = (Instant::now(), false);
            }
            if unsent {
                unsent = !send(&self.snapshot, server, forwarding);
            }
            if self.awaits
                && self.ready_wait.is_over(&self.config, &self.found, Instant::now())
                && !unsent
                && all_have_taken(forwarding)
            {
                self.awaits = false;
                server.lifecycle.servers_are_found();
            }
        }
    }

    /// Takes over what was found. Returns whether it differs from what was known.
    fn take_found(&mut self, mut found: Found, server: &ServerContext, view: &ProxyView) -> bool {
        self.rings.locate(&mut found.addresses);
        let differs = found.differs(&self.found);
        if differs {
            view.control_log.record_moves(server.clock.now_s(), found.changes_since(&self.found));
        }
        self.found = found;
        differs
    }

    fn look_up_every(&self) -> Duration {
        if self.config.pools.iter().any(|pool| pool.resolve) { RESOLVE_EVERY } else { LOOK_UP_EVERY }
    }

    /// Reads the files of TLS towards destinations again. Returns whether they have changed and can be used.
    fn reload_trusted(&mut self) -> bool {
        match self.trusted.as_mut().map(ReloadableTrust::reload) {
            None | Some(Ok(false)) => false,
            Some(Ok(true)) => {
                tracing::info!("read the certificates towards destinations again");
                true
            }
            Some(Err(error)) => {
                tracing::error!("{error}; certificates towards destinations stay as they were");
                false
            }
        }
    }

    /// Reads the configuration again. Returns whether it has changed and can be used.
    fn reload(&mut self, server: &ServerContext, view: &ProxyView) -> bool {
        match self.source.read() {
            Ok(None) => false,
            Ok(Some(config)) => {
                tracing::info!("the configuration changed");
                view.control_log.record_reload(server.clock.now_s(), Ok(()));
                self.config = Arc::new(config);
                self.finders.follow_services(&self.config);
                true
            }
            Err(error) => {
                report_bad_config(server, view, &error);
                false
            }
        }
    }
}

/// Reports a configuration that cannot be used.
fn report_bad_config(server: &ServerContext, view: &ProxyView, error: &ConfigError) {
    tracing::error!("{error}; the configuration before stays in use");
    view.count_config_failure();
    view.control_log.record_reload(server.clock.now_s(), Err(error));
}

/// Waits until a file changes, something is found, or [`TICK`] has passed. Returns whether a file has
/// changed.
fn wait(changes: &Receiver<()>, notices: &Receiver<()>) -> bool {
    select! {
        recv(changes) -> _ => true,
        recv(notices) -> _ => {
            std::thread::sleep(GATHER_TIME);
            false
        }
        default(TICK) => false,
    }
}

/// Sends the snapshot to every shard and wakes it. Returns false if one has no room for it now.
fn send(snapshot: &Arc<Snapshot>, server: &ServerContext, forwarding: &Forwarding) -> bool {
    let mut all = true;
    let mut subscribers = forwarding.subscribers();
    subscribers.retain(|shard| match shard.try_send(Arc::clone(snapshot)) {
        Ok(()) => true,
        Err(TrySendError::Full(_)) => {
            all = false;
            true
        }
        Err(TrySendError::Disconnected(_)) => false,
    });
    server.lifecycle.wake_all();
    all
}

/// Whether every shard has taken all snapshots that it was sent. It uses them before it handles another
/// request.
fn all_have_taken(forwarding: &Forwarding) -> bool {
    forwarding.subscribers().iter().all(Sender::is_empty)
}

/// A configuration that is not read yet.
fn source(checked: &CheckedProxy) -> Source {
    Source::new(checked.source.clone(), checked.options.clone(), checked.kept_config.clone())
}

/// Reads the configuration for the first time.
fn read(checked: &CheckedProxy) -> Result<(Source, Arc<Config>), ConfigError> {
    let mut source = source(checked);
    let config = source.read()?.expect("it has not been read before");
    Ok((source, Arc::new(config)))
}

/// As [`read`]; what was kept when it could be used stands in for what cannot.
fn read_or_kept(checked: &CheckedProxy) -> Result<(Source, Arc<Config>), ConfigError> {
    let mut source = source(checked);
    match source.read() {
        Ok(config) => Ok((source, Arc::new(config.expect("it has not been read before")))),
        Err(error) => {
            let kept = source.read_kept().ok_or_else(|| error.clone())?;
            tracing::error!(
                "{error}; the last configuration that could be used is used (--config-dump-root)"
            );
            Ok((source, Arc::new(kept)))
        }
    }
}

fn compile(
    config: &Config,
    found: &Found,
    rings: &Rings,
    trusted: Option<&ReloadableTrust>,
) -> Result<Arc<Snapshot>, ConfigError> {
    let tree = Tree::compile_over(config, &found.pools, rings)
        .map_err(|error| ConfigError::new("configuration", "", &error.to_string(), EX_CONFIG))?;
    let is_encrypted = |member: &Member| matches!(member, Member::Server(server) if server.tls);
    let mut pools = config.pools.iter();
    if let Some(pool) = pools.find(|pool| trusted.is_none() && pool.members.iter().any(is_encrypted)) {
        let remedy = "start with --pem-ca-path FILE, the authorities of its servers' certificates, or remove use_ssl and security_mech";
        return Err(ConfigError::new("pools", &pool.name, remedy, EX_CONFIG));
    }
    Ok(Arc::new(Snapshot {
        tree: Arc::new(tree),
        addresses: found.addresses.clone(),
        trust: trusted.map(|trusted| Arc::clone(trusted.current())),
    }))
}
