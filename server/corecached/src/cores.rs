//! Which cores this process may use, and how many shards that makes.

use core_affinity::CoreId;

use corecached_cache::config::{CacheConfig, SLICE_BYTES_MAX};
use corecached_shard::ConfigError;
use corecached_shard::config::ServerConfig;

/// A slice holds at least this many items of the largest size.
const LARGEST_ITEMS_MIN: usize = 2;
/// Least memory of a slice, bytes.
const SLICE_BYTES_MIN: usize = 1 << 20;

/// One shard a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The core of each shard; more shards than cores share them.
    pub cores: Vec<CoreId>,
    /// What whoever started it should know: why it is not one for each core allowed, or that these are too many.
    pub notes: Vec<String>,
}

/// Decides on the shards of a cache: as many as asked for, else as many as cores and `quota_cores` allow, within what memory
/// allows.
///
/// # Errors
/// When the memory asked for fits no number of shards.
pub fn plan_cache(config: &CacheConfig, quota_cores: Option<f64>) -> Result<Plan, ConfigError> {
    plan_cache_on(config, &allowed_cores(), whole_cores(quota_cores))
}

/// Decides on the shards of a proxy: as many as asked for, else as many as cores and `quota_cores` allow.
#[must_use]
pub fn plan_proxy(config: &ServerConfig, quota_cores: Option<f64>) -> Plan {
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
