//! Keys that a request is changing, and the requests that wait for the end of that.

use std::cell::RefCell;
use std::collections::HashMap;

use bytes::Bytes;

use crate::request::OwnedRequest;
use crate::route::frame::{Frame, Parent, Step};
use crate::route::outcome;

/// Most requests that wait at one node of a shard for others on their keys. Past it clients get `SERVER_ERROR
/// 307 busy`.
const QUEUE_MAX: usize = 1 << 16;

/// What a shard keeps of a resize: keys that a request is changing, with those that came after it, in their
/// order.
#[derive(Debug, Default)]
pub(in crate::route) struct ChangingKeys(RefCell<KeyQueues>);

#[derive(Debug, Default)]
struct KeyQueues {
    by_key: HashMap<Bytes, Vec<(OwnedRequest, Parent)>>,
    waiting: usize,
}

impl ChangingKeys {
    /// Gives `request` back, unless another request is changing its key: then it waits for that, or is
    /// refused.
    pub(super) fn wait(
        &self,
        step: &mut Step,
        request: OwnedRequest,
        parent: Parent,
    ) -> Option<(OwnedRequest, Parent)> {
        let mut queues = self.0.borrow_mut();
        let KeyQueues { by_key, waiting } = &mut *queues;
        let Some(queue) = by_key.get_mut(request.key()) else { return Some((request, parent)) };
        if *waiting >= QUEUE_MAX {
            step.answer(parent, outcome::busy());
        } else {
            *waiting += 1;
            queue.push((request, parent));
        }
        None
    }

    /// A request begins to change `key`.
    pub(super) fn begin(&self, key: Bytes) {
        let before = self.0.borrow_mut().by_key.insert(key, Vec::new());
        debug_assert!(before.is_none(), "two requests change one key");
    }

    /// The request of `frame`, which changed its key, is done: those that waited for it begin, in their
    /// order.
    pub(super) fn end(&self, frame: &Frame, step: &mut Step) {
        let mut queues = self.0.borrow_mut();
        let waited = queues.by_key.remove(frame.request.key()).unwrap_or_default();
        debug_assert!(queues.waiting >= waited.len());
        queues.waiting -= waited.len();
        for (request, parent) in waited {
            step.start(frame.node, request, parent);
        }
    }
}
