//! The rings that a pool has had: what a warm resize goes from and to. Which of them still count is decided
//! here, by time; what they are good for, by `route::resize`.
//!
//! A list of servers that comes while the ring before is in its grace waits until that is over: so at any
//! moment at most one ring is known and not yet in use, on every proxy, and proxies that learn of the same
//! changes at most a grace apart never differ by more than one step.

use std::collections::{HashMap, VecDeque};

use socket2::SockAddr;

use super::checked::Config;
use super::pool::{Member, Pool, ResolvedPools};
use super::server::{Address, Server};
use super::warm_resize::WarmResize;

/// Rings before the newest that are kept; of more changes within a window the oldest are forgotten.
pub(crate) const EARLIER_MAX: usize = 4;
/// Lists of servers that wait for the grace of those before; of more the newest takes the place of the last.
pub(super) const WAITING_MAX: usize = 4;

/// The servers of a pool at some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    /// In the order that hashing depends on.
    pub members: Vec<Server>,
    /// When they became known, unix milliseconds.
    pub since_ms: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct KnownRings {
    rings: Vec<Ring>,
    /// Lists of servers that came since, at most [`WAITING_MAX`].
    waiting: VecDeque<Vec<Server>>,
}

/// The rings of every pool that resizes warm, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Rings {
    by_pool: HashMap<String, KnownRings>,
    /// Where servers were last known to be: names of those that left are gone.
    addresses: HashMap<Address, SockAddr>,
}

impl Pool {
    /// Why rings of other servers cannot be made for it.
    pub(super) fn never_resizes(&self) -> Option<&'static str> {
        if !self.weights.is_empty() || !self.tags.is_empty() {
            return Some("is not to be had with weights or tags, which belong to places");
        }
        if self.members.iter().any(|member| matches!(member, Member::Handle(_))) {
            return Some("is not to be had with handles among the servers");
        }
        None
    }
}

impl Rings {
    /// The rings of a pool; `None` when its servers are not watched.
    #[must_use]
    pub fn for_pool(&self, pool: &str) -> Option<&[Ring]> {
        self.by_pool.get(pool).map(|known| &known.rings[..])
    }

    /// Takes note of the servers that pools have now, and forgets what no longer counts; whether anything
    /// changed.
    pub fn observe(&mut self, config: &Config, resolved: &ResolvedPools, now_ms: u64) -> bool {
        let mut changed = false;
        let is_watched =
            |name: &str| config.pools.iter().any(|pool| pool.name == name && pool.warm_resize.is_some());
        self.by_pool.retain(|name, _| {
            let watched = is_watched(name);
            changed |= !watched;
            watched
        });
        for pool in &config.pools {
            let Some(times) = pool.warm_resize else { continue };
            let members: Vec<Server> = match resolved.get(&pool.name) {
                Some(found) if pool.resolve => found.clone(),
                _ => pool.members.iter().filter_map(Member::server).cloned().collect(),
            };
            changed |= self.by_pool.entry(pool.name.clone()).or_default().advance(members, &times, now_ms);
        }
        changed
    }

    /// Keeps where servers are, and adds to `addresses` those that only earlier rings have.
    pub fn locate(&mut self, addresses: &mut HashMap<Server, SockAddr>) {
        for (server, address) in addresses.iter() {
            self.addresses.insert(server.address.clone(), address.clone());
        }
        let servers = || self.by_pool.values().flat_map(|known| &known.rings).flat_map(|ring| &ring.members);
        let known: HashMap<&Address, ()> = servers().map(|server| (&server.address, ())).collect();
        let mut kept = self.addresses.clone();
        kept.retain(|address, _| known.contains_key(address));
        for server in servers() {
            if let Some(address) = kept.get(&server.address) {
                addresses.entry(server.clone()).or_insert_with(|| address.clone());
            }
        }
        self.addresses = kept;
    }
}

impl Member {
    /// The server it is, if it is one.
    pub(crate) fn server(&self) -> Option<&Server> {
        match self {
            Self::Server(server) => Some(server),
            Self::Handle(_) => None,
        }
    }
}

fn same(one: &[Server], other: &[Server]) -> bool {
    one.iter().map(|server| &server.address).eq(other.iter().map(|server| &server.address))
}

impl KnownRings {
    /// `members` are the servers now; whether the rings changed.
    fn advance(&mut self, members: Vec<Server>, times: &WarmResize, now_ms: u64) -> bool {
        let before = self.rings.clone();
        let Self { rings, waiting } = self;
        // Timeouts are those of now: else one server would be two.
        if let Some(like) = members.first() {
            let waiting = waiting.iter_mut().flatten();
            for server in rings.iter_mut().flat_map(|ring| &mut ring.members).chain(waiting) {
                server.reply_timeout_ms = like.reply_timeout_ms;
                server.connect_timeout_ms = like.connect_timeout_ms;
            }
        }
        if members.is_empty() || rings.last().is_none_or(|ring| ring.members.is_empty()) {
            // Nothing to take from, or nowhere to take it.
            waiting.clear();
            if rings.last().is_none_or(|ring| !same(&ring.members, &members)) {
                *rings = vec![Ring { members, since_ms: now_ms }];
            }
            return *rings != before;
        }
        let newest = waiting.back().or(rings.last().map(|ring| &ring.members));
        if newest.is_none_or(|newest| !same(newest, &members)) {
            waiting.truncate(WAITING_MAX - 1);
            waiting.push_back(members);
        }
        let in_grace =
            rings.len() > 1 && rings[rings.len() - 1].since_ms.saturating_add(times.grace_ms) > now_ms;
        if !in_grace && let Some(members) = waiting.pop_front() {
            rings.push(Ring { members, since_ms: now_ms });
        }
        let counts_ms = times.window_ms.saturating_add(times.settle_ms());
        let is_over = |rings: &[Ring]| rings[1].since_ms.saturating_add(counts_ms) <= now_ms;
        while rings.len() > 1 && (rings.len() > EARLIER_MAX + 1 || is_over(rings)) {
            rings.remove(0);
        }
        *rings != before
    }
}
