//! The log of the control thread, for operators: the configurations it read, the changes of addresses it
//! found, and the pools in use. Written by the control thread and read by the admin server; no shard touches
//! it. Keeps the last few events.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::config::{Config, Hash, Member, Pool, PoolUse, ResolvedPools, Server};
use crate::hash::{KeyPart, Ring, RingSpec};
use corecached_shard::ConfigError;

/// Most reloads that are kept.
const RELOADS_MAX: usize = 8;
/// Most changes of addresses that are kept.
const MOVES_MAX: usize = 32;
/// Most bytes of the text of one event; what is longer is cut off.
const TEXT_BYTES_MAX: usize = 512;
/// Keys that the share of a member is measured with, which makes it exact to a percent or two.
const SAMPLES: usize = 4096;

/// Something that the control thread did or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlEvent {
    /// Unix time, seconds.
    pub at_s: u32,
    /// Whether it is an error.
    pub is_error: bool,
    /// What happened, as text for operators.
    pub text: String,
}

/// The log of the control thread.
#[derive(Debug, Default)]
pub struct ControlLog {
    reloads: AtomicU64,
    entries: Mutex<LogEntries>,
}

#[derive(Debug, Default)]
struct LogEntries {
    reloads: VecDeque<ControlEvent>,
    moves: VecDeque<ControlEvent>,
    layout: Option<Arc<PoolLayout>>,
}

impl ControlLog {
    fn entries(&self) -> MutexGuard<'_, LogEntries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a changed configuration was read, and whether it could be used.
    pub(crate) fn record_reload(&self, at_s: u32, outcome: Result<(), &ConfigError>) {
        let text = match outcome {
            Ok(()) => "in use".to_owned(),
            Err(error) => error.to_string(),
        };
        self.reloads.fetch_add(outcome.is_ok().into(), Ordering::Relaxed);
        push(
            &mut self.entries().reloads,
            RELOADS_MAX,
            ControlEvent { at_s, is_error: outcome.is_err(), text },
        );
    }

    /// Records changes of addresses, one event for each of `changes`.
    pub(crate) fn record_moves(&self, at_s: u32, changes: Vec<String>) {
        let mut entries = self.entries();
        for text in changes.into_iter().take(MOVES_MAX) {
            push(&mut entries.moves, MOVES_MAX, ControlEvent { at_s, is_error: false, text });
        }
    }

    /// Sets the pools that are in use now: those of `config`, with the members `found` for them.
    pub(crate) fn set_layout(&self, config: &Config, found: &ResolvedPools) {
        let layout = PoolLayout { config: config.clone(), found: found.clone(), rings: OnceLock::new() };
        self.entries().layout = Some(Arc::new(layout));
    }

    /// The number of changed configurations that could be used.
    #[must_use]
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// The last changed configurations, good and bad, the latest first.
    #[must_use]
    pub fn last_reloads(&self) -> Vec<ControlEvent> {
        self.entries().reloads.iter().rev().cloned().collect()
    }

    /// The last changes of addresses, the latest first.
    #[must_use]
    pub fn last_moves(&self) -> Vec<ControlEvent> {
        self.entries().moves.iter().rev().cloned().collect()
    }

    /// The pools in use; `None` before the control thread runs.
    #[must_use]
    pub fn layout(&self) -> Option<Arc<PoolLayout>> {
        self.entries().layout.clone()
    }
}

fn push(events: &mut VecDeque<ControlEvent>, events_max: usize, mut event: ControlEvent) {
    if event.text.len() > TEXT_BYTES_MAX {
        let fits = |&at: &usize| event.text.is_char_boundary(at);
        event.text.truncate((0..=TEXT_BYTES_MAX).rev().find(fits).unwrap_or_default());
        event.text.push('…');
    }
    while events.len() >= events_max {
        events.pop_front();
    }
    events.push_back(event);
}

/// The pools of a configuration, with the members found.
#[derive(Debug)]
pub struct PoolLayout {
    config: Config,
    found: ResolvedPools,
    rings: OnceLock<Vec<RingView>>,
}

/// How the keys of one pool are laid out.
#[derive(Clone, Debug, PartialEq)]
pub struct RingView {
    /// The name of the pool.
    pub pool: String,
    /// How keys are distributed; `None` if no route hashes over the pool.
    pub scheme: Option<String>,
    /// The number of copies of each key.
    pub copies: u32,
    /// The address of each member, with its share of the keys from 0 to 1 if that is known.
    pub members: Vec<(String, Option<f64>)>,
}

impl PoolLayout {
    fn found(&self, pool: &Pool) -> Option<&[Server]> {
        if pool.resolve { self.found.get(&pool.name).map(Vec::as_slice) } else { None }
    }

