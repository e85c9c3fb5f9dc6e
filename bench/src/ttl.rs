//! TTLs of items: none, one for all, or a mix that is chosen by the hash of the key.

use std::str::FromStr;

use crate::Failure;

/// Longest exptime that the protocol reads as relative, in seconds: thirty days.
const RELATIVE_S_MAX: u32 = 60 * 60 * 24 * 30;

/// TTLs with their shares, written as `1d:65,14d:27,12h:8`; a single `300` or `never` is for all items.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TtlMix {
    /// TTL in seconds, 0 for never, and the upper end of its share of [0, 1); ascending by the latter.
    parts: Vec<(u32, f64)>,
}

impl TtlMix {
    /// Returns the TTL in seconds of the item with this hash; 0 means that it never expires.
    #[inline]
    #[must_use]
    pub fn ttl_s(&self, hash: u64) -> u32 {
        if self.parts.is_empty() {
            return 0;
        }
        let position = (hash & 0xffff_ffff) as f64 / (1u64 << 32) as f64;
        self.parts.iter().find(|part| position < part.1).map_or(0, |part| part.0)
    }
}

impl FromStr for TtlMix {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::new(format!(
                "{text}: not a TTL: write 300, 12h, never or a mix such as 1d:65,14d:27,12h:8 (at most 30d)"
            ))
        };
        let mut parts = Vec::new();
        let mut total = 0.0;
        for part in text.split(',') {
            let (life, weight) = part.split_once(':').unwrap_or((part, "1"));
            let weight: f64 = weight.trim().parse().map_err(|_| bad())?;
            if !weight.is_finite() || weight <= 0.0 {
                return Err(bad());
            }
            total += weight;
            parts.push((seconds(life.trim()).ok_or_else(bad)?, total));
        }
        parts.iter_mut().for_each(|part| part.1 /= total);
        Ok(Self { parts })
    }
}

fn seconds(text: &str) -> Option<u32> {
    if text == "never" {
        return Some(0);
    }
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(digits) => (digits, &text[digits.len()..]),
        None => (text, "s"),
    };
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 86400,
    };
    digits.parse::<u32>().ok()?.checked_mul(scale).filter(|seconds| (1..=RELATIVE_S_MAX).contains(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::mix;

    #[test]
    fn a_mix_is_met_by_its_shares() {
        let mix_of: TtlMix = "1d:65,14d:27,never:8".parse().unwrap();
        let share = |life| (0..100_000).filter(|&id| mix_of.ttl_s(mix(id)) == life).count() as f64 / 1000.0;
        for (life, percent) in [(86_400, 65.0), (14 * 86_400, 27.0), (0, 8.0)] {
            assert!((share(life) - percent).abs() < 1.0, "{life} s: {} %", share(life));
        }
        assert_eq!(TtlMix::default().ttl_s(7), 0);
    }

    #[test]
    fn what_is_no_lifetime_is_refused() {
        for text in ["", "x", "31d", "1d:0", "1d:65,", "0"] {
            assert!(text.parse::<TtlMix>().is_err(), "{text}");
        }
    }
}
