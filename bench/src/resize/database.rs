//! A simulated database: it handles a fixed number of requests at a time, each of which takes a fixed time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A simulated database, which counts its requests.
#[derive(Debug)]
pub(super) struct Database {
    width: usize,
    takes: Duration,
    state: Mutex<DatabaseState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct DatabaseState {
    at_work: usize,
    clients_ready: usize,
    /// Start of the current step; `None` before the first.
    began: Option<Instant>,
    /// Number of requests in each second of each step.
    requests: Vec<Vec<u64>>,
}

impl Database {
    /// Creates a database that handles `width` requests at a time. Requests before the first step are not
    /// counted.
    #[must_use]
    pub(super) const fn new(width: usize, takes: Duration) -> Self {
        let state = DatabaseState { at_work: 0, clients_ready: 0, began: None, requests: Vec::new() };
        Self { width, takes, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, DatabaseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one request: waits until fewer than `width` are being handled, and then for the time of a
    /// request.
    pub(super) fn ask(&self) {
        let mut state = self.state();
        if let Some(began) = state.began
            && let Some(step) = state.requests.last_mut()
        {
            let second = began.elapsed().as_secs() as usize;
            step.resize(step.len().max(second + 1), 0);
            step[second] += 1;
        }
        while state.at_work >= self.width {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.at_work += 1;
        drop(state);
        std::thread::sleep(self.takes);
        self.state().at_work -= 1;
        self.changed.notify_all();
    }

    /// Records that a client has set its keys.
    pub(super) fn client_is_ready(&self) {
        self.state().clients_ready += 1;
        self.changed.notify_all();
    }

    /// Waits until `count` clients have set their keys.
    pub(super) fn wait_for_clients(&self, count: usize) {
        let mut state = self.state();
        while state.clients_ready < count {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts the next step.
    pub(super) fn begin_step(&self) {
        let mut state = self.state();
        state.began = Some(Instant::now());
        state.requests.push(Vec::new());
    }

    /// Returns the number of requests in each second of a step.
    #[must_use]
    pub(super) fn per_second(&self, step: usize) -> Vec<u64> {
        self.state().requests.get(step).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_a_time_and_each_takes_its_while() {
        let database = Database::new(2, Duration::from_millis(20));
        database.ask(); // before the first step: not counted
        database.begin_step();
        let began = Instant::now();
        std::thread::scope(|scope| (0..6).for_each(|_| _ = scope.spawn(|| database.ask())));
        assert!(began.elapsed() >= Duration::from_millis(60), "{:?}", began.elapsed());
        assert_eq!(database.per_second(0).iter().sum::<u64>(), 6);
    }
}
