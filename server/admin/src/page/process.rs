//! Metrics of the process, under the names that every Prometheus client uses, and of the limits of its
//! control group.

use std::fmt;

use super::MetricsWriter;
use corecached_shard::process::{CpuTime, cpu_time, resident_bytes};
use rustix::process::{Resource, getrlimit};

use crate::view::{AdminView, Role};

pub(super) fn write(writer: &mut MetricsWriter<'_>, view: &AdminView) -> fmt::Result {
    if let Some(CpuTime { user, system }) = cpu_time() {
        let (user, system) = (user.as_secs_f64(), system.as_secs_f64());
        let one = |value| [(Vec::new(), value)];
        writer.seconds("process_cpu_seconds", "Time on cores, user and system", one(user + system))?;
        if matches!(view.role, Role::Cache(_)) {
            writer.seconds("memcached_process_user_cpu_seconds", "Time on cores in user mode", one(user))?;
            writer.seconds(
                "memcached_process_system_cpu_seconds",
                "Time on cores in the kernel",
                one(system),
            )?;
        }
    }
    if let Some(bytes) = resident_bytes() {
        writer.gauge("process_resident_memory_bytes", "Resident memory", bytes as u64)?;
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        writer.gauge("process_open_fds", "Open file descriptors", files.count() as u64)?;
    }
    if let Some(soft) = getrlimit(Resource::Nofile).current {
        writer.gauge("process_max_fds", "Most open file descriptors", soft)?;
    }
    let started_s = view.server.clock.now_s().saturating_sub(view.server.clock.uptime_s());
    writer.gauge("process_start_time_seconds", "Unix time of the start", started_s.into())?;
    if let Some(bytes) = view.memory_limit_bytes {
        writer.gauge("corecached_memory_limit_bytes", "Memory limit of the control group", bytes)?;
    }
    if let Some(cores) = view.cpu_limit_cores {
        let millicores = (cores * 1000.0).round() as u64;
        writer.gauge(
            "corecached_cpu_quota_millicores",
            "Thousandths of a core that the control group grants",
            millicores,
        )?;
    }
    Ok(())
}
