//! Where a request would go: it is routed, and every destination is answered as an empty server would answer.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corecached_protocol::{
    Arithmetic, Command, Delete, Exptime, Meta, MetaFlags, MetaVerb, Reply, Retrieve, Store, StoreVerb, Touch,
};

use super::action::{Action, ExecutionLimits};
use super::execution::Execution;
use super::outcome;
use super::tree::{Routes, Tree};
use crate::request::{Operation, OwnedRequest};

/// Requests that are followed, at most: a route may send a request on for ever only if there is a bug in it.
const SENT_MAX: usize = 10_000;

/// The addresses of the destinations that a request for `key` is sent to, in this order. Nothing is sent, and nothing
/// of it is remembered. `key` is one that a text line can name.
pub(crate) fn destinations_of(tree: &Arc<Tree>, operation: Operation, key: &[u8]) -> Vec<String> {
    let places = (0..tree.destinations().len() as u32).collect();
    let routes = Rc::new(Routes::with_places(Arc::clone(tree), places));
    let mut execution = Execution::new(&ExecutionLimits::default(), 0);
    let Some(request) = OwnedRequest::new(&command(operation, key), Bytes::new()) else { return Vec::new() };
    let (mut actions, mut waiting) = (Vec::new(), VecDeque::new());
    let (mut found, mut now_ms) = (Vec::new(), 0);
    execution.begin(&routes, request, 0, now_ms, &mut actions);
    for _ in 0..SENT_MAX {
        waiting.extend(actions.drain(..));
        let Some(action) = waiting.pop_front() else {
            // Some handles hold requests back for a time.
            let Some(at_ms) = execution.next_deadline_ms() else { break };
            now_ms = at_ms;
            execution.tick(now_ms, &mut actions);
            continue;
        };
        match action {
            Action::Send { call, place, request, .. } => {
                found.push(tree.destinations()[place as usize].server.address.to_string());
                execution.replied(call, outcome::null(&request), now_ms, &mut actions);
            }
            Action::Keep { call, .. } => execution.replied(call, Reply::NotFound, now_ms, &mut actions),
            Action::Answer { .. } => {}
        }
    }
    found
}

fn command(operation: Operation, key: &[u8]) -> Command<'_> {
    let retrieve = |with_cas, touch| Command::Retrieve(Retrieve { key, with_cas, touch, last: true });
    let store = |verb| {
        Command::Store(Store {
            verb,
            key,
            client_flags: 0,
            exptime: Exptime(0),
            value_len: 0,
            cas_unique: 1,
            noreply: false,
        })
    };
    let count = |decrement| Command::Arithmetic(Arithmetic { key, delta: 1, decrement, noreply: false });
    match operation {
        Operation::Get => retrieve(false, None),
        Operation::Gets => retrieve(true, None),
        Operation::Gat => retrieve(false, Some(Exptime(0))),
        Operation::Gats => retrieve(true, Some(Exptime(0))),
        Operation::Set => store(StoreVerb::Set),
        Operation::Add => store(StoreVerb::Add),
        Operation::Replace => store(StoreVerb::Replace),
        Operation::Append => store(StoreVerb::Append),
        Operation::Prepend => store(StoreVerb::Prepend),
        Operation::Cas => store(StoreVerb::Cas),
        Operation::Incr => count(false),
        Operation::Decr => count(true),
        Operation::Touch => Command::Touch(Touch { key, exptime: Exptime(0), noreply: false }),
        Operation::Delete => Command::Delete(Delete { key, noreply: false }),
        Operation::Metaget => {
            Command::Meta(Meta { verb: MetaVerb::Debug, key, value_len: 0, flags: MetaFlags::default() })
        }
    }
}
