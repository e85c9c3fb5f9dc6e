//! Cores and priorities of threads, the limit of open files, and signals to processes.

use std::io;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Failure;

/// Pins the calling thread, and threads and processes that it starts, to these cores.
///
/// # Errors
/// This process may not run on one of the cores.
pub fn pin(cores: &[usize]) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).map_err(|error| Failure::new(format!("cores {cores:?}: {error}")))
}

/// Returns the cores that this process may run on, ascending; core 0 alone when they cannot be read.
#[must_use]
pub fn cores() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Gives a thread (0: the calling one) the real-time policy SCHED_FIFO at priority 1: it runs before all
/// ordinary threads.
///
/// # Errors
/// This process lacks the privilege (CAP_SYS_NICE).
pub fn run_first(thread: u32) -> Result<(), Failure> {
    let parameter = libc::sched_param { sched_priority: 1 };
    let thread = libc::pid_t::try_from(thread).map_err(|_| Failure::new("no such thread"))?;
    // SAFETY: the kernel reads the parameter during the call and keeps no pointer to it.
    let outcome = unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameter) };
    if outcome == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("SCHED_FIFO: {}", io::Error::last_os_error())))
}

/// Raises the limit of open files of this process to its hard limit.
pub fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // On failure the old limit stays, and connecting reports it when it is too low.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Sends a signal to a process that this one started.
///
/// # Errors
/// The process does not exist any more.
pub fn signal(pid: u32, signal: rustix::process::Signal) -> Result<(), Failure> {
    let gone = || Failure::new(format!("process {pid} is gone"));
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    rustix::process::kill_process(pid, signal).map_err(|_| gone())
}
