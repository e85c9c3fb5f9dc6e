//! Popularity of keys: a distribution as written on the command line, and the keys that a run draws from it.

use std::path::PathBuf;
use std::str::FromStr;

use crate::Failure;
use crate::input::PopularityHistogram;
use crate::rng::Rng;

/// Number of draws that are made before a run and then repeated: 8 MiB that are read in order, so that a draw
/// needs no search during the run.
const DRAWS: usize = 1 << 21;

/// A prime above every possible number of keys. Multiplying a rank by it, modulo the number of keys, scatters
/// ranks over the keys without giving two ranks the same key.
const SCATTER: u64 = 4_294_967_291;

/// How requests spread over keys, as written on the command line.
#[derive(Clone, Debug, PartialEq)]
pub enum Popularity {
    /// `uniform`: every key is equally likely.
    Uniform,
    /// `zipf:ALPHA`: the n-th most popular key is requested in proportion to n^-ALPHA.
    Zipf(f64),
    /// `gauss` or `gauss:SHARE`: normal around the middle key, with a standard deviation of SHARE of all keys
    /// (default: a sixth).
    Gaussian(f64),
    /// `file:PATH`: a JSON histogram ([`PopularityHistogram`]), plain or xz, scaled to the keys of the run.
    File(PathBuf),
}

impl FromStr for Popularity {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::new(format!(
                "{text}: not a popularity: write uniform, zipf:0.99, gauss, gauss:0.1 or file:PATH"
            ))
        };
        let number = |word: &str, most: f64| match word.parse::<f64>() {
            Ok(number) if number > 0.0 && number <= most => Ok(number),
            _ => Err(bad()),
        };
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "gauss" => Ok(Self::Gaussian(1.0 / 6.0)),
            Some(("zipf", alpha)) => Ok(Self::Zipf(number(alpha, 10.0)?)),
            Some(("gauss", share)) => Ok(Self::Gaussian(number(share, 1.0)?)),
            Some(("file", path)) => Ok(Self::File(PathBuf::from(path))),
            _ => Err(bad()),
        }
    }
}

/// Draws keys of a run, numbered from 0.
#[derive(Clone, Debug)]
pub struct KeyDraws {
    keys: u32,
    /// Prepared draws; empty for the uniform distribution.
    draws: Vec<u32>,
    next: usize,
}

impl KeyDraws {
    /// Prepares draws from `keys` keys, at least one.
    ///
    /// # Errors
    /// The histogram file cannot be used.
    pub fn new(popularity: &Popularity, keys: u32, rng: &mut Rng) -> Result<Self, Failure> {
        assert!(keys > 0);
        let count = keys as usize;
        let draws = match popularity {
            Popularity::Uniform => Vec::new(),
            Popularity::Zipf(alpha) => {
                let weights = (1..=count).map(|rank| (rank as f64).powf(-alpha));
                by_weight(weights, rng, |rank, _| scattered(rank, keys))
            }
            Popularity::Gaussian(share) => (0..DRAWS).map(|_| gaussian(*share, keys, rng)).collect(),
            Popularity::File(path) => {
                let histogram = PopularityHistogram::read(path)?;
                let total: f64 = histogram.keys.iter().sum();
                let first: Vec<f64> = histogram
                    .keys
                    .iter()
                    .scan(0.0, |at, keys| {
                        let first = *at;
                        *at += keys;
                        Some(first)
                    })
                    .collect();
                by_weight(histogram.weights.iter().copied(), rng, |bucket, rng| {
                    let position = (first[bucket] + rng.unit() * histogram.keys[bucket]) / total;
                    scattered(((position * f64::from(keys)) as usize).min(count - 1), keys)
                })
            }
        };
        Ok(Self { keys, draws, next: 0 })
    }

    /// Returns the next key.
    #[inline]
    pub fn draw(&mut self, rng: &mut Rng) -> u32 {
        if self.draws.is_empty() {
            return rng.below(u64::from(self.keys)) as u32;
        }
        let key = self.draws[self.next];
        self.next += 1;
        if self.next == self.draws.len() {
            self.next = 0;
        }
        key
    }
}

