//! Sizes of keys and values: a distribution as written on the command line, and the table that a run draws
//! from.

use std::path::PathBuf;
use std::str::FromStr;

use crate::Failure;
use crate::input::SizeHistogram;

/// Number of quantiles in a table: 256 KiB, so that they stay in the second-level cache of a core. A size
/// that is rarer than one in this many may not occur at all.
const QUANTILES: usize = 1 << 16;

/// Largest size that may be asked for, in bytes; well below the largest length in the protocol.
pub const SIZE_BYTES_MAX: u32 = 1 << 30;

/// A distribution of sizes in bytes, as written on the command line.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// `100`: all have this size.
    Fixed(u32),
    /// `10-1000`: uniform, both ends included.
    Uniform(u32, u32),
    /// `100:70,1024:25,65536:5`: these sizes with these weights.
    Weighted(Vec<(u32, f64)>),
    /// `etc-value`: the generalised Pareto distribution that was fitted to the values of Facebook's ETC pool
    /// (Atikoglu et al., SIGMETRICS 2012).
    EtcValue,
    /// `etc-key`: the generalised extreme value distribution that was fitted to the keys of that pool.
    EtcKey,
    /// `file:PATH`: a JSON histogram ([`SizeHistogram`]), plain or xz.
    File(PathBuf),
}

impl FromStr for Sizes {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::new(format!(
                "{text}: not a size: write 100, 10-1000, 100:70,1024:30, etc-key, etc-value or file:PATH"
            ))
        };
        let size = |word: &str| match word.trim().parse::<u32>() {
            Ok(bytes) if bytes <= SIZE_BYTES_MAX => Ok(bytes),
            _ => Err(bad()),
        };
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(PathBuf::from(path)));
        }
        match text {
            "etc-value" => return Ok(Self::EtcValue),
            "etc-key" => return Ok(Self::EtcKey),
            _ => {}
        }
        if text.contains(':') {
            let mut pairs = Vec::new();
            for pair in text.split(',') {
                let (bytes, weight) = pair.split_once(':').ok_or_else(bad)?;
                let weight: f64 = weight.trim().parse().map_err(|_| bad())?;
                if !weight.is_finite() || weight < 0.0 {
                    return Err(bad());
                }
                pairs.push((size(bytes)?, weight));
            }
            return if pairs.iter().any(|pair| pair.1 > 0.0) {
                Ok(Self::Weighted(pairs))
            } else {
                Err(bad())
            };
        }
        match text.split_once('-') {
            Some((least, most)) => {
                let (least, most) = (size(least)?, size(most)?);
                if least <= most { Ok(Self::Uniform(least, most)) } else { Err(bad()) }
            }
            None => Ok(Self::Fixed(size(text)?)),
        }
    }
}

/// A table of sizes that are drawn by hash. All lie within the bounds given to [`SizeTable::new`].
#[derive(Clone, Debug)]
pub struct SizeTable {
    /// Equally likely sizes, ascending; empty when all sizes are `most`.
    quantiles: Vec<u32>,
    most: u32,
}

impl SizeTable {
    /// Makes a table of the distribution. Sizes outside `least..=most` are moved to the nearer end.
    ///
    /// # Errors
    /// The histogram file cannot be used.
    pub fn new(sizes: &Sizes, least: u32, most: u32) -> Result<Self, Failure> {
        let at = |index: usize| (index as f64 + 0.5) / QUANTILES as f64;
        let bound = |bytes: f64| bytes.clamp(f64::from(least), f64::from(most)) as u32;
        let by = |quantile: &dyn Fn(f64) -> f64| (0..QUANTILES).map(|i| bound(quantile(at(i)))).collect();
        let quantiles: Vec<u32> = match sizes {
            Sizes::Fixed(bytes) => return Ok(Self { quantiles: Vec::new(), most: bound(f64::from(*bytes)) }),
            Sizes::Uniform(from, to) => by(&|q| f64::from(*from) + q * f64::from(to - from + 1)),
            Sizes::Weighted(pairs) => {
                by_weight(pairs.iter().map(|&(bytes, weight)| (f64::from(bytes), weight)), bound)
            }
            Sizes::EtcValue => by(&|q| 15.0 + 214.476 / 0.348_238 * ((1.0 - q).powf(-0.348_238) - 1.0)),
            Sizes::EtcKey => by(&|q| 30.7984 + 8.20449 / 0.078_688 * ((-q.ln()).powf(-0.078_688) - 1.0)),
            Sizes::File(path) => {
                let histogram = SizeHistogram::read(path)?;
                by_weight(histogram.sizes.iter().copied().zip(histogram.weights.iter().copied()), bound)
            }
        };
        let most = quantiles.iter().copied().max().unwrap_or(most);
        Ok(Self { quantiles, most })
    }

