//! MigrateRoute: keys move from one place to another, each at its own moment of an interval.

use super::super::hash::{KeyPart, spooky};
use super::super::request::{OperationClass, OwnedRequest};
use super::all::to_all;
use super::frame::{Parent, State, Step};
use super::tree::NodeId;

/// See [`super::super::config::Handle::Migrate`].
#[derive(Debug)]
pub(super) struct Migrate {
    pub from: NodeId,
    pub to: NodeId,
    pub start_s: i64,
    /// At least 1.
    pub interval_s: i64,
    pub key_part: KeyPart,
}

impl Migrate {
    pub fn start(&self, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let now_s = (step.now_ms / 1000) as i64;
        let between =
            now_s >= self.start_s && now_s < self.start_s.saturating_add(self.interval_s.saturating_mul(2));
        if request.class() == OperationClass::Delete && between {
            // Proxies whose clocks differ may have the key in either place.
            return to_all(step, node, &[self.from, self.to], &request, parent, State::Worst(None));
        }
        let hash = i64::from(spooky::spooky32(self.key_part.of(request.key()), 0));
        let moved = now_s >= self.start_s.saturating_add(hash % self.interval_s);
        step.start(if moved { self.to } else { self.from }, request, parent);
    }
}
