//! The endpoints of Kubernetes Services, reported by the cluster as soon as they change. A thread lists the
//! `EndpointSlice`s of each Service once and then watches them. Where the cluster does not report them, names
//! are looked up by DNS.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`client`] | one request to the API server, as the pod's service account |
//! | [`endpoints`] | the members of a Service, according to its slices |
//! | [`follow`] | lists and watches one Service, until it is not needed any more |

mod client;
mod endpoints;
mod follow;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(crate) use client::{ACCOUNT, ApiAccess};
pub(crate) use endpoints::Endpoint;

use crate::config::{Config, Service};

/// The pause between two checks for the first answers at the start.
const CHECK_EVERY: Duration = Duration::from_millis(5);

/// The endpoints of each Service that is followed; `None` if the cluster does not report them now. A Service
/// that is missing has not been listed yet.
pub(crate) type SlicesFound = HashMap<Service, Option<Vec<Endpoint>>>;

/// The thread that follows Services.
#[derive(Debug)]
pub(crate) struct EndpointSlices {
    wanted: watch::Sender<HashSet<Service>>,
    found: watch::Receiver<SlicesFound>,
}

impl EndpointSlices {
    /// Starts the thread, which follows no Service at first and ends when this value is dropped. It sends to
    /// `wake` after each change.
    #[must_use]
    pub(crate) fn start(access: ApiAccess, wake: Sender<()>) -> Self {
        let (wanted, wanted_services) = watch::channel(HashSet::new());
        let (findings, found) = watch::channel(SlicesFound::new());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.map(|runtime| {
                let mut changes = findings.subscribe();
                runtime.spawn(async move {
                    while changes.changed().await.is_ok() {
                        let _ = wake.try_send(()); // full: the receiver is woken already
                    }
                });
                runtime.block_on(run(Arc::new(access), wanted_services, &findings));
            });
            if let Err(error) = outcome {
                tracing::error!("EndpointSlices are not followed: {error}");
            }
        });
        Self { wanted, found }
    }

    /// Follows the Services that `config` names, and no others.
    pub(crate) fn follow(&self, config: &Config) {
        let services = followed_services(config);
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != services;
            *wanted = services;
            differs
        });
    }

    /// What is known now, if it has changed since the last call.
    #[must_use]
    pub(crate) fn take_changes(&mut self) -> Option<SlicesFound> {
        let is_new = self.found.has_changed().unwrap_or(false);
        is_new.then(|| self.found.borrow_and_update().clone())
    }

    /// What is known once every Service has been listed, or after `within`.
    #[must_use]
    pub(crate) fn wait_for_first(&mut self, within: Duration) -> SlicesFound {
        let begun = Instant::now();
        let all_listed = |slices: &Self| {
            let (wanted, found) = (slices.wanted.borrow(), slices.found.borrow());
            wanted.iter().all(|service| found.contains_key(service))
        };
        while !all_listed(self) && begun.elapsed() < within {
            std::thread::sleep(CHECK_EVERY);
        }
        self.found.borrow_and_update().clone()
    }
}

/// The Services whose endpoints are the members of pools of `config`.
#[must_use]
pub(crate) fn followed_services(config: &Config) -> HashSet<Service> {
    config.pools.iter().filter_map(|pool| pool.endpoint_slices.clone()).collect()
}

/// The Services whose endpoints are known.
#[must_use]
pub(crate) fn known_services(found: &SlicesFound) -> HashSet<&Service> {
    found.iter().filter(|(_, members)| members.is_some()).map(|(service, _)| service).collect()
}

async fn run(
    access: Arc<ApiAccess>,
    mut wanted_services: watch::Receiver<HashSet<Service>>,
    findings: &watch::Sender<SlicesFound>,
) {
    let mut tasks: HashMap<Service, AbortHandle> = HashMap::new();
    loop {
        let wanted = wanted_services.borrow_and_update().clone();
        tasks.retain(|service, task| {
            let is_wanted = wanted.contains(service);
            if !is_wanted {
                // The runtime has one thread: the task does not run now, and will not run again.
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
        if wanted_services.changed().await.is_err() {
            return;
        }
    }
}
