//! Which endpoints a Service of Kubernetes has, told by its cluster the moment they change: its `EndpointSlice`s, listed
//! once and then watched, by a thread of its own. Where the cluster does not tell, names are looked up as ever.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`client`] | one request to the API server, as the pod's service account |
//! | [`endpoints`] | what slices say of a Service's members |
//! | [`follow`] | one Service, listed and watched until nobody wants it |

pub mod client;
pub mod endpoints;
mod follow;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use client::{ACCOUNT, Access};
pub use endpoints::Endpoint;

use super::Found;
use crate::config::{Address, Config, Member, Pool, Server, Service};

/// How often the first answer is looked for at start.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The endpoints of each Service that is followed; `None` where the cluster does not tell them now. One that is missing
/// has not been asked for yet.
pub type SlicesFound = HashMap<Service, Option<Vec<Endpoint>>>;

/// The thread that follows them.
#[derive(Debug)]
pub struct Slices {
    wanted: watch::Sender<HashSet<Service>>,
    found: watch::Receiver<SlicesFound>,
}

impl Slices {
    /// It begins with nobody to follow, and ends with this. There is word in `news` of each change.
    #[must_use]
    pub fn start(access: Access, news: Sender<()>) -> Self {
        let (wanted, orders) = watch::channel(HashSet::new());
        let (findings, found) = watch::channel(SlicesFound::new());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.map(|runtime| {
                let mut changes = findings.subscribe();
                runtime.spawn(async move {
                    while changes.changed().await.is_ok() {
                        let _ = news.try_send(()); // full: there is word already
                    }
                });
                runtime.block_on(run(Arc::new(access), orders, &findings));
            });
            if let Err(error) = outcome {
                tracing::error!("EndpointSlices are not followed: {error}");
            }
        });
        Self { wanted, found }
    }

    /// Follow the Services that `config` names, and no others.
    pub fn follow(&self, config: &Config) {
        let services = services(config);
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != services;
            *wanted = services;
            differs
        });
    }

    /// What is known now, if that is not what it was when this was last asked.
    #[must_use]
    pub fn news(&mut self) -> Option<SlicesFound> {
        let is_new = self.found.has_changed().unwrap_or(false);
        is_new.then(|| self.found.borrow_and_update().clone())
    }

    /// What is known once every Service has been asked for, or this time is over.
    #[must_use]
    pub fn first(&mut self, within: Duration) -> SlicesFound {
        let begun = Instant::now();
        let all_told = |slices: &Self| {
            let (wanted, found) = (slices.wanted.borrow(), slices.found.borrow());
            wanted.iter().all(|service| found.contains_key(service))
        };
        while !all_told(self) && begun.elapsed() < within {
            std::thread::sleep(LOOK_EVERY);
        }
        self.found.borrow_and_update().clone()
    }
}

/// The Services that pools of `config` are followed by.
#[must_use]
pub fn services(config: &Config) -> HashSet<Service> {
    config.pools.iter().filter_map(|pool| pool.endpoint_slices.clone()).collect()
}

/// The Services whose members `found` knows.
#[must_use]
pub fn told(found: &SlicesFound) -> HashSet<&Service> {
    found.iter().filter(|(_, members)| members.is_some()).map(|(service, _)| service).collect()
}

async fn run(
    access: Arc<Access>,
    mut orders: watch::Receiver<HashSet<Service>>,
    findings: &watch::Sender<SlicesFound>,
) {
    let mut tasks: HashMap<Service, AbortHandle> = HashMap::new();
    loop {
        let wanted = orders.borrow_and_update().clone();
        tasks.retain(|service, task| {
            let is_wanted = wanted.contains(service);
            if !is_wanted {
                // It does not run while this does, and never again.
                task.abort();
                findings.send_modify(|found| drop(found.remove(service)));
            }
            is_wanted
        });
        for service in wanted {
            tasks.entry(service).or_insert_with_key(|service| {
                let follower = follow::follow(Arc::clone(&access), service.clone(), findings.clone());
                tokio::spawn(follower).abort_handle()
            });
        }
        if orders.changed().await.is_err() {
            return;
        }
    }
}

/// The members that `slices` give `pool`; `None` where they tell nothing of it.
pub(super) fn members(pool: &Pool, slices: &SlicesFound) -> Option<Vec<(Server, std::net::SocketAddr)>> {
    let endpoints = slices.get(pool.endpoint_slices.as_ref()?)?.as_ref()?;
    let Some(Member::Server(written)) = pool.members.first() else { return None };
    let Address::Tcp { host, port } = &written.address else { return None };
    let member = |endpoint: &Endpoint| {
        // As the SRV records of a headless Service have it, so that nothing moves when DNS is asked instead.
        let host = format!("{}.{}", endpoint.name, host.trim_end_matches('.'));
        let address = Address::Tcp { host, port: *port };
        (Server { address, ..written.clone() }, (endpoint.ip, *port).into())
    };
    Some(endpoints.iter().map(member).collect())
}

impl Found {
    /// The same with what `slices` say now, and nothing looked up.
    #[must_use]
    pub fn with(&self, config: &Config, slices: &SlicesFound) -> Self {
        let mut found = self.clone();
        for pool in &config.pools {
            let Some(members) = members(pool, slices) else { continue };
            let (servers, addresses): (Vec<_>, Vec<_>) = members.into_iter().unzip();
            for (server, address) in servers.iter().zip(addresses) {
                found.addresses.insert(server.clone(), address.into());
            }
            found.pools.insert(pool.name.clone(), servers);
        }
        let named: HashSet<&Server> = super::written(config).chain(found.pools.values().flatten()).collect();
        found.addresses.retain(|server, _| named.contains(server));
        found
    }
}
