//! The threads that find the addresses of servers for the control thread: one for DNS, one for Kubernetes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::dns::Dns;
use super::found::Found;
use super::lookups::{Lookups, Question};
use super::slices::{ApiAccess, EndpointSlices, SlicesFound, followed_services, known_services};
use crate::config::Config;

/// How long the start waits for the endpoints that a cluster reports, before it asks DNS.
const FIRST_SLICES: Duration = Duration::from_secs(1);
/// How long the start waits for DNS. If DNS answers, clients never meet a server without an address; if it
/// does not, the port must be opened all the same.
const FIRST_LOOKUP: Duration = Duration::from_secs(1);
/// Most notices in the channel: one is enough to wake the control thread.
const NOTICES_MAX: usize = 1;

/// The threads that find the addresses of servers.
#[derive(Debug)]
pub(crate) struct Finders {
    lookups: Lookups,
    /// Follows the Services that pools name; `None` until the first pool names one.
    slices: Option<EndpointSlices>,
    /// What `slices` has reported so far.
    slices_found: SlicesFound,
    /// Receives a notice when one of the threads has found something.
    notices: Receiver<()>,
    /// The sender of these notices, for threads that are started later.
    wake: Sender<()>,
    /// The folder of the service account that the cluster's API server is asked with.
    service_account: PathBuf,
}

impl Finders {
    /// Starts the threads, and waits for what they find: [`FIRST_SLICES`] for the cluster and
    /// [`FIRST_LOOKUP`] for DNS at most.
    pub(crate) fn start(dns: Dns, config: &Arc<Config>, service_account: &Path) -> (Self, Found) {
        let (wake, notices) = bounded(NOTICES_MAX);
        let mut finders = Self {
            lookups: Lookups::start(dns, wake.clone()),
            slices: None,
            slices_found: SlicesFound::new(),
            notices,
            wake,
            service_account: service_account.to_owned(),
        };
        finders.follow_services(config);
        if let Some(slices) = &mut finders.slices {
            finders.slices_found = slices.wait_for_first(FIRST_SLICES);
        }
        let found = first_found(&mut finders.lookups, config, &finders.slices_found);
        (finders, found)
    }

    /// Receives a notice when one of the threads has found something.
    pub(crate) const fn notices(&self) -> &Receiver<()> {
        &self.notices
    }

    /// `found` with what the followed Services have reported so far.
    pub(crate) fn with_slices(&self, found: &Found, config: &Config) -> Found {
        found.with_slices(config, &self.slices_found)
    }

    /// Follows the Services that `config` names, by a thread that is started for the first of them.
    pub(crate) fn follow_services(&mut self, config: &Config) {
        if self.slices.is_none() {
            if followed_services(config).is_empty() {
                return;
            }
            match ApiAccess::from_environment(&self.service_account) {
                Ok(access) => self.slices = Some(EndpointSlices::start(access, self.wake.clone())),
                Err(error) => {
                    tracing::warn!("endpoint_slices: {error}; DNS is asked instead");
                    return;
                }
            }
        }
        if let Some(slices) = &self.slices {
            slices.follow(config);
        }
    }

    /// Takes what the followed Services have reported since the last call. Returns whether they have reported
    /// anything.
    pub(crate) fn take_slices(&mut self) -> bool {
        let Some(changes) = self.slices.as_mut().and_then(EndpointSlices::take_changes) else { return false };
        self.slices_found = changes;
        true
    }

    /// Takes the answer to the pending lookup. `None` if it has not come, or if something else would be
    /// looked up by now.
    pub(crate) fn take_lookup(&mut self, config: &Arc<Config>) -> Option<Found> {
        let (question, found) = self.lookups.take_answer()?;
        let is_current = Arc::ptr_eq(&question.config, config)
            && known_services(&question.slices) == known_services(&self.slices_found);
        is_current.then(|| found.with_slices(config, &self.slices_found))
    }

    /// Begins a lookup of all names of `config`, unless one is pending.
    pub(crate) fn look_up(&mut self, config: &Arc<Config>, before: &Found) {
        if !self.lookups.is_pending() {
            let (config, before) = (Arc::clone(config), before.clone());
            self.lookups.ask(Question { config, before, slices: self.slices_found.clone() });
        }
    }
}

/// What is found by the first lookup, or without a lookup if that takes too long. The lookup then goes on.
fn first_found(lookups: &mut Lookups, config: &Arc<Config>, slices: &SlicesFound) -> Found {
    let before = Found::without_lookups(config, slices);
    lookups.ask(Question { config: Arc::clone(config), before: before.clone(), slices: slices.clone() });
    if let Some((_, found)) = lookups.wait_for_answer(FIRST_LOOKUP) {
        return found;
    }
    tracing::warn!(
        "DNS has not answered for {} ms: serving before all names are found, their servers are answered for with errors \
         (--dns-server names whom to ask)",
        FIRST_LOOKUP.as_millis()
    );
    before
}
