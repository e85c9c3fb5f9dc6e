//! What a comparison came to: medians, and ratios within rounds.

use serde::Serialize;

use crate::load::Report;
use crate::machine::Machine;

/// A comparison, whole.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Where.
    pub machine: Machine,
    /// The command that made it.
    pub command: String,
    /// How it was measured, in words.
    pub method: String,
    /// The servers, the reference first.
    pub servers: Vec<ServerLine>,
    /// One a workload.
    pub rows: Vec<Row>,
    /// One a proxy, where caches were asked directly too.
    pub added: Vec<Added>,
}

/// A server that took part.
#[derive(Clone, Debug, Serialize)]
pub struct ServerLine {
    /// What tables call it.
    pub name: String,
    /// What it says it is.
    pub version: String,
    /// Its arguments.
    pub arguments: String,
}

/// A workload and what each server made of it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the workload.
    pub workload: String,
    /// What it is.
    pub what: String,
    /// In the order of the servers.
    pub cells: Vec<Cell>,
}

/// One server under one workload. Medians over rounds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cell {
    /// Why there is nothing else here.
    pub failure: Option<String>,
    /// Wrong or stale values, broken connections, errors, over all rounds.
    pub faults: u64,
    /// Server CPU, microseconds a request.
    pub cpu_us: f64,
    /// Cores the server kept busy.
    pub cores: f64,
    /// Requests a second.
    pub requests_per_s: f64,
    /// Latency, microseconds.
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
    /// The same.
    pub p999_us: f64,
    /// 99th percentile of the median tenth of a second; of open loops only.
    pub steady_p99_us: Option<f64>,
    /// CPU of this server to that of the reference in the same round.
    pub cpu_ratio: Spread,
    /// Throughput, likewise.
    pub throughput_ratio: Spread,
    /// 99th percentile, likewise; of open loops that of the median tenth of a second.
    pub p99_ratio: Spread,
    /// CPU of the generator, microseconds a request.
    pub generator_cpu_us: f64,
    /// Whether an open loop could not be kept up with.
    pub saturated: bool,
    /// Every round.
    pub rounds: Vec<Report>,
}

/// What a proxy adds to the latency of the cache behind it, asked directly in the same round.
#[derive(Clone, Debug, Serialize)]
pub struct Added {
    /// Name of the proxy.
    pub name: String,
    /// To the median, microseconds.
    pub p50_us: Spread,
    /// To the 99th percentile of the median tenth of a second, microseconds.
    pub p99_us: Spread,
}

/// A figure over rounds: a ratio to the reference, or a difference.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// Median of the rounds.
    pub median: f64,
    /// The least of them.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// The median; 0 of nothing.
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
    /// Ratios of one figure to the reference's, round by round.
    fn of(rounds: &[Report], reference: &[Report], figure: impl Fn(&Report) -> f64) -> Self {
        let pairs = rounds.iter().zip(reference).map(|(own, reference)| (figure(own), figure(reference)));
        Self::over(pairs.filter(|pair| pair.1 > 0.0).map(|pair| pair.0 / pair.1))
    }

    /// Differences, likewise.
    fn beyond(rounds: &[Report], direct: &[Report], figure: impl Fn(&Report) -> f64) -> Self {
        Self::over(rounds.iter().zip(direct).map(|(own, direct)| figure(own) - figure(direct)))
    }

    fn over(figures: impl Iterator<Item = f64>) -> Self {
        let figures: Vec<f64> = figures.collect();
        Self {
            median: median(figures.iter().copied()),
            min: figures.iter().copied().reduce(f64::min).unwrap_or(0.0),
            max: figures.iter().copied().reduce(f64::max).unwrap_or(0.0),
        }
    }
}

impl Row {
    /// What each server of this row adds to the latency of the last one, by name; nothing of those that failed.
    #[must_use]
    pub fn added(&self, names: &[String]) -> Vec<Added> {
        let Some((direct, proxies)) = self.cells.split_last() else { return Vec::new() };
        let works = |cell: &Cell| cell.failure.is_none();
        let added = |(name, cell): (&String, &Cell)| Added {
            name: name.clone(),
            p50_us: Spread::beyond(&cell.rounds, &direct.rounds, |report| report.latency.p50_us),
            p99_us: Spread::beyond(&cell.rounds, &direct.rounds, steady_or_all),
        };
        names.iter().zip(proxies).filter(|(_, cell)| works(cell) && works(direct)).map(added).collect()
    }
}

impl Cell {
    /// Of all rounds of a server, beside those of the reference.
    #[must_use]
    pub fn new(rounds: &[Report], reference: &[Report]) -> Self {
        let middle = |figure: fn(&Report) -> f64| median(rounds.iter().map(figure));
        let cpu = |report: &Report| report.server_cpu_us.unwrap_or(0.0);
        let faults = |report: &Report| {
            let faults = &report.faults;
            faults.wrong + faults.stale + faults.broken_connections + faults.server_errors
        };
        Self {
            failure: None,
            faults: rounds.iter().map(faults).sum(),
            cpu_us: middle(|report| report.server_cpu_us.unwrap_or(0.0)),
            cores: middle(|report| report.server_cores.unwrap_or(0.0)),
            requests_per_s: middle(|report| report.requests_per_s),
            p50_us: middle(|report| report.latency.p50_us),
            p99_us: middle(|report| report.latency.p99_us),
            p999_us: middle(|report| report.latency.p999_us),
            steady_p99_us: rounds
                .iter()
                .all(|report| report.steady_p99_us.is_some())
                .then(|| middle(steady_or_all)),
            cpu_ratio: Spread::of(rounds, reference, cpu),
            throughput_ratio: Spread::of(rounds, reference, |report| report.requests_per_s),
            p99_ratio: Spread::of(rounds, reference, steady_or_all),
            generator_cpu_us: middle(|report| report.own_cpu_us),
            saturated: rounds.iter().any(|report| report.saturated),
            rounds: rounds.to_vec(),
        }
    }
}

/// The 99th percentile that servers are compared by.
fn steady_or_all(report: &Report) -> f64 {
    report.steady_p99_us.unwrap_or(report.latency.p99_us)
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
