//! The limits that the control group of this process sets: memory, and CPU time. Versions 1 and 2 are read;
//! the limit is the tightest of the group and the groups above it. It is read once, at start, and never
//! written.

use std::path::{Path, PathBuf};

/// The file in which a process reads which groups it is in.
const MEMBERSHIP: &str = "/proc/self/cgroup";
/// The folder at which the groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Version 1 writes "no limit" as the largest multiple of a page. A limit of this size or more counts as
/// none.
const NO_LIMIT_BYTES: u64 = 1 << 60;
/// Divisor of the limit that gives what is left to buffers of sockets and to the kernel's own memory, which
/// count against the limit too.
const HEADROOM_FRACTION: u64 = 8;
/// Least headroom, bytes: what a thousand connections take in the kernel.
const HEADROOM_BYTES_MIN: u64 = 16 << 20;

/// The limits that apply to this process, the tightest of all its control groups.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct GroupLimits {
    /// Bytes that all processes of the group may use together; `None` without a limit below the memory of the
    /// machine.
    pub memory_bytes: Option<u64>,
    /// CPU time that is granted, in cores; `None` without a limit.
    pub cpu_cores: Option<f64>,
}

impl GroupLimits {
    /// Reads the limits of this process.
    #[must_use]
    pub(crate) fn read() -> Self {
        let mut limits = Self::read_in(Path::new(MEMBERSHIP), Path::new(MOUNT));
        let machine = rustix::system::sysinfo();
        #[allow(clippy::useless_conversion, reason = "the width of these fields depends on the target")]
        let machine_bytes = u64::from(machine.totalram) * u64::from(machine.mem_unit);
        limits.memory_bytes = limits.memory_bytes.filter(|&bytes| bytes < machine_bytes);
        limits
    }

    fn read_in(membership: &Path, mount: &Path) -> Self {
        let groups = std::fs::read_to_string(membership).unwrap_or_default();
        let mut limits = Self::default();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                for folder in upwards(mount, group) {
                    limits.tighten(parse_memory(&folder.join("memory.max")), parse_cpu_max(&folder));
                }
            }
            for controller in controllers.split(',') {
                for folder in
                    upwards(&mount.join(controllers), group).chain(upwards(&mount.join(controller), group))
                {
                    match controller {
                        "memory" => {
                            limits.tighten(parse_memory(&folder.join("memory.limit_in_bytes")), None);
                        }
                        "cpu" => limits.tighten(None, parse_cfs(&folder)),
                        _ => {}
                    }
                }
            }
        }
        limits
    }

    fn tighten(&mut self, memory_bytes: Option<u64>, cpu_cores: Option<f64>) {
        self.memory_bytes = [self.memory_bytes, memory_bytes].into_iter().flatten().min();
        self.cpu_cores = [self.cpu_cores, cpu_cores].into_iter().flatten().reduce(f64::min);
    }
}

/// The largest `-m`, in megabytes, that leaves the rest of the process and its sockets room under a memory
/// limit.
#[must_use]
pub(crate) fn cache_megabytes(limit_bytes: u64) -> u64 {
    let headroom = (limit_bytes / HEADROOM_FRACTION).max(HEADROOM_BYTES_MIN).min(limit_bytes / 2);
    ((limit_bytes - headroom) >> 20).max(1)
}

/// The warning when a cache of `given_bytes` (`-m`) does not fit the memory limit; `None` when it fits.
#[must_use]
pub(crate) fn memory_warning(given_bytes: usize, limits: &GroupLimits) -> Option<String> {
    let limit = limits.memory_bytes?;
    let (given, most) = (given_bytes as u64 >> 20, cache_megabytes(limit));
    (given > most).then(|| {
        format!(
            "-m {given} (MB) does not go with the control group's memory limit of {} MB, of which sockets and buffers \
             take their part: the kernel may kill this process. Leave -m out, give at most {most}, or raise the limit",
            limit >> 20
        )
    })
}

/// The warning when a cache of `given_bytes` (`-m`) is more than this machine has; `None` when it is not.
#[must_use]
pub(crate) fn machine_warning(given_bytes: usize) -> Option<String> {
    let info = rustix::system::sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit).max(1)) >> 20;
    let given = given_bytes as u64 >> 20;
    (given > machine).then(|| {
        format!(
            "-m {given} (MB) is more than the {machine} MB of this machine: the kernel may kill this process when it \
             fills. -m counts megabytes: give at most what the machine can spare"
        )
    })
}

