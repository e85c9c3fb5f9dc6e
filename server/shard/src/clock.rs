//! The server's time, in whole unix seconds. It does not follow changes of the system's time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A clock that is set from the wall clock at start and then counts by the monotonic clock. So nothing
/// expires when somebody sets the system's time.
#[derive(Debug)]
pub struct Clock {
    started_unix_s: u32,
    started_monotonic_s: i64,
    /// The difference between unix milliseconds and monotonic milliseconds at the start.
    offset_ms: i64,
    /// Seconds that `debugtime SECONDS` has added.
    ahead_s: AtomicU32,
    /// The unix second at which `debugtime p` stopped the clock; 0 while it runs.
    stopped_at_s: AtomicU32,
    /// The unix milliseconds of a simulation. `Some` replaces the system's clocks.
    simulated_ms: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Self {
            started_unix_s: unix as u32,
            started_monotonic_s: monotonic_s(),
            offset_ms: unix_ms as i64 - monotonic_ms(),
            ahead_s: AtomicU32::new(0),
            stopped_at_s: AtomicU32::new(0),
            simulated_ms: None,
        }
    }

    /// A clock for simulations: it shows `unix_ms`, which the simulation changes.
    #[must_use]
    pub fn simulated(unix_ms: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Self {
        let started_unix_s = (unix_ms.load(Ordering::Relaxed) / 1000) as u32;
        Self { started_unix_s, simulated_ms: Some(unix_ms), ..Self::start() }
    }

    /// The time in unix seconds. Takes about 10 ns, without a system call.
    #[must_use]
    pub fn now_s(&self) -> u32 {
        match self.stopped_at_s.load(Ordering::Relaxed) {
            0 => self
                .started_unix_s
                .saturating_add(self.uptime_s())
                .saturating_add(self.ahead_s.load(Ordering::Relaxed)),
            at => at,
        }
    }

    /// Stops the clock (`debugtime p`).
    pub fn stop(&self) {
        self.stopped_at_s.store(self.now_s(), Ordering::Relaxed);
    }

    /// Lets a stopped clock run again (`debugtime r`). It then shows the time as if it had never stopped.
    pub fn resume(&self) {
        self.stopped_at_s.store(0, Ordering::Relaxed);
    }

    /// Puts the clock ahead by so many seconds, stopped or not (`debugtime SECONDS`).
    pub fn advance(&self, seconds: u32) {
        self.ahead_s.fetch_add(seconds, Ordering::Relaxed);
        if self.stopped_at_s.load(Ordering::Relaxed) != 0 {
            self.stopped_at_s.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    /// The time in unix milliseconds, correct to a few of them. Takes about 10 ns, without a system call.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        if let Some(unix_ms) = &self.simulated_ms {
            return unix_ms.load(Ordering::Relaxed);
        }
        (self.offset_ms + monotonic_ms()) as u64
    }

    /// Seconds since the server started.
    #[must_use]
    pub fn uptime_s(&self) -> u32 {
        if let Some(unix_ms) = &self.simulated_ms {
            return (unix_ms.load(Ordering::Relaxed) / 1000) as u32 - self.started_unix_s;
        }
        (monotonic_s() - self.started_monotonic_s) as u32
    }
}

fn monotonic_ms() -> i64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

fn monotonic_s() -> i64 {
    clock_gettime(ClockId::MonotonicCoarse).tv_sec
}