    /// Returns the size for this hash, the same each time.
    #[inline]
    #[must_use]
    pub fn size_for(&self, hash: u64) -> u32 {
        if self.quantiles.is_empty() { self.most } else { self.quantiles[(hash >> 48) as usize] }
    }

    /// Returns the largest size in the table.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Returns the mean size in bytes.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self.quantiles.len() {
            0 => f64::from(self.most),
            count => self.quantiles.iter().map(|&bytes| f64::from(bytes)).sum::<f64>() / count as f64,
        }
    }
}

/// Returns the quantiles of sizes with weights.
fn by_weight(pairs: impl Iterator<Item = (f64, f64)>, bound: impl Fn(f64) -> u32) -> Vec<u32> {
    let mut pairs: Vec<(f64, f64)> = pairs.filter(|pair| pair.1 > 0.0).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = pairs.iter().map(|pair| pair.1).sum();
    let mut quantiles = Vec::with_capacity(QUANTILES);
    let (mut at, mut below) = (0, 0.0);
    for index in 0..QUANTILES {
        let target = (index as f64 + 0.5) / QUANTILES as f64 * total;
        while at + 1 < pairs.len() && below + pairs[at].1 <= target {
            below += pairs[at].1;
            at += 1;
        }
        quantiles.push(bound(pairs[at].0));
    }
    quantiles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::mix;

    fn drawn(text: &str) -> Vec<u32> {
        let table = SizeTable::new(&text.parse().unwrap(), 0, SIZE_BYTES_MAX).unwrap();
        let mut sizes: Vec<u32> = (0..100_000).map(|id| table.size_for(mix(id))).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn weighted_sizes_come_by_their_weights() {
        let sizes = drawn("100:70,1024:25,65536:5");
        let share = |bytes| sizes.iter().filter(|&&size| size == bytes).count() as f64 / 1000.0;
        for (bytes, percent) in [(100, 70.0), (1024, 25.0), (65536, 5.0)] {
            assert!((share(bytes) - percent).abs() < 1.0, "{bytes}: {} %", share(bytes));
        }
    }

    #[test]
    fn uniform_sizes_reach_both_ends_and_no_further() {
        let sizes = drawn("10-19");
        assert_eq!((sizes[0], sizes[sizes.len() - 1]), (10, 19));
        assert!((sizes[sizes.len() / 2] as i32 - 14).abs() <= 1);
    }

    #[test]
    fn etc_has_the_medians_and_tail_of_the_paper() {
        let keys = drawn("etc-key");
        assert!((30..=36).contains(&keys[keys.len() / 2]), "median key {}", keys[keys.len() / 2]);
        let values = drawn("etc-value");
        assert!((160..=200).contains(&values[values.len() / 2]), "median value {}", values[values.len() / 2]);
        assert!(values[values.len() * 99 / 100] > 2000);
        assert!(values[0] >= 15);
    }

    #[test]
    fn a_histogram_file_gives_its_sizes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = br#"{"valSizeRange": [31, 63, 1000], "valSizeRangeProbability": [1, 2, 1]}"#;
        std::io::Write::write_all(&mut file, text).unwrap();
        let sizes = drawn(&format!("file:{}", file.path().display()));
        assert!((sizes.iter().filter(|&&size| size == 63).count() as f64 / 1000.0 - 50.0).abs() < 1.0);
        assert_eq!(sizes[sizes.len() - 1], 1000);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "x", "9-3", "100:", "100:-1", "5:0", "99999999999"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