    /// The name of each pool with the number of its members.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize)> {
        let size = |pool: &Pool| self.found(pool).map_or(pool.members.len(), <[Server]>::len);
        self.config.pools.iter().map(move |pool| (pool.name.as_str(), size(pool)))
    }

    /// The rings of all pools, computed at the first call.
    #[must_use]
    pub fn rings(&self) -> &[RingView] {
        self.rings.get_or_init(|| self.compute_rings())
    }

    fn compute_rings(&self) -> Vec<RingView> {
        let mut views = Vec::new();
        for (at, pool) in self.config.pools.iter().enumerate() {
            let before = views.len();
            for handle in &self.config.handles {
                if let Some(PoolUse { pool: id, hash, replicas }) = handle.pool_use()
                    && id.0 as usize == at
                {
                    let view = self.view(pool, Some(hash), replicas);
                    if !views[before..].contains(&view) {
                        views.push(view);
                    }
                }
            }
            if views.len() == before {
                views.push(self.view(pool, None, 1));
            }
        }
        views
    }

    fn view(&self, pool: &Pool, hash: Option<&Hash>, copies: u32) -> RingView {
        let found = self.found(pool);
        let names: Vec<String> = match found {
            Some(servers) => servers.iter().map(|server| server.address.to_string()).collect(),
            None => pool.members.iter().map(name).collect(),
        };
        let shares = hash.and_then(|hash| shares(hash, pool, found));
        let share = |at: usize| shares.as_ref().and_then(|shares| shares.get(at).copied());
        RingView {
            pool: pool.name.clone(),
            scheme: hash.map(scheme),
            copies,
            members: names.into_iter().enumerate().map(|(at, name)| (name, share(at))).collect(),
        }
    }
}

fn name(member: &Member) -> String {
    match member {
        Member::Server(server) => server.address.to_string(),
        Member::Handle(_) => "(a route)".to_owned(),
    }
}

fn scheme(hash: &Hash) -> String {
    let mut text = format!("{:?}", hash.distribution);
    if let KeyPart::Before(stop) = &hash.key_part {
        text.push_str(&format!(", of the key before {}", String::from_utf8_lossy(stop)));
    } else if let KeyPart::Between(open, close) = hash.key_part {
        text.push_str(&format!(", of the key between {} and {}", open as char, close as char));
    }
    if !hash.salt.is_empty() {
        text.push_str(&format!(", salt {}", hash.salt));
    }
    text
}

/// The share of the keys of each member, from 0 to 1.
fn shares(hash: &Hash, pool: &Pool, found: Option<&[Server]>) -> Option<Vec<f64>> {
    let servers = hash.ring_servers(pool, found);
    let (distribution, key_part) = (hash.distribution.clone(), hash.key_part.clone());
    let spec = RingSpec { distribution, key_part, salt: hash.salt.clone().into_bytes() };
    let ring = Ring::build(&spec, &servers).ok()?;
    let mut counts = vec![0u32; servers.len()];
    for sample in 0..SAMPLES {
        if let Some(count) = counts.get_mut(ring.pick(format!("key-{sample}").as_bytes())) {
            *count += 1;
        }
    }
    Some(counts.into_iter().map(|count| f64::from(count) / SAMPLES as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    #[test]
    fn the_last_few_are_kept_and_what_they_say_is_cut_off() {
        let log = ControlLog::default();
        let long = ConfigError::new("configuration", "", &"é".repeat(TEXT_BYTES_MAX), 78);
        for at_s in 0..3 * RELOADS_MAX as u32 {
            log.record_reload(at_s, if at_s % 2 == 0 { Ok(()) } else { Err(&long) });
        }
        let reloads = log.last_reloads();
        assert_eq!((reloads.len(), reloads[0].at_s), (RELOADS_MAX, 3 * RELOADS_MAX as u32 - 1));
        assert!(reloads[0].is_error && reloads[0].text.len() <= TEXT_BYTES_MAX + '…'.len_utf8());
        assert!(!reloads[1].is_error);
        assert_eq!(log.reloads(), 3 * RELOADS_MAX as u64 / 2);
        log.record_moves(1, (0..10 * MOVES_MAX).map(|number| number.to_string()).collect());
        log.record_moves(2, vec!["last".to_owned()]);
        let moves = log.last_moves();
        assert_eq!((moves.len(), moves[0].text.as_str()), (MOVES_MAX, "last"));
    }

    #[test]
    fn each_ring_of_a_pool_is_shown_once_with_the_shares_of_its_members() {
        let text = r#"{"pools": {
                "a": {"servers": ["one:1", "two:1", "three:1", "four:1"]},
                "b": {"servers": ["name:1"], "resolve": true}},
            "route": {"type": "AllSyncRoute", "children": [
                "PoolRoute|a", "PoolRoute|a",
                {"type": "PoolRoute", "pool": "a", "hash": {"hash_func": "WeightedCh3", "weights": [1, 1, 1, 0]}},
                "Pool|b"]}}"#;
        let import = |_: &str| Err("nothing is imported".into());
        let config = Config::parse("test", text, &Options::default(), &import).unwrap();
        let log = ControlLog::default();
        assert!(log.layout().is_none());
        let Member::Server(server) = &config.pools[1].members[0] else { panic!("a server") };
        let found = [("b".to_owned(), vec![server.clone(); 3])].into();
        log.set_layout(&config, &found);
        let layout = log.layout().unwrap();
        assert_eq!(layout.sizes().collect::<Vec<_>>(), [("a", 4), ("b", 3)]);
        let [even, weighted, unhashed] = layout.rings() else { panic!("{:?}", layout.rings()) };
        for (member, share) in &even.members {
            assert!((0.2..0.3).contains(&share.unwrap()), "{member}: {share:?}");
        }
        assert_eq!(even.members[0].0, "one:1");
        assert!(even.scheme.as_ref().unwrap().starts_with("Ch3"), "{even:?}");
        assert_eq!(weighted.members[3].1, Some(0.0));
        assert_eq!((unhashed.scheme.as_ref(), unhashed.members[2].1), (None, None));
    }
}
