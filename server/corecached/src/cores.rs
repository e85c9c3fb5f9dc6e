//! Which cores this process may use, and how many shards that makes.

use core_affinity::CoreId;

use corecached_cache::config::{CacheConfig, SHARDS_MAX, SLICE_BYTES_MAX};
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
/// `quota_cores` allow, but no more than the memory has room for. More memory never makes more shards.
#[must_use]
pub(crate) fn plan_cache(config: &CacheConfig, quota_cores: Option<f64>) -> Plan {
    plan_cache_on(config, &allowed_cores(), whole_cores(quota_cores))
}

/// The memory in bytes that `shards` shards can use of `given_bytes` (`-m`), and a warning when it is less.
#[must_use]
pub(crate) fn usable_memory(given_bytes: usize, shards: usize) -> (usize, Option<String>) {
    let most_bytes = shards * SLICE_BYTES_MAX;
    let warning = (given_bytes > most_bytes).then(|| {
        let (given, most, needed) =
            (given_bytes >> 20, most_bytes >> 20, given_bytes.div_ceil(SLICE_BYTES_MAX));
        let remedy = if needed <= SHARDS_MAX {
            format!("give -t {needed} to use all of it")
        } else {
            "give less".into()
        };
        format!("-m {given} (MB) counts as {most}, the most that {shards} shards can use: {remedy}")
    });
    (given_bytes.min(most_bytes), warning)
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

fn plan_cache_on(config: &CacheConfig, allowed: &[CoreId], quota: usize) -> Plan {
    let item_bytes_max = config.item_limit.item_bytes_max;
    let wanted = config.server.shards.unwrap_or_else(|| allowed.len().min(quota));
    let most = config.memory_bytes / (item_bytes_max * LARGEST_ITEMS_MIN).max(SLICE_BYTES_MIN);
    let shards = wanted.min(most).max(1);
    let mut notes = Vec::new();
    if shards != wanted {
        let (memory, item) = (config.memory_bytes >> 20, item_bytes_max >> 10);
        notes.push(format!(
            "{shards} shards (-t) instead of {wanted}: each needs twice the largest item, and -m is {memory} MB with \
             items of up to {item} KB: raise -m, or lower -I or -t"
        ));
    }
    plan_on(allowed, quota, shards, notes)
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
        plan_cache_on(&config, &allowed, quota)
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
        for (given_mib, usable_mib, remedy) in [
            (32_768, 32_768, None),
            (65_536, 32_768, Some("give -t 4 to")),
            (99_999_999, 32_768, Some("give less")),
        ] {
            let (usable, warning) = usable_memory(given_mib << 20, 2);
            assert_eq!((usable, warning.is_some()), (usable_mib << 20, remedy.is_some()));
            assert!(remedy.is_none_or(|remedy| warning.unwrap().contains(remedy)), "{given_mib}");
        }
    }

    #[test]
    fn memory_makes_no_shards() {
        assert_eq!(shards("-m 65536", 2, usize::MAX), 2);
        assert_eq!(shards("-m 99999999", 2, usize::MAX), 2);
    }
}
