//! CPU time and memory that this process uses.

use std::time::Duration;

/// Time that a process has spent on cores.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

/// The time that this process has spent on cores. `None` when the kernel does not say.
#[must_use]
pub fn cpu_time() -> Option<CpuTime> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    let duration = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64)
    };
    Some(CpuTime { user: duration(usage.user_time()), system: duration(usage.system_time()) })
}

/// Resident memory of this process, bytes. `None` when the kernel does not say.
#[must_use]
pub fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_resident() {
        assert!(resident_bytes().unwrap() > 100_000);
    }

    #[test]
    fn this_process_has_used_cpu_time() {
        let mut spent = Duration::ZERO;
        while spent.is_zero() {
            let CpuTime { user, system } = cpu_time().unwrap();
            spent = user + system;
        }
    }
}
