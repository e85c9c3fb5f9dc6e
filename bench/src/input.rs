//! Input files: reads whole files, plain or xz, and parses CacheLib's JSON histograms.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::Failure;

const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

/// Returns all bytes of `path`. An xz stream is recognised by its first bytes, not by the file's name, and
/// unpacked.
///
/// # Errors
/// The file cannot be read or unpacked. The message names the path.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let said =
        |what: &str, error: std::io::Error| Failure::new(format!("{}: {what}: {error}", path.display()));
    let raw = fs::read(path).map_err(|error| said("cannot be read", error))?;
    if !raw.starts_with(XZ_MAGIC) {
        return Ok(raw);
    }
    let mut bytes = Vec::new();
    liblzma::read::XzDecoder::new_multi_decoder(&raw[..])
        .read_to_end(&mut bytes)
        .map_err(|error| said("cannot be unpacked", error))?;
    Ok(bytes)
}

/// Sizes of values and how frequent they are: `valSizeRange` and `valSizeRangeProbability` of CacheLib's
/// cachebench.
#[derive(Clone, Debug, Deserialize)]
pub struct SizeHistogram {
    /// Sizes in bytes.
    #[serde(rename = "valSizeRange")]
    pub sizes: Vec<f64>,
    /// Weight of each size, in any unit.
    #[serde(rename = "valSizeRangeProbability")]
    pub weights: Vec<f64>,
}

/// Popularity of keys: `popularityBuckets` and `popularityWeights` of CacheLib's cachebench.
#[derive(Clone, Debug, Deserialize)]
pub struct PopularityHistogram {
    /// Number of keys in each bucket.
    #[serde(rename = "popularityBuckets")]
    pub keys: Vec<f64>,
    /// Share of requests that go to each bucket, in any unit.
    #[serde(rename = "popularityWeights")]
    pub weights: Vec<f64>,
}

impl SizeHistogram {
    /// Reads the histogram from a JSON file and checks it.
    ///
    /// # Errors
    /// The file cannot be read, is no such histogram, or its numbers make no sense.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let histogram: Self = json(path)?;
        check(path, &histogram.sizes, &histogram.weights)?;
        Ok(histogram)
    }
}

impl PopularityHistogram {
    /// Reads the histogram from a JSON file and checks it.
    ///
    /// # Errors
    /// The file cannot be read, is no such histogram, or its numbers make no sense.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let histogram: Self = json(path)?;
        check(path, &histogram.keys, &histogram.weights)?;
        Ok(histogram)
    }
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, Failure> {
    serde_json::from_slice(&read(path)?)
        .map_err(|error| Failure::new(format!("{}: not a histogram: {error}", path.display())))
}

fn check(path: &Path, values: &[f64], weights: &[f64]) -> Result<(), Failure> {
    let said = |what: &str| Err(Failure::new(format!("{}: {what}", path.display())));
    if values.len() != weights.len() {
        return said("has a different number of weights than of values");
    }
    if values.iter().chain(weights).any(|number| !number.is_finite() || *number < 0.0) {
        return said("has a negative or infinite number");
    }
    if weights.iter().sum::<f64>() <= 0.0 {
        return said("has weights whose sum is 0");
    }
    Ok(())
}
