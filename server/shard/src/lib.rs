//! One core's shard: its slice of the keys, its connections, its ends of the mesh, and the turn that works on them.
//!
//! [`Shard::turn`] is the whole data path: take what the kernel and the other shards have, parse and answer, publish,
//! send. It never blocks but in the driver's wait, takes no lock, and reads the clock once. What hosts it (a glommio
//! executor or a plain thread) is in [`crate::runtime`].

mod auth;
mod binary;
mod control;
pub mod core;
mod dump;
pub mod execute;
pub mod lock;
pub mod mesh;
pub mod message;
pub mod owner;
mod requests;
pub mod slice;
pub mod spsc;
mod uploads;
mod watch;

use std::io;
use std::time::Duration;

pub use self::core::{Core, CoreSetup};
pub use self::owner::owner_of;

use crate::net::{Close, Driver, Event, Wait};

/// Items that expiry and other upkeep may look at in one turn.
const UPKEEP_ITEMS: usize = 64;
/// A host that sleeps looks at the clock this often at least; what is due before keeps it awake.
const PARK_MIN: Duration = Duration::from_secs(1);
/// A client that does not take its last replies is cut off after this long when the server stops.
const DRAIN_LIMIT_S: u32 = 5;

/// A shard over one kind of driver.
pub struct Shard<D> {
    driver: D,
    core: Core,
    events: Vec<Event>,
    draining_since_s: Option<u32>,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There was something to do.
    Worked,
    /// There was nothing.
    Idle,
    /// The server is stopping and every connection has closed.
    Finished,
}

impl<D: Driver> Shard<D> {
    /// A shard that is ready to take turns; tells the others how to wake it.
    pub fn new(driver: D, setup: CoreSetup) -> Self {
        let core = Core::new(setup);
        core.set_waker(driver.waker());
        Self { driver, core, events: Vec::new(), draining_since_s: None }
    }

    /// The driver, for hosts that know its kind.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// What it forwards with, if it is a proxy's.
    #[cfg(test)]
    pub(crate) fn relay(&self) -> Option<&crate::proxy::relay::Relay> {
        self.core.relay.as_deref()
    }

    /// Work on everything that is there, having waited for it at most `limit` when nothing was.
    ///
    /// # Errors
    /// Only what leaves the driver unusable.
    pub fn turn(&mut self, limit: Duration) -> io::Result<Progress> {
        let limit = self.core.wait_limit(limit);
        let may_wait = !limit.is_zero() && !self.core.has_work() && self.core.park();
        let wait = if may_wait { Wait::AtMost(limit) } else { Wait::No };
        let outcome = self.driver.turn(wait, &mut self.events);
        if may_wait {
            self.core.unpark();
        }
        outcome?;
        self.core.begin_turn(self.driver.take_arena(), may_wait);
        let mut worked = !self.events.is_empty();
        self.take_events();
        worked |= self.core.take_refreshed();
        worked |= self.core.take_messages();
        worked |= self.core.go_on();
        self.core.receive_values(&mut self.driver);
        worked |= self.core.upkeep(UPKEEP_ITEMS);
        self.finish_turn();
        while let Some(conn) = self.core.next_idle() {
            // What the client did not take is no sign of its being idle.
            if self.driver.backlog(conn) == 0 {
                self.driver.close(conn, Close::AfterSend);
                self.core.kicked(conn);
            }
        }
        if self.core.stopping() && self.drained() {
            self.core.save_contents();
            return Ok(Progress::Finished);
        }
        self.core.count_turn(worked, self.driver.accept_failures());
        Ok(if worked { Progress::Worked } else { Progress::Idle })
    }

    /// Tell the others that this shard is about to sleep in its host. False when there is work after all.
    #[must_use]
    pub fn park(&mut self) -> bool {
        let has_deadline = self.core.wait_limit(PARK_MIN) < PARK_MIN;
        !has_deadline && !self.core.has_work() && self.core.park()
    }

    /// Awake again.
    pub fn unpark(&mut self) {
        self.core.unpark();
    }

    fn take_events(&mut self) {
        for event in self.events.drain(..) {
            let Some(event) = self.core.relay_event(event, &mut self.driver) else { continue };
            match event {
                Event::Received { conn, buffer } => {
                    self.core.received(conn, self.driver.received(buffer));
                    self.driver.recycle(buffer);
                }
                Event::Accepted { conn, listener } => {
                    self.core.accepted(conn, listener, self.driver.peer(conn));
                }
                Event::Connected { conn: _ } => {}
                Event::Ended { conn } => self.core.ended(conn),
                Event::Closed { conn } => self.core.closed_for(conn, "error"),
                Event::Drained { conn } => self.core.drained(conn),
                Event::Released { pinned } => self.core.give_back(pinned),
            }
        }
    }

    /// Publish to the mesh, then send; then tell the driver which connections to leave alone, or to close.
    fn finish_turn(&mut self) {
        let driver = &mut self.driver;
        self.core.relay(driver);
        self.core.publish(|waker| driver.wake(waker));
        let arena = self.core.end_turn();
        self.driver.send(arena, self.core.sends());
        while let Some(index) = self.core.next_touched() {
            self.core.settle(index, &mut self.driver);
        }
    }

    /// Stop accepting, close what has been answered, and in the end what has not.
    fn drained(&mut self) -> bool {
        let now_s = self.core.now_s();
        let since_s = *self.draining_since_s.get_or_insert_with(|| {
            self.driver.stop_accepting();
            now_s
        });
        let overdue = now_s.saturating_sub(since_s) > DRAIN_LIMIT_S;
        for conn in self.core.answered_conns(overdue) {
            if !overdue && self.driver.backlog(conn) > 0 {
                continue; // its last reply has not gone out
            }
            let how = if overdue { Close::Now } else { Close::AfterSend };
            self.driver.close(conn, how);
            self.core.closed_for(conn, "shutdown");
        }
        let all_sent = overdue || !self.driver.has_unsent();
        self.core.has_no_conns() && all_sent && self.core.others_drained()
    }
}