/// Returns the key of this rank, so that popular keys are not neighbours.
fn scattered(rank: usize, keys: u32) -> u32 {
    (rank as u64 * (SCATTER % u64::from(keys)) % u64::from(keys)) as u32
}

/// Draws indexes by weight and maps each to a key.
fn by_weight(
    weights: impl Iterator<Item = f64>,
    rng: &mut Rng,
    key_of: impl Fn(usize, &mut Rng) -> u32,
) -> Vec<u32> {
    let mut total = 0.0;
    let sums: Vec<f64> = weights
        .map(|weight| {
            total += weight;
            total
        })
        .collect();
    (0..DRAWS)
        .map(|_| {
            let target = rng.unit() * total;
            key_of(sums.partition_point(|&sum| sum <= target).min(sums.len() - 1), rng)
        })
        .collect()
}

/// Draws a key from a normal distribution around the middle (Box-Muller); draws outside the keys are
/// repeated.
fn gaussian(share: f64, keys: u32, rng: &mut Rng) -> u32 {
    loop {
        let radius = (2.0 * rng.exponential()).sqrt();
        let normal = radius * (std::f64::consts::TAU * rng.unit()).cos();
        let position = 0.5 + share * normal;
        if (0.0..1.0).contains(&position) {
            return (position * f64::from(keys)) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str, keys: u32) -> Vec<u32> {
        let mut rng = Rng::new(3);
        let mut draws = KeyDraws::new(&text.parse().unwrap(), keys, &mut rng).unwrap();
        let mut counts = vec![0; keys as usize];
        for _ in 0..1_000_000 {
            counts[draws.draw(&mut rng) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_meets_every_key_alike() {
        let counts = counts("uniform", 100);
        assert!(counts.iter().all(|&count| (9_000..11_000).contains(&count)));
    }

    #[test]
    fn zipf_falls_off_by_its_exponent_and_scatters_its_ranks() {
        let mut counts = counts("zipf:1", 1000);
        assert!(counts[..10].iter().sum::<u32>() < 500_000, "the popular keys are neighbours");
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // Harmonic number of 1000 is 7.485: the first has 133,590 of a million.
        assert!((130_000..137_000).contains(&counts[0]), "{}", counts[0]);
        for (rank, part) in [(2, 2.0), (10, 10.0), (100, 100.0)] {
            let ratio = f64::from(counts[0]) / f64::from(counts[rank - 1]);
            assert!((ratio / part - 1.0).abs() < 0.2, "rank {rank}: 1/{ratio}");
        }
    }

    #[test]
    fn gauss_peaks_in_the_middle() {
        let counts = counts("gauss:0.1", 1000);
        let within: u32 = counts[400..600].iter().sum();
        assert!((663_000..703_000).contains(&within), "{within} of a million within one deviation");
        assert!(counts[0] < 10);
    }

    #[test]
    fn a_histogram_file_sends_its_share_to_each_bucket() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = br#"{"oneHits": 0.1, "popularityBuckets": [10, 90], "popularityWeights": [3, 1]}"#;
        std::io::Write::write_all(&mut file, text).unwrap();
        let mut counts = counts(&format!("file:{}", file.path().display()), 1000);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let popular: u32 = counts[..100].iter().sum();
        assert!((740_000..760_000).contains(&popular), "{popular}");
    }

    #[test]
    fn ranks_are_scattered_over_all_keys_once() {
        for keys in [1, 2, 3, 1000, 4096] {
            let mut seen: Vec<u32> = (0..keys as usize).map(|rank| scattered(rank, keys)).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..keys));
        }
    }

    #[test]
    fn what_is_no_popularity_is_refused() {
        for text in ["", "zipf", "zipf:x", "zipf:-1", "gauss:2", "normal"] {
            assert!(text.parse::<Popularity>().is_err(), "{text}");
        }
    }
}
