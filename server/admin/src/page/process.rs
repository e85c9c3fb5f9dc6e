//! The process, under the names that every Prometheus client uses, and the limits it runs under.

use std::fmt;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

use super::Sheet;
use crate::runtime::budget;
use crate::server::Shared;

pub(super) fn write(sheet: &mut Sheet<'_>, shared: &Shared) -> fmt::Result {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let (user, system) = (seconds(usage.user_time()), seconds(usage.system_time()));
        let one = |value| [(Vec::new(), value)];
        sheet.seconds("process_cpu_seconds", "Time on cores, user and system", one(user + system))?;
        if !shared.config.is_proxy {
            sheet.seconds("memcached_process_user_cpu_seconds", "Time on cores in user mode", one(user))?;
            sheet.seconds(
                "memcached_process_system_cpu_seconds",
                "Time on cores in the kernel",
                one(system),
            )?;
        }
    }
    if let Some(bytes) = budget::resident_bytes() {
        sheet.gauge("process_resident_memory_bytes", "Resident memory", bytes as u64)?;
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        sheet.gauge("process_open_fds", "Open file descriptors", files.count() as u64)?;
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        sheet.gauge("process_max_fds", "Most open file descriptors", soft)?;
    }
    let started_s = shared.clock.now_s().saturating_sub(shared.clock.uptime_s());
    sheet.gauge("process_start_time_seconds", "Unix time of the start", started_s.into())?;
    if let Some(bytes) = shared.limits.memory_bytes {
        sheet.gauge("corecached_memory_limit_bytes", "Memory limit of the control group", bytes)?;
    }
    if let Some(cores) = shared.limits.cpu_cores {
        let millicores = (cores * 1000.0).round() as u64;
        sheet.gauge(
            "corecached_cpu_quota_millicores",
            "Thousandths of a core that the control group grants",
            millicores,
        )?;
    }
    Ok(())
}
