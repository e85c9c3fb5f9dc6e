//! The result of a comparison: medians over rounds, and ratios within rounds.

use serde::Serialize;

use crate::load::Report;
use crate::machine::Machine;

/// The whole result of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The machine that it was measured on.
    pub machine: Machine,
    /// The command line.
    pub command: String,
    /// How it was measured, in words.
    pub method: String,
    /// The servers, the reference first.
    pub servers: Vec<ServerLine>,
    /// One row for each workload.
    pub rows: Vec<Row>,
    /// The latency that each proxy adds; empty unless a cache was measured directly too.
    pub added: Vec<Added>,
}

/// A server that took part.
#[derive(Clone, Debug, Serialize)]
pub struct ServerLine {
    /// Name in tables.
    pub name: String,
    /// Version that the server reports.
    pub version: String,
    /// Arguments that it was started with.
    pub arguments: String,
}

/// The results of all servers under one workload.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the workload.
    pub workload: String,
    /// Description of the workload.
    pub what: String,
    /// One cell for each server, in the order of [`Comparison::servers`].
    pub cells: Vec<Cell>,
}

/// The results of one server under one workload: medians over rounds, unless a field says otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cell {
    /// Why the server has no results under this workload.
    pub failure: Option<String>,
    /// Wrong and stale values, broken connections and errors, summed over all rounds.
    pub faults: u64,
    /// CPU time of the server, microseconds a request.
    pub cpu_us: f64,
    /// Number of cores that the server kept busy.
    pub cores: f64,
    /// Requests a second.
    pub requests_per_s: f64,
    /// Median latency, microseconds.
    pub p50_us: f64,
    /// 99th percentile of latency, microseconds.
    pub p99_us: f64,
    /// 99.9th percentile of latency, microseconds.
    pub p999_us: f64,
    /// 99th percentile of the median tenth of a second, microseconds; open loops only.
    pub steady_p99_us: Option<f64>,
    /// CPU time a request divided by that of the reference in the same round.
    pub cpu_ratio: Spread,
    /// Throughput divided by that of the reference in the same round.
    pub throughput_ratio: Spread,
    /// 99th percentile divided by that of the reference in the same round; in open loops, of the median tenth
    /// of a second.
    pub p99_ratio: Spread,
    /// CPU time of the generator, microseconds a request.
    pub generator_cpu_us: f64,
    /// Whether an open loop was saturated in any round: the server did not keep up with the rate.
    pub saturated: bool,
    /// The report of every round.
    pub rounds: Vec<Report>,
}

/// The latency that a proxy adds, compared with a cache that is asked directly in the same round.
#[derive(Clone, Debug, Serialize)]
pub struct Added {
    /// Name of the proxy.
    pub name: String,
    /// Difference of the medians, microseconds.
    pub p50_us: Spread,
    /// Difference of the 99th percentiles of the median tenth of a second, microseconds.
    pub p99_us: Spread,
}

/// A figure over rounds: a ratio to the reference, or a difference.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// Median over the rounds.
    pub median: f64,
    /// Least of the rounds.
    pub min: f64,
    /// Greatest of the rounds.
    pub max: f64,
}

/// Returns the median; 0 when there are no values.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

impl Spread {
    /// Spread of the ratios of one figure to that of the reference, round by round.
    fn from_ratios(rounds: &[Report], reference: &[Report], figure: impl Fn(&Report) -> f64) -> Self {
        let pairs = rounds.iter().zip(reference).map(|(own, reference)| (figure(own), figure(reference)));
        Self::from_figures(pairs.filter(|pair| pair.1 > 0.0).map(|pair| pair.0 / pair.1))
    }

    /// Spread of the differences of one figure to that of the direct measurement, round by round.
    fn from_differences(rounds: &[Report], direct: &[Report], figure: impl Fn(&Report) -> f64) -> Self {
        Self::from_figures(rounds.iter().zip(direct).map(|(own, direct)| figure(own) - figure(direct)))
    }

    fn from_figures(figures: impl Iterator<Item = f64>) -> Self {
        let figures: Vec<f64> = figures.collect();
        Self {
            median: median(figures.iter().copied()),
            min: figures.iter().copied().reduce(f64::min).unwrap_or(0.0),
            max: figures.iter().copied().reduce(f64::max).unwrap_or(0.0),
        }
    }
}

impl Row {
    /// Returns the latency that each server of this row adds to that of the last one, which was asked
    /// directly. Servers that failed are left out.
    #[must_use]
    pub fn added(&self, names: &[String]) -> Vec<Added> {
        let Some((direct, proxies)) = self.cells.split_last() else { return Vec::new() };
        let works = |cell: &Cell| cell.failure.is_none();
        let added = |(name, cell): (&String, &Cell)| Added {
            name: name.clone(),
            p50_us: Spread::from_differences(&cell.rounds, &direct.rounds, |report| {
                report.latencies.all.p50_us
            }),
            p99_us: Spread::from_differences(&cell.rounds, &direct.rounds, steady_or_all),
        };
        names.iter().zip(proxies).filter(|(_, cell)| works(cell) && works(direct)).map(added).collect()
    }
}

impl Cell {
    /// Summarises all rounds of a server, compared with the rounds of the reference.
    #[must_use]
    pub fn new(rounds: &[Report], reference: &[Report]) -> Self {
        let middle = |figure: fn(&Report) -> f64| median(rounds.iter().map(figure));
        let cpu = |report: &Report| report.resources.server_cpu_us.unwrap_or(0.0);
        let faults = |report: &Report| {
            let faults = &report.faults;
            faults.wrong + faults.stale + faults.broken_connections + faults.server_errors
        };
        Self {
            failure: None,
            faults: rounds.iter().map(faults).sum(),
            cpu_us: middle(|report| report.resources.server_cpu_us.unwrap_or(0.0)),
            cores: middle(|report| report.resources.server_cores.unwrap_or(0.0)),
            requests_per_s: middle(|report| report.throughput.requests_per_s),
            p50_us: middle(|report| report.latencies.all.p50_us),
            p99_us: middle(|report| report.latencies.all.p99_us),
            p999_us: middle(|report| report.latencies.all.p999_us),
            steady_p99_us: rounds
                .iter()
                .all(|report| report.latencies.steady_p99_us.is_some())
                .then(|| middle(steady_or_all)),
            cpu_ratio: Spread::from_ratios(rounds, reference, cpu),
            throughput_ratio: Spread::from_ratios(rounds, reference, |report| {
                report.throughput.requests_per_s
            }),
            p99_ratio: Spread::from_ratios(rounds, reference, steady_or_all),
            generator_cpu_us: middle(|report| report.resources.own_cpu_us),
            saturated: rounds.iter().any(|report| report.throughput.saturated),
            rounds: rounds.to_vec(),
        }
    }
}

/// Returns the 99th percentile that servers are compared by: of the median tenth of a second in open loops,
/// else of all requests.
fn steady_or_all(report: &Report) -> f64 {
    report.latencies.steady_p99_us.unwrap_or(report.latencies.all.p99_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}