/// The folder of `group` below `mount`, then the folders of the groups above it, up to the mount itself. In a
/// container the mount may be the group itself, whatever its name outside.
fn upwards(mount: &Path, group: &str) -> impl Iterator<Item = PathBuf> {
    let mount = mount.to_owned();
    let group = mount.join(group.trim_start_matches('/'));
    let folders: Vec<PathBuf> =
        group.ancestors().take_while(|folder| folder.starts_with(&mount)).map(Path::to_owned).collect();
    folders.into_iter()
}

fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

/// Reads a number of bytes; `max` is no limit.
fn parse_memory(file: &Path) -> Option<u64> {
    read(file)?.parse().ok().filter(|&bytes| bytes < NO_LIMIT_BYTES)
}

/// Reads the quota of version 2, in cores: `"150000 100000"` is 1.5, `"max 100000"` is no limit.
fn parse_cpu_max(folder: &Path) -> Option<f64> {
    let text = read(&folder.join("cpu.max"))?;
    let (quota, period) = text.split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

/// Reads the quota of version 1, in cores: quota and period are in two files, and a quota of -1 is no limit.
fn parse_cfs(folder: &Path) -> Option<f64> {
    let number = |name| read(&folder.join(name))?.parse::<f64>().ok();
    ratio(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

fn ratio(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits of a process that is in these groups, with these files below the mount.
    fn limits(groups: &str, files: &[(&str, &str)]) -> GroupLimits {
        let folder = std::env::temp_dir().join(format!("corecached-groups-{:x}", fastrand::u64(..)));
        let mount = folder.join("mount");
        std::fs::create_dir_all(&mount).unwrap();
        std::fs::write(folder.join("membership"), groups).unwrap();
        for (name, text) in files {
            let file = mount.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let found = GroupLimits::read_in(&folder.join("membership"), &mount);
        std::fs::remove_dir_all(&folder).unwrap();
        found
    }

    #[test]
    fn the_tightest_of_a_group_and_those_above_it_counts() {
        let found = limits(
            "0::/pods/one\n",
            &[
                ("pods/one/memory.max", "max\n"),
                ("pods/memory.max", "268435456\n"),
                ("pods/one/cpu.max", "150000 100000\n"),
                ("pods/cpu.max", "400000 100000\n"),
            ],
        );
        assert_eq!(found, GroupLimits { memory_bytes: Some(256 << 20), cpu_cores: Some(1.5) });
    }

    #[test]
    fn inside_a_container_the_mount_itself_is_the_group() {
        let found = limits("0::/../elsewhere\n", &[("memory.max", "1048576"), ("cpu.max", "max 100000")]);
        assert_eq!(found, GroupLimits { memory_bytes: Some(1 << 20), cpu_cores: None });
    }

    #[test]
    fn version_1_is_read_from_a_mount_for_each_controller() {
        let groups = "9:memory:/kubepods/pod\n3:cpu,cpuacct:/kubepods/pod\n1:name=systemd:/\n0::/\n";
        let found = limits(
            groups,
            &[
                ("memory/memory.limit_in_bytes", "134217728\n"),
                ("cpu,cpuacct/kubepods/pod/cpu.cfs_quota_us", "50000\n"),
                ("cpu,cpuacct/kubepods/pod/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(found, GroupLimits { memory_bytes: Some(128 << 20), cpu_cores: Some(0.5) });
    }

    #[test]
    fn what_version_1_writes_for_no_limit_is_none() {
        let files = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits("4:memory:/\n3:cpu:/\n", &files), GroupLimits::default());
        assert_eq!(limits("", &[]), GroupLimits::default());
    }

    #[test]
    fn a_cache_leaves_an_eighth_of_the_limit_and_never_less_than_its_sockets_take() {
        for (limit_mib, megabytes) in
            [(1, 1), (16, 8), (64, 48), (128, 112), (192, 168), (1024, 896), (8192, 7168)]
        {
            assert_eq!(cache_megabytes(limit_mib << 20), megabytes, "{limit_mib}");
        }
    }

    #[test]
    fn more_than_the_limit_leaves_is_warned_of() {
        let limits = GroupLimits { memory_bytes: Some(64 << 20), cpu_cores: None };
        assert_eq!(memory_warning(48 << 20, &limits), None);
        let warning = memory_warning(64 << 20, &limits).unwrap();
        assert!(
            warning.contains("-m 64") && warning.contains("64 MB") && warning.contains("at most 48"),
            "{warning}"
        );
        assert_eq!(memory_warning(1 << 40, &GroupLimits::default()), None);
    }
}
