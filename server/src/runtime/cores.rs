//! Which cores this process may use, and how many shards that makes.

use core_affinity::CoreId;

use crate::config::{Config, ConfigError, SLICE_BYTES_MAX};

/// A slice holds at least this many items of the largest size.
const LARGEST_ITEMS_MIN: usize = 2;
/// Least memory of a slice, bytes.
const SLICE_BYTES_MIN: usize = 1 << 20;

/// One shard a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The core of each shard; more shards than cores share them.
    pub cores: Vec<CoreId>,
    /// Why it is not one for each core allowed, if it is not.
    pub note: Option<String>,
}

/// Decide on shards: as many as asked for, else as many as cores and quota allow, within what memory allows.
///
/// # Errors
/// When the memory asked for fits no number of shards.
pub fn plan(config: &Config) -> Result<Plan, ConfigError> {
    let allowed = allowed_cores();
    let quota = cpu_quota().map_or(usize::MAX, |cores| cores.ceil().max(1.0) as usize);
    plan_for(config, &allowed, quota)
}

fn plan_for(config: &Config, allowed: &[CoreId], quota: usize) -> Result<Plan, ConfigError> {
    let wanted = config.shards.unwrap_or_else(|| allowed.len().min(quota));
    let least = config.memory_bytes.div_ceil(SLICE_BYTES_MAX);
    let most = match config.is_proxy {
        true => usize::MAX, // it stores nothing
        false => config.memory_bytes / (config.item_bytes_max * LARGEST_ITEMS_MIN).max(SLICE_BYTES_MIN),
    };
    if least > most {
        let megabytes = (config.memory_bytes >> 20).to_string();
        return Err(ConfigError::new(
            "-m",
            &megabytes,
            "lower the largest item (-I), or give less memory",
            64,
        ));
    }
    let shards = wanted.clamp(least.max(1), most.max(1));
    let note = (shards != wanted).then(|| {
        let (memory, item) = (config.memory_bytes >> 20, config.item_bytes_max >> 10);
        format!("{shards} shards instead of {wanted}: -m {memory} (MB) with items of up to {item} KB (-I) allows no other")
    });
    Ok(Plan { cores: allowed.iter().copied().cycle().take(shards).collect(), note })
}

/// The cores of the affinity mask; core 0 where it cannot be read.
fn allowed_cores() -> Vec<CoreId> {
    match core_affinity::get_core_ids() {
        Some(cores) if !cores.is_empty() => cores,
        _ => vec![CoreId { id: 0 }],
    }
}

/// Cores' worth of time the control group grants; `None` without a limit.
fn cpu_quota() -> Option<f64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let v2 = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let v2_files = [format!("/sys/fs/cgroup{v2}/cpu.max"), "/sys/fs/cgroup/cpu.max".to_owned()];
    if let Some(quota) = v2_files.iter().find_map(|file| parse_cpu_max(&std::fs::read_to_string(file).ok()?))
    {
        return Some(quota);
    }
    let v1 = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == "cpu").then_some(path)
    })?;
    ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"].iter().find_map(|root| {
        [format!("{root}{v1}"), (*root).to_owned()].iter().find_map(|folder| {
            let read =
                |name| std::fs::read_to_string(format!("{folder}/{name}")).ok()?.trim().parse::<f64>().ok();
            let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
            (quota > 0.0 && period > 0.0).then(|| quota / period)
        })
    })
}

/// `"150000 100000"` is 1.5 cores, `"max 100000"` no limit.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Args, check};

    fn shards(line: &str, cores: usize, quota: usize) -> usize {
        let argv = std::iter::once("corecached").chain(line.split_whitespace());
        let config = check(&Args::read(argv.map(Into::into)).unwrap()).unwrap();
        let allowed: Vec<CoreId> = (0..cores).map(|id| CoreId { id }).collect();
        plan_for(&config, &allowed, quota).unwrap().cores.len()
    }

    #[test]
    fn one_shard_for_each_core_that_mask_and_quota_allow() {
        assert_eq!(shards("", 2, usize::MAX), 2);
        assert_eq!(shards("", 8, 3), 3);
        assert_eq!(shards("-t 4", 2, 1), 4);
    }

    #[test]
    fn slices_hold_the_largest_item_and_stay_addressable() {
        assert_eq!(shards("-m 64", 128, usize::MAX), 32);
        assert_eq!(shards("-m 64 -I 32m", 8, usize::MAX), 1);
        assert_eq!(shards("-m 65536", 2, usize::MAX), 4);
    }

    #[test]
    fn a_quota_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
    }
}
