//! Which cores this process may use, and how many shards that makes.

use core_affinity::CoreId;

use corecached_cache::config::{CacheConfig, SLICE_BYTES_MAX};
use corecached_shard::ConfigError;
use corecached_shard::config::ServerConfig;

/// Items of the largest size that a slice must be able to hold.
const LARGEST_ITEMS_MIN: usize = 2;
/// Least memory of a slice, bytes.
const SLICE_BYTES_MIN: usize = 1 << 20;

/// The shards of a server and their cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The core of each shard. Shards share cores when there are more shards than cores.
    pub cores: Vec<CoreId>,
    /// Warnings for the operator: why the number of shards is not the one asked for, or that it exceeds the
    /// CPU quota.
    pub notes: Vec<String>,
}

/// Decides on the shards of a cache: as many as asked for, else as many as the affinity mask and
/// `quota_cores` allow. The memory sets a lower and an upper bound.
///
/// # Errors
/// No number of shards fits the memory and the largest item.
pub(crate) fn plan_cache(config: &CacheConfig, quota_cores: Option<f64>) -> Result<Plan, ConfigError> {
    plan_cache_on(config, &allowed_cores(), whole_cores(quota_cores))
}

/// Decides on the shards of a proxy: as many as asked for, else as many as the affinity mask and
/// `quota_cores` allow.
#[must_use]
pub(crate) fn plan_proxy(config: &ServerConfig, quota_cores: Option<f64>) -> Plan {
    let (allowed, quota) = (allowed_cores(), whole_cores(quota_cores));
    let wanted = config.shards.unwrap_or_else(|| allowed.len().min(quota));
    plan_on(&allowed, quota, wanted.max(1), Vec::new())
}

fn whole_cores(quota: Option<f64>) -> usize {
    quota.map_or(usize::MAX, |cores| cores.ceil().max(1.0) as usize)
}

fn plan_cache_on(config: &CacheConfig, allowed: &[CoreId], quota: usize) -> Result<Plan, ConfigError> {
    let item_bytes_max = config.item_limit.item_bytes_max;
    let wanted = config.server.shards.unwrap_or_else(|| allowed.len().min(quota));
    let least = config.memory_bytes.div_ceil(SLICE_BYTES_MAX);
    let most = config.memory_bytes / (item_bytes_max * LARGEST_ITEMS_MIN).max(SLICE_BYTES_MIN);
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
    let mut notes = Vec::new();
    if shards != wanted {
        let (memory, item) = (config.memory_bytes >> 20, item_bytes_max >> 10);
        notes.push(format!(
            "{shards} shards instead of {wanted}: -m {memory} (MB) with items of up to {item} KB (-I) allows no other"
        ));
    }
    Ok(plan_on(allowed, quota, shards, notes))
}

fn plan_on(allowed: &[CoreId], quota: usize, shards: usize, mut notes: Vec<String>) -> Plan {
    if shards > quota {
        notes.push(format!(
            "{shards} shards share the {quota} cores' worth of time that the control group grants: all of them stand \
             still when it is used up. Give fewer (-t, or --num-proxies of a proxy), or raise the quota"
        ));
    }
    Plan { cores: allowed.iter().copied().cycle().take(shards).collect(), notes }
}

/// The cores of the affinity mask; core 0 where it cannot be read.
fn allowed_cores() -> Vec<CoreId> {
    match core_affinity::get_core_ids() {
        Some(cores) if !cores.is_empty() => cores,
        _ => vec![CoreId { id: 0 }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corecached_cache::config::{CacheArgs, check};

    fn planned(line: &str, cores: usize, quota: usize) -> Plan {
        let argv = std::iter::once("corecached").chain(line.split_whitespace());
        let config = check(&CacheArgs::read(argv.map(Into::into)).unwrap()).unwrap();
        let allowed: Vec<CoreId> = (0..cores).map(|id| CoreId { id }).collect();
        plan_cache_on(&config, &allowed, quota).unwrap()
    }

    fn shards(line: &str, cores: usize, quota: usize) -> usize {
        planned(line, cores, quota).cores.len()
    }

    #[test]
    fn more_shards_than_the_quota_feeds_are_warned_of() {
        assert!(planned("-t 2", 2, 2).notes.is_empty());
        let notes = planned("-t 4", 2, 1).notes;
        assert!(notes.len() == 1 && notes[0].starts_with("4 shards share the 1 cores'"), "{notes:?}");
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
}
