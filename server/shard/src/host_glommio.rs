//! A shard inside a glommio executor pinned to its core: the host of the io_uring driver.
//!
//! glommio starts and places the thread and runs its timers; the shard's ring is driven by one long-lived task. Two
//! things of glommio 0.9 are kept at arm's length. Its preemption can put an executor to sleep with work to do (a task
//! preempted before its first look counts as "nothing to run"), so the preempt timer is out of reach and the task
//! gives way by its own clock. And `yield_now` reruns the same queue without looking for I/O, so giving way is to await
//! a real completion.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares};
use rustix::event::EventfdFlags;

use corecached_net::Ring;
use corecached_net::tls::SecureDriver;

use crate::service::Service;
use crate::turn::{Progress, Shard};

/// Longest wait inside the shard's own ring. An empty one means idle, and then the executor parks for real.
const WAIT: Duration = Duration::from_millis(10);
/// How often other tasks of the executor get a turn under load.
const GIVE_WAY_EVERY: Duration = Duration::from_millis(10);
/// Turns between looks at the clock for that.
const TURNS_PER_LOOK: u32 = 8;
/// Expiry wants a look at the clock once a second, also when parked.
const TICK: Duration = Duration::from_secs(1);
/// Never: see the head of the file.
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);
/// glommio's registered I/O memory per executor, bytes: its least. None of its I/O is on the data path.
const IO_MEMORY: usize = 64 << 10;
/// Entries of glommio's own rings.
const RING_DEPTH: usize = 128;

fn builder(core: usize, name: &str) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(name)
        .io_memory(IO_MEMORY)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT_TIMER)
}

/// Where glommio reads which cores there are.
const CORES: &str = "/sys/devices/system/cpu/online";

/// Whether glommio can start an executor on `core`: it wants to lock memory, and to read about cores. Call it only when
/// io_uring works at all, for otherwise it panics.
///
/// # Errors
/// What it said.
pub fn probe(core: usize) -> Result<(), String> {
    // Without it, it panics: a container may have no /sys.
    std::fs::metadata(CORES).map_err(|error| format!("glommio: {CORES}: {error}"))?;
    let handle = builder(core, "probe").spawn(|| async {}).map_err(|error| format!("glommio: {error}"))?;
    handle.join().map_err(|error| format!("glommio: {error}"))
}

/// Start an executor on `core`. `make` is called on its thread to build the shard; returning `None` ends it.
///
/// # Errors
/// When glommio cannot start an executor.
pub fn spawn<D: Ring + SecureDriver + 'static, S: Service>(
    core: usize,
    name: &str,
    make: impl FnOnce() -> Option<Shard<D, S>> + Send + 'static,
) -> Result<ExecutorJoinHandle<io::Result<()>>, String> {
    let started = builder(core, name).spawn(move || async move {
        let Some(shard) = make() else { return Ok(()) };
        let executor = glommio::executor();
        // `Latency::Matters` would bring the preempt timer back.
        let queue = executor.create_task_queue(Shares::Static(1000), Latency::NotImportant, "network");
        match glommio::spawn_local_into(drive(shard), queue) {
            Ok(task) => task.await,
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    });
    started.map_err(|error| format!("glommio: {error}"))
}

/// Take turns until the server has stopped.
async fn drive<D: Ring + SecureDriver, S: Service>(mut shard: Shard<D, S>) -> io::Result<()> {
    let bell = Bell::new()?;
    shard.driver_mut().ring().register_eventfd(bell.raw())?;
    let _tick = glommio::spawn_local(tick(bell.handle()?));
    let mut looked = Instant::now();
    let mut turns = 0u32;
    loop {
        match shard.turn(WAIT)? {
            Progress::Finished => return Ok(()),
            Progress::Worked => {}
            Progress::Idle => {
                shard.driver_mut().ring().signal_completions(true);
                if shard.park() {
                    // Completions that came before the signal was on would not ring.
                    if !shard.driver_mut().pending() {
                        bell.heard().await?;
                    }
                    shard.unpark();
                }
                shard.driver_mut().ring().signal_completions(false);
                continue;
            }
        }
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(TURNS_PER_LOOK) && looked.elapsed() >= GIVE_WAY_EVERY {
            looked = Instant::now();
            bell.ring()?;
            bell.heard().await?;
        }
    }
}

async fn tick(bell: OwnedFd) {
    loop {
        glommio::timer::sleep(TICK).await;
        let _ = rustix::io::write(&bell, &1u64.to_ne_bytes());
    }
}

/// An eventfd that the ring, the tick and the task itself write to, and that the task awaits through glommio.
struct Bell {
    file: glommio::io::BufferedFile,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is open, and the file becomes its only owner.
        let file = unsafe { glommio::io::BufferedFile::from_raw_fd(eventfd.into_raw_fd()) };
        Ok(Self { file })
    }

    fn raw(&self) -> i32 {
        self.file.as_raw_fd()
    }

    fn handle(&self) -> io::Result<OwnedFd> {
        // SAFETY: the file keeps the descriptor open for the length of this call.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.raw()) };
        borrowed.try_clone_to_owned()
    }

    fn ring(&self) -> io::Result<()> {
        // SAFETY: as in `handle`.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.raw()) };
        rustix::io::write(borrowed, &1u64.to_ne_bytes())?;
        Ok(())
    }

    /// Until it rings; the executor sees to its other tasks, or sleeps, meanwhile.
    async fn heard(&self) -> io::Result<()> {
        self.file.read_at(0, 8).await.map(|_| ()).map_err(|error| io::Error::other(error.to_string()))
    }
}
