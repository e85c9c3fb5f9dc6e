//! Starts the shards, each on its core and all on one backend. Either all of them start or none.

use std::sync::Arc;

use core_affinity::CoreId;
use corecached_engine::KeyHasher;
use corecached_net::DriverSetup;
use corecached_net::epoll::Epoll;
use corecached_net::tls::{Certificates, SecureDriver, TlsDriver, Usage};
use corecached_net::uring::Uring;
use corecached_shard::mesh::Mesh;
use corecached_shard::{CoreSetup, ServerContext, Shard, host_glommio, host_thread};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::bind::Bound;
use crate::error::LaunchError;
use crate::recipe::Recipe;

/// The kernel interface that the shards reach the network through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// io_uring; each shard runs on a glommio executor.
    Uring,
    /// epoll; each shard runs on a plain thread.
    Epoll,
}

/// The executor or thread that a shard runs on.
#[derive(Debug)]
pub(crate) enum Host {
    /// A glommio executor.
    Glommio(glommio::ExecutorJoinHandle<std::io::Result<()>>),
    /// A plain thread.
    Thread(std::thread::JoinHandle<std::io::Result<()>>),
}

impl Host {
    fn on_thread(
        name: String,
        core: CoreId,
        run: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> Result<Self, LaunchError> {
        let pinned = move || {
            core_affinity::set_for_current(core);
            run()
        };
        let started = std::thread::Builder::new().name(name).spawn(pinned);
        started.map(Self::Thread).map_err(|error| LaunchError::Host(error.to_string()))
    }

    /// Waits until the shard has ended.
    ///
    /// # Errors
    /// The shard ended with an error, or it panicked.
    pub(crate) fn join(self) -> std::io::Result<()> {
        match self {
            Self::Glommio(handle) => {
                handle.join().unwrap_or_else(|error| Err(std::io::Error::other(error.to_string())))
            }
            Self::Thread(handle) => {
                handle.join().unwrap_or_else(|_| Err(std::io::Error::other("a shard panicked")))
            }
        }
    }
}

/// The TLS settings of a server.
#[derive(Clone, Debug)]
pub(crate) struct Secured {
    /// The certificates that clients are shown; `None` where only connections to destinations are secured.
    pub certificates: Option<Arc<Certificates>>,
    /// Whether the connections of each listening socket are plain or secured.
    pub usages: Box<[Usage]>,
}

/// What the shards of a server are started with.
pub(crate) struct Launch<'a> {
    /// The core of each shard.
    pub cores: &'a [CoreId],
    /// The listening sockets.
    pub bound: &'a Bound,
    /// The hasher of keys; it is the same on all shards.
    pub hasher: &'a KeyHasher,
    /// The state that all shards share.
    pub context: &'a ServerContext,
    /// The TLS settings; `None` for plain drivers, in which no code of TLS runs.
    pub secured: Option<Secured>,
}

impl Launch<'_> {
    /// Starts all shards on `backend`. When one of them cannot be made, none runs.
    ///
    /// # Errors
    /// A shard cannot be made.
    pub(crate) fn run<R: Recipe>(
        &self,
        recipe: &Arc<R>,
        meshes: Vec<Mesh<R::Service>>,
        backend: Backend,
    ) -> Result<Vec<Host>, LaunchError> {
        let shards = self.cores.len();
        assert_eq!(meshes.len(), shards);
        let (report, reports) = bounded(shards);
        let mut hosts = Vec::new();
        let mut starts: Vec<Sender<R::Parts>> = Vec::new();
        for (mesh, &core) in meshes.into_iter().zip(self.cores) {
            let (start, started) = bounded(1);
            starts.push(start);
            let name = format!("shard-{}", mesh.me());
            let driver = DriverSetup {
                listeners: self.bound.sockets(mesh.me()).map_err(LaunchError::Socket)?,
                admission: Arc::clone(&self.context.network.admission),
                receives_values: R::RECEIVES_VALUES,
            };
            let (hasher, context) = (self.hasher.clone(), self.context.clone());
            let builder = ShardBuilder {
                recipe: Arc::clone(recipe),
                driver,
                setup: CoreSetup { mesh, hasher, context },
                report: report.clone(),
                started,
            };
            hosts.push(match (backend, self.secured.clone()) {
                (Backend::Uring, None) => spawn_glommio(core, &name, move || builder.build(Uring::new))?,
                (Backend::Uring, Some(Secured { certificates, usages })) => {
                    let over = |setup| Ok(TlsDriver::new(Uring::new(setup)?, certificates, usages));
                    spawn_glommio(core, &name, move || builder.build(over))?
                }
                (Backend::Epoll, None) => Host::on_thread(name, core, move || {
                    builder.build(Epoll::new).map_or(Ok(()), host_thread::run)
                })?,
                (Backend::Epoll, Some(Secured { certificates, usages })) => {
                    Host::on_thread(name, core, move || {
                        let over = |setup| Ok(TlsDriver::new(Epoll::new(setup)?, certificates, usages));
                        builder.build(over).map_or(Ok(()), host_thread::run)
                    })?
                }
            });
        }
        drop(report);
        // Every shard reports before any of them runs. Dropping `starts` ends those that wait.
        let mut prepared: Vec<Option<R::Prepared>> = (0..shards).map(|_| None).collect();
        for _ in 0..shards {
            let (shard, made) = reports.recv().map_err(|_| LaunchError::Ended)?;
            prepared[shard] = Some(made?);
        }
        let parts = recipe.assemble(prepared.into_iter().flatten().collect())?;
        assert_eq!(parts.len(), shards, "parts for each shard");
        for (start, parts) in starts.into_iter().zip(parts) {
            let _ = start.send(parts);
        }
        Ok(hosts)
    }
}

fn spawn_glommio<D, S>(
    core: CoreId,
    name: &str,
    make: impl FnOnce() -> Option<Shard<D, S>> + Send + 'static,
) -> Result<Host, LaunchError>
where
    D: corecached_net::UringDriver + SecureDriver + 'static,
    S: corecached_shard::Service,
{
    host_glommio::spawn(core.id, name, make).map(Host::Glommio).map_err(LaunchError::Executor)
}

/// The number of a shard, and what its thread has prepared.
type Report<P> = (usize, Result<P, LaunchError>);

/// What the thread of a shard makes the shard from.
struct ShardBuilder<R: Recipe> {
    recipe: Arc<R>,
    driver: DriverSetup,
    setup: CoreSetup<R::Service>,
    report: Sender<Report<R::Prepared>>,
    started: Receiver<R::Parts>,
}

impl<R: Recipe> ShardBuilder<R> {
    /// Builds the shard on its own thread: prepares, reports, and waits for the others. `None` when one of
    /// them failed.
    fn build<D: SecureDriver>(
        self,
        driver: impl FnOnce(DriverSetup) -> std::io::Result<D>,
    ) -> Option<Shard<D, R::Service>> {
        let Self { recipe, driver: driver_setup, setup, report, started } = self;
        let me = setup.mesh.me();
        let made = recipe
            .prepare(me)
            .and_then(|prepared| Ok((prepared, driver(driver_setup).map_err(LaunchError::Driver)?)));
        match made {
            Ok((prepared, driver)) => {
                let _ = report.send((me, Ok(prepared)));
                drop(report);
                let parts = started.recv().ok()?;
                Some(Shard::new(driver, setup, recipe.build(parts)))
            }
            Err(error) => {
                let _ = report.send((me, Err(error)));
                None
            }
        }
    }
}
