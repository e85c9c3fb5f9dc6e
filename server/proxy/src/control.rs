//! What the proxy's control thread does: reads the configuration, looks up the names in it, watches both and the files of
//! TLS towards destinations, and hands every shard a new [`Snapshot`] when one of them changed. What is wrong leaves what
//! was before in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never, select};

use super::args::{Checked, Source};
use super::awaited::Awaited;
use super::config::{self, Config, Import, ImportError, Member, Rings};
use super::relay::Snapshot;
use super::route::Tree;
use crate::discovery::slices::{self, Access};
use crate::discovery::{Dns, Found, Lookups, Question, Slices, SlicesFound};
use crate::forwarding::Forwarding;
use crate::view::ProxyView;
use corecached_net::tls::Trusted;
use corecached_net::watch_files::watch;
use corecached_shard::{ConfigError, ServerContext};

/// Exit code of a configuration that cannot be used.
const EX_CONFIG: u8 = 78;
/// How often names are looked up where a pool stands for all servers of a name: a change is to be seen within a second.
const RESOLVE_EVERY: Duration = Duration::from_millis(500);
/// How often names of plain pools are looked up: a pod that comes back has another address.
const LOOK_UP_EVERY: Duration = Duration::from_secs(2);
/// How often the thread looks whether the server stops, and whether a file changed that cannot be watched.
const TICK: Duration = Duration::from_millis(100);
/// How long the start waits for the endpoints that a cluster tells, before it asks DNS.
const FIRST_SLICES: Duration = Duration::from_secs(1);
/// How long it waits for DNS. Where that answers, clients never meet a server that has not been looked up; where it says
/// nothing, that must not keep the port closed.
const FIRST_LOOKUP: Duration = Duration::from_secs(1);
/// Word under way that a watched file changed, or that something was found.
const CHANGES_MAX: usize = 1;
/// How long the thread lets news gather: each time it acts on them, all routes are built anew.
const GATHER: Duration = Duration::from_millis(20);

/// See the head of the file.
#[derive(Debug)]
pub struct Control {
    source: Source,
    options: config::Options,
    reload_delay: Duration,
    /// Of destinations that are reached over TLS.
    trusted: Option<Trusted>,
    lookups: Lookups,
    /// Word that the threads that find things have found some.
    news: Receiver<()>,
    /// Gives word; whoever finds things has another.
    word: Sender<()>,
    /// Folder of what the cluster's API server is asked with.
    service_account: PathBuf,
    /// As last read, good or not.
    text: String,
    config: Arc<Config>,
    /// The names in it have not been looked up yet: the routes before stay in use.
    unfound: bool,
    found: Found,
    /// What the pools that resize warm go from and to.
    rings: Rings,
    /// Follows Services, if pools name any.
    slices: Option<Slices>,
    slices_found: SlicesFound,
    snapshot: Arc<Snapshot>,
    awaited: Awaited,
    /// It was not over before the start.
    awaits: bool,
}

impl Control {
    /// Reads the configuration and looks up what it names. Waits for that two seconds at most, one for the cluster and one
    /// for DNS: what is not found then is looked for while the proxy serves.
    ///
    /// # Errors
    /// What is wrong with it: where, what, and the remedy.
    pub fn start(checked: &Checked) -> Result<Self, ConfigError> {
        let mut awaited = Awaited::new(Instant::now(), checked.ready_wait);
        let dns = Dns::new(checked.dns_server)
            .map_err(|error| ConfigError::new("DNS", "", &format!("no resolver: {error}"), EX_CONFIG))?;
        let text = read(&checked.source)?;
        let config = Arc::new(parse(&checked.source, &text, &checked.options)?);
        let (word, news) = bounded(CHANGES_MAX);
        let mut slices = follow(None, &config, &checked.service_account, &word);
        let slices_found = slices.as_mut().map_or_else(SlicesFound::new, |slices| slices.first(FIRST_SLICES));
        let mut lookups = Lookups::start(dns, word.clone());
        let mut found = first_found(&mut lookups, &config, &slices_found);
        let trusted = checked.trusted.clone();
        let mut rings = Rings::default();
        rings.observe(&config, &found.pools, 0);
        rings.locate(&mut found.addresses);
        let snapshot = compile(&config, &found, &rings, trusted.as_ref())?;
        let awaits = !awaited.is_over(&config, &found, Instant::now());
        Ok(Self {
            awaited,
            awaits,
            trusted,
            source: checked.source.clone(),
            options: checked.options.clone(),
            reload_delay: Duration::from_millis(checked.reload_delay_ms),
            lookups,
            news,
            word,
            service_account: checked.service_account.clone(),
            text,
            config,
            unfound: false,
            found,
            rings,
            slices,
            slices_found,
            snapshot,
        })
    }

