//! Where threads run: which cores, and ahead of ordinary ones.

use std::io;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Failure;

/// Keep the calling thread, and what it starts, on these cores.
///
/// # Errors
/// When there is no such core.
pub fn pin(cores: &[usize]) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).map_err(|error| Failure::new(format!("cores {cores:?}: {error}")))
}

/// The cores this process may run on, ascending; core 0 where that cannot be read.
#[must_use]
pub fn cores() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Run a thread (0: the calling one) before all ordinary threads: SCHED_FIFO, priority 1.
///
/// # Errors
/// Without the privilege to do so.
pub fn run_first(thread: u32) -> Result<(), Failure> {
    let parameter = libc::sched_param { sched_priority: 1 };
    let thread = libc::pid_t::try_from(thread).map_err(|_| Failure::new("no such thread"))?;
    // SAFETY: the parameter is read during the call and kept by nobody.
    let outcome = unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameter) };
    if outcome == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("SCHED_FIFO: {}", io::Error::last_os_error())))
}

/// Let this process have as many descriptors as it may.
pub fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Failing leaves the old limit; connecting says then what is missing.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Stop (SIGSTOP), continue or end a process that this one started.
///
/// # Errors
/// When it is gone.
pub fn signal(pid: u32, signal: rustix::process::Signal) -> Result<(), Failure> {
    let gone = || Failure::new(format!("process {pid} is gone"));
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    rustix::process::kill_process(pid, signal).map_err(|_| gone())
}
