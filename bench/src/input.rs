//! Input files: read whole, unpacked when they are xz, and the JSON histograms among them.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::Failure;

const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

/// All bytes of `path`, unpacked if they are an xz stream, whatever the file is called.
///
/// # Errors
/// What cannot be read or unpacked, with the path.
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

/// How often values of which size are met: CacheLib cachebench's `valSizeRange` and `valSizeRangeProbability`.
#[derive(Clone, Debug, Deserialize)]
pub struct SizeHistogram {
    /// Bytes.
    #[serde(rename = "valSizeRange")]
    pub sizes: Vec<f64>,
    /// Weight of each, in any unit.
    #[serde(rename = "valSizeRangeProbability")]
    pub weights: Vec<f64>,
}

/// How popular keys are: CacheLib cachebench's `popularityBuckets` and `popularityWeights`.
#[derive(Clone, Debug, Deserialize)]
pub struct PopularityHistogram {
    /// Keys in each bucket.
    #[serde(rename = "popularityBuckets")]
    pub keys: Vec<f64>,
    /// Requests that go to each bucket, in any unit.
    #[serde(rename = "popularityWeights")]
    pub weights: Vec<f64>,
}

impl SizeHistogram {
    /// Read and check.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let histogram: Self = json(path)?;
        check(path, &histogram.sizes, &histogram.weights)?;
        Ok(histogram)
    }
}

impl PopularityHistogram {
    /// Read and check.
    ///
    /// # Errors
    /// What is wrong with the file.
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
        return said("has not as many weights as values");
    }
    if values.iter().chain(weights).any(|number| !number.is_finite() || *number < 0.0) {
        return said("has a negative or infinite number");
    }
    if weights.iter().sum::<f64>() <= 0.0 {
        return said("weighs nothing");
    }
    Ok(())
}