    /// Checks a configuration; its resolved tree, as JSON.
    ///
    /// # Errors
    /// As [`Control::start`], but names are not looked up.
    pub fn check(checked: &Checked) -> Result<String, ConfigError> {
        let config = parse(&checked.source, &read(&checked.source)?, &checked.options)?;
        let rings = Rings::default();
        compile(&config, &Found::default(), &rings, checked.trusted.as_ref())?;
        Ok(config.to_string())
    }

    /// What the shards begin with.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// Whether the proxy is not ready until this thread says so: a pool has no server yet.
    #[must_use]
    pub const fn awaits_servers(&self) -> bool {
        self.awaits
    }

    /// Watches until the server stops.
    pub fn run(mut self, server: &ServerContext, view: &ProxyView, forwarding: &Forwarding, reloads: bool) {
        let (changed, changes) = bounded(CHANGES_MAX);
        let path = match &self.source {
            Source::File(path) if reloads => Some(path.as_path()),
            _ => None,
        };
        let reloads = path.is_some();
        let files = path.into_iter().chain(self.trusted.iter().flat_map(Trusted::files));
        let watcher = watch(files, changed);
        let changes = if watcher.is_some() { changes } else { never() };
        let mut looked_up = Instant::now();
        // What changed since it was first read and before it was watched.
        let mut reload_at = Some(Instant::now());
        let mut told = server.lifecycle.reloads();
        let mut unsent = false;
        view.chronicle.lay_out(&self.config, &self.found.pools);
        while !server.lifecycle.is_stopping() {
            if wait(&changes, &self.news) {
                // More may follow: editors and ConfigMaps write in several steps.
                reload_at = Some(Instant::now() + self.reload_delay);
            }
            let asked = server.lifecycle.reloads();
            if asked != std::mem::replace(&mut told, asked) {
                reload_at = Some(Instant::now());
            }
            let mut changed = false;
            if reload_at.is_some_and(|at| at <= Instant::now()) {
                reload_at = None;
                self.unfound |= reloads && self.reload(server, view);
                changed |= self.reload_trusted();
            }
            if let Some(news) = self.slices.as_mut().and_then(Slices::news) {
                self.slices_found = news;
                if !self.unfound {
                    let found = self.found.with(&self.config, &self.slices_found);
                    changed |= self.take(found, server, view);
                }
            }
            // An answer to what would be asked otherwise by now is none.
            if let Some((question, found)) = self.lookups.answer()
                && Arc::ptr_eq(&question.config, &self.config)
                && slices::told(&question.slices) == slices::told(&self.slices_found)
            {
                let found = found.with(&self.config, &self.slices_found);
                looked_up = Instant::now();
                changed |= self.take(found, server, view) || self.unfound;
                self.unfound = false;
            }
            let is_due = self.unfound || looked_up.elapsed() >= self.look_up_every();
            if is_due && !self.lookups.under_way() {
                let (config, before) = (Arc::clone(&self.config), self.found.clone());
                self.lookups.ask(Question { config, before, slices: self.slices_found.clone() });
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
                        view.chronicle.lay_out(&self.config, &self.found.pools);
                        unsent = true;
                    }
                    Err(error) => tracing::error!("{error}; the routes before stay in use"),
                }
            }
            if unsent {
                unsent = !send(&self.snapshot, server, forwarding);
            }
            if self.awaits
                && self.awaited.is_over(&self.config, &self.found, Instant::now())
                && !unsent
                && all_took(forwarding)
            {
                self.awaits = false;
                server.lifecycle.servers_are_found();
            }
        }
    }

    /// Servers are where this says from now on; whether that is elsewhere.
    fn take(&mut self, mut found: Found, server: &ServerContext, view: &ProxyView) -> bool {
        self.rings.locate(&mut found.addresses);
        let differs = found.differs(&self.found);
        if differs {
            view.chronicle.moved(server.clock.now_s(), found.changes_since(&self.found));
        }
        self.found = found;
        differs
    }

    fn look_up_every(&self) -> Duration {
        if self.config.pools.iter().any(|pool| pool.resolve) { RESOLVE_EVERY } else { LOOK_UP_EVERY }
    }

    /// Reads the files of TLS towards destinations again; true when they are others, and good.
    fn reload_trusted(&mut self) -> bool {
        match self.trusted.as_mut().map(Trusted::reload) {
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

    /// Reads the configuration again; true when it is another one, and good.
    fn reload(&mut self, server: &ServerContext, view: &ProxyView) -> bool {
        let text = match read(&self.source) {
            Ok(text) => text,
            Err(error) => {
                refused(server, view, &error);
                return false;
            }
        };
        if text == self.text {
            return false;
        }
        self.text = text;
        match parse(&self.source, &self.text, &self.options) {
            Ok(config) => {
                tracing::info!("the configuration changed");
                view.chronicle.reloaded(server.clock.now_s(), Ok(()));
                self.config = Arc::new(config);
                self.slices = follow(self.slices.take(), &self.config, &self.service_account, &self.word);
                true
            }
            Err(error) => {
                refused(server, view, &error);
                false
            }
        }
    }
}

/// What is known once names have been looked up; without them when that takes too long, and then they are still looked for.
fn first_found(lookups: &mut Lookups, config: &Arc<Config>, slices: &SlicesFound) -> Found {
    let before = Found::unasked(config, slices);
    lookups.ask(Question { config: Arc::clone(config), before: before.clone(), slices: slices.clone() });
    if let Some((_, found)) = lookups.answer_within(FIRST_LOOKUP) {
        return found;
    }
    tracing::warn!(
        "DNS has not answered for {} ms: serving before all names are found, their servers are answered for with errors \
         (--dns-server names whom to ask)",
        FIRST_LOOKUP.as_millis()
    );
    before
}

/// Has the Services that `config` names followed, by a thread that is started for the first of them.
fn follow(known: Option<Slices>, config: &Config, account: &Path, word: &Sender<()>) -> Option<Slices> {
    let slices = match known {
        Some(slices) => slices,
        None if slices::services(config).is_empty() => return None,
        None => match Access::from_environment(account) {
            Ok(access) => Slices::start(access, word.clone()),
            Err(error) => {
                tracing::warn!("endpoint_slices: {error}; DNS is asked instead");
                return None;
            }
        },
    };
    slices.follow(config);
    Some(slices)
}

/// A configuration that is wrong: the one before stays in use.
fn refused(server: &ServerContext, view: &ProxyView, error: &ConfigError) {
    tracing::error!("{error}; the configuration before stays in use");
    view.count_config_failure();
    view.chronicle.reloaded(server.clock.now_s(), Err(error));
}

/// Waits a moment, or until something was found; whether the file changed meanwhile.
fn wait(changes: &Receiver<()>, news: &Receiver<()>) -> bool {
    select! {
        recv(changes) -> _ => true,
        recv(news) -> _ => {
            std::thread::sleep(GATHER);
            false
        }
        default(TICK) => false,
    }
}

/// Hands the snapshot to every shard and wakes it. False when one has no room for it now.
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

/// Whether every shard has taken what it was sent, which it routes by before it works on any request.
fn all_took(forwarding: &Forwarding) -> bool {
    forwarding.subscribers().iter().all(Sender::is_empty)
}

fn read(source: &Source) -> Result<String, ConfigError> {
    match source {
        Source::Text(text) => Ok(text.clone()),
        Source::File(path) => std::fs::read_to_string(path).map_err(|error| {
            let remedy = format!("name a file that can be read: {error}");
            ConfigError::new("--config-file", &path.display().to_string(), &remedy, EX_CONFIG)
        }),
    }
}

fn parse(source: &Source, text: &str, options: &config::Options) -> Result<Config, ConfigError> {
    let (name, folder) = match source {
        Source::File(path) => {
            (path.display().to_string(), path.parent().map(Path::to_owned).unwrap_or_default())
        }
        Source::Text(_) => ("--config".to_owned(), PathBuf::new()),
    };
    let import: &Import<'_> = &|what: &str| {
        let path = folder.join(what.strip_prefix("file:").unwrap_or(what));
        std::fs::read_to_string(&path).map_err(|error| ImportError(format!("{}: {error}", path.display())))
    };
    Config::parse(&name, text, options, import)
        .map_err(|error| ConfigError::new("configuration", "", &error.to_string(), EX_CONFIG))
}

fn compile(
    config: &Config,
    found: &Found,
    rings: &Rings,
    trusted: Option<&Trusted>,
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
