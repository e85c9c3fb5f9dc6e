//! A shard inside a glommio executor that is pinned to its core. It hosts the io_uring driver.
//!
//! glommio starts and pins the thread, and runs its timers. One task that lives as long as the executor takes
//! the shard's turns. Two features of glommio 0.9 are not used. Its preemption can put an executor to sleep
//! that has work to do, since it takes a task that is preempted before it first polls for "nothing to run".
//! So the preempt timer is set to an hour, and the task yields by its own clock. And `yield_now` runs the
//! same queue again without looking for I/O. So to yield, the task awaits a real completion.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares};
use rustix::event::EventfdFlags;

use corecached_net::UringDriver;
use corecached_net::tls::SecureDriver;

use crate::service::Service;
use crate::turn::{Progress, Shard};

/// The longest wait inside the shard's own ring. When it ends with nothing to do, the executor goes to sleep.
const WAIT_MAX: Duration = Duration::from_millis(10);
/// How often the task yields to the other tasks of the executor under load.
const YIELD_PERIOD: Duration = Duration::from_millis(10);
/// Turns between two looks at the clock for [`YIELD_PERIOD`].
const TURNS_PER_CLOCK_LOOK: u32 = 8;
/// Items expire by the second, so a shard that sleeps is woken once a second to look at the clock.
const TICK: Duration = Duration::from_secs(1);
/// So long that glommio never preempts the task.
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);
/// Bytes of I/O memory that glommio registers for each executor. The least that it takes, since none of its
/// I/O is on the data path.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Entries of glommio's own rings.
const RING_DEPTH: usize = 128;

fn builder(core: usize, name: &str) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(name)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT_TIMER)
}

/// The file from which glommio reads which cores there are.
const CORES_FILE: &str = "/sys/devices/system/cpu/online";

/// Why glommio cannot host a shard.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The file that names the cores of the machine cannot be read.
    #[error("glommio: {CORES_FILE}: {0}")]
    Cores(io::Error),
    /// The executor cannot be started, or ended with an error.
    #[error("glommio: {0}")]
    Executor(glommio::GlommioError<()>),
}

/// Checks that glommio can start an executor on `core`: it locks memory, and reads which cores there are. To
/// be called only when io_uring is known to work, since glommio panics when it does not.
///
/// # Errors
/// When it cannot.
pub fn probe(core: usize) -> Result<(), ExecutorError> {
    // Without this file glommio panics, and a container may have no /sys.
    std::fs::metadata(CORES_FILE).map_err(ExecutorError::Cores)?;
    let handle = builder(core, "probe").spawn(|| async {}).map_err(ExecutorError::Executor)?;
    handle.join().map_err(ExecutorError::Executor)
}

/// Starts an executor on `core`. `make` is called on its thread and builds the shard. When it returns `None`,
/// the executor ends.
///
/// # Errors
/// When glommio cannot start an executor.
pub fn spawn<D: UringDriver + SecureDriver + 'static, S: Service>(
    core: usize,
    name: &str,
    make: impl FnOnce() -> Option<Shard<D, S>> + Send + 'static,
) -> Result<ExecutorJoinHandle<io::Result<()>>, ExecutorError> {
    let started = builder(core, name).spawn(move || async move {
        let Some(shard) = make() else { return Ok(()) };
        let executor = glommio::executor();
        // `Latency::Matters` would set a shorter preempt timer.
        let queue = executor.create_task_queue(Shares::Static(1000), Latency::NotImportant, "network");
        match glommio::spawn_local_into(drive(shard), queue) {
            Ok(task) => task.await,
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    });
    started.map_err(ExecutorError::Executor)
}

/// Takes turns until the server has stopped.
async fn drive<D: UringDriver + SecureDriver, S: Service>(mut shard: Shard<D, S>) -> io::Result<()> {
    let wakeup = EventFd::new()?;
    shard.driver_mut().uring().register_eventfd(wakeup.as_fd())?;
    let _tick = glommio::spawn_local(tick(wakeup.try_clone()?));
    let mut yielded = Instant::now();
    let mut turns = 0u32;
    loop {
        match shard.turn(WAIT_MAX)? {
            Progress::Finished => return Ok(()),
            Progress::Worked => {}
            Progress::Idle => {
                shard.driver_mut().uring().signal_completions(true);
                if shard.park() {
                    // Completions that came before the signal was switched on do not write to the eventfd.
                    if !shard.driver_mut().has_pending() {
                        wakeup.wait().await?;
                    }
                    shard.unpark();
                }
                shard.driver_mut().uring().signal_completions(false);
                continue;
            }
        }
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(TURNS_PER_CLOCK_LOOK) && yielded.elapsed() >= YIELD_PERIOD {
            yielded = Instant::now();
            wakeup.signal()?;
            wakeup.wait().await?;
        }
    }
}

/// Wakes the shard once a [`TICK`].
async fn tick(wakeup: OwnedFd) {
    loop {
        glommio::timer::sleep(TICK).await;
        let _ = rustix::io::write(&wakeup, &1u64.to_ne_bytes());
    }
}

/// An eventfd that wakes the task: the ring, the tick and the task itself write to it, and the task awaits it
/// through glommio.
struct EventFd {
    file: glommio::io::BufferedFile,
}

impl EventFd {
    fn new() -> io::Result<Self> {
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is open, and the file is its only owner from now on.
        let file = unsafe { glommio::io::BufferedFile::from_raw_fd(eventfd.into_raw_fd()) };
        Ok(Self { file })
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the file keeps the descriptor open while it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) }
    }

    fn try_clone(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    fn signal(&self) -> io::Result<()> {
        rustix::io::write(self.as_fd(), &1u64.to_ne_bytes())?;
        Ok(())
    }

    /// Waits until somebody has written. Meanwhile the executor runs its other tasks, or sleeps.
    async fn wait(&self) -> io::Result<()> {
        self.file.read_at(0, 8).await.map(|_| ()).map_err(|error| io::Error::other(error.to_string()))
    }
}
