//! The order in which `DeterministicOrderPolicy` tries the children of a failover: the first, then where a hash of
//! the key with one salt after the other leads.

use std::sync::Arc;

use crate::hash::Ring;

/// The salt of the second child, as in mcrouter; each further one is greater by one.
const SALT_FIRST: u32 = 2;
/// Salts that are tried for one child, at most, as in mcrouter.
const ATTEMPTS_MAX: usize = 101;

/// The order in which one key tries the children.
#[derive(Debug)]
pub(in crate::route) struct HashedOrder {
    /// A ring over all children, the first included.
    pub ring: Ring,
    pub children: usize,
    /// The ring of the pool that child 0 is, if it is one: child `at + 1` is its server `at`, which has failed then.
    pub own: Option<Arc<Ring>>,
}

impl HashedOrder {
    /// Child 0, then the others in the order in which salts first hit them, but for the server that child 0 sends
    /// to. Those that no salt hits follow as written.
    pub(super) fn order(&self, key: &[u8]) -> Vec<u32> {
        let mut used = vec![false; self.children];
        let mut order = Vec::with_capacity(self.children);
        order.push(0);
        let own = self.own.as_ref().map(|ring| ring.pick(key) + 1);
        for at in [Some(0), own].into_iter().flatten() {
            used.iter_mut().skip(at).take(1).for_each(|used| *used = true);
        }
        let mut salts = SALT_FIRST..;
        while used.contains(&false) {
            let mut hits = salts.by_ref().take(ATTEMPTS_MAX).map(|salt| self.ring.pick_resalted(key, salt));
            let Some(child) = hits.find(|&child| used.get(child) == Some(&false)) else { break };
            used[child] = true;
            order.push(child as u32);
        }
        let missed = used.iter().enumerate().filter(|(_, used)| !**used);
        order.extend(missed.map(|(child, _)| child as u32));
        order
    }
}
